"""The oracle's engine: what every pattern costs every token, candidates sharing their common beginnings.

| context | earlier tokens | what it is |
|---|---|---|
| `same` | follow the candidate itself | the paper's literal reading; not attainable, for no single pass has this loss |
| a `Run` (reference) | a given run | one token changed at a time |
| `committed` | their own chosen routes | greedy and attainable: its replay equals its promise |
"""

from duo.search.engine import MEMORY, Found, Search
from duo.search.patterns import all_patterns, patterns_of
from duo.search.values import Criterion, divergence, entropy

__all__ = ["MEMORY", "Criterion", "Found", "Search", "all_patterns", "divergence", "entropy", "patterns_of"]
