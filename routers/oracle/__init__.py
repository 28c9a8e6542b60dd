"""The oracle of the paper's stage 2: the best route of every token, found by search with its label."""

from routers.oracle.router import Oracle

__all__ = ["Oracle"]
