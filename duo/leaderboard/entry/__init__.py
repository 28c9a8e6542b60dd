"""Entries: what an entry is, and what is admitted.

schema       the fields of its result.json
recipe       the keys that its recipe keeps
entry        reads and adds one
router       its router, with its weights
rules        what a row must do to be admitted
"""
