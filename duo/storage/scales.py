"""A store that weighs: what is added to it is counted and goes nowhere."""

from __future__ import annotations

from duo.storage.store import Store


class Scales(Store):
    """A store that is read like the one at its location, and never written: `weights` says what would have been.

    Args:
        location: where it is read.
    """

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.weights: dict[tuple[str, str], int] = {}
        """Bytes by kind and digest."""

    def _put(self, kind: str, digest: str, files: dict[str, bytes]) -> None:
        self.weights[kind, digest] = sum(map(len, files.values()))
