"""What is said of a search before it begins, if it takes long."""

from __future__ import annotations

import logging
import math

LONG = 60.0  # seconds

log = logging.getLogger(__name__)


def tell_if_long(title: str, seconds: float, what: str) -> None:
    """Says how many minutes something will take, if it is more than one."""
    if seconds > LONG:
        log.info("%s  about %s minutes for %s", title, math.ceil(seconds / 60), what)
