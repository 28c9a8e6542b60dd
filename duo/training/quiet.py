"""What is said of every run and helps nobody."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Leaves out what Lightning says of devices and products, and warnings that are not a user's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch")
