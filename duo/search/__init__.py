"""The oracle's engine: what every pattern costs every token, candidates sharing their common beginnings.

Contexts, by what the earlier tokens follow:

    same         the candidate itself: the paper's literal reading; not attainable, for no single pass has this loss
    a `Run`      a given run, the reference: one token is changed at a time
    committed    their own chosen routes: greedy and attainable, for its replay equals its promise

Methods, by the candidates of a token and what is found:

    exact        those listed; the best of them
    local        all of its counts; what no promising swap of two layers improves: few layer evaluations, little regret
    beam         all of its counts; the best of what began best: fewest layer evaluations, more regret

Files:

    exact        every candidate of every token; budgets, contexts, memory
    walk         one walk over the tree of candidates; how contexts attend
    trie         patterns as a tree of their beginnings
    patterns     sets of patterns, and their counts
    values       the label's loss, or a criterion without it
    best         the best pattern per count and token
    floors       what rules most candidates out before their losses are computed
    approximate  what local and beam search share
    local, beam  from a pattern by swaps; the best beginnings
    prediction   what candidates predict together
    planned      what is said before a long search
"""

from duo.search.beam import Beam
from duo.search.exact import MEMORY, Found, Search
from duo.search.local import Local
from duo.search.patterns import all_patterns, draw_patterns, patterns_of
from duo.search.values import Criterion, entropy, expected_loss

METHODS: dict[str, type[Search]] = {"exact": Search, "beam": Beam, "local": Local}

__all__ = [
    "MEMORY", "METHODS", "Criterion", "Found", "Search", "all_patterns", "draw_patterns", "entropy",
    "expected_loss", "patterns_of",
]  # fmt: skip
