"""Signs of life: what long work is at, how much of it is done, and how much time is left.

Work says it with `track`, `count` and `at`, wherever it stands; what is said is seen where somebody watches, else
nowhere. No number depends on it.

work     what is being done, within what
beat     shows it again while a single long operation tells nothing
shown    how it is shown: one line of a terminal, or lines of a log
start    the first line of a command, before its imports
passed   what a process says to the one that waits for it
"""

from duo.progress.work import Part, at, count, track, watching

__all__ = ["Part", "at", "count", "track", "watching"]
