"""Entries: what an entry is, and what is admitted."""
