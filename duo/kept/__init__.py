"""What runs and leaderboards keep, in Python again.

load      backbone, router and tokenizer of a run, a row, an entry, or a published backbone
loaded    reads a text with them
results   a run's numbers as a table
runs      runs and entries as rows that may be compared
"""

from duo.kept.load import load
from duo.kept.loaded import Loaded, Reading
from duo.kept.results import results

__all__ = ["Loaded", "Reading", "load", "results"]
