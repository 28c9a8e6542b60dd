"""What devices hold and do, as their data sheets say: dense products, without sparsity."""

from __future__ import annotations

from typing import NamedTuple

from duo.routing.registry import unknown

TERA = 1e12


class Device(NamedTuple):
    """One kind of device."""

    memory: float
    """Bytes."""
    half: float
    """FLOPs a second in bfloat16, or in float16 where it knows no bfloat16."""
    single: float
    """FLOPs a second in float32."""

    def flops(self, precision: str) -> float:
        """FLOPs a second at one of Lightning's precisions."""
        return self.half if "16" in precision else self.single


DEVICES = {
    "a10": Device(24e9, 125 * TERA, 31.2 * TERA),
    "a100": Device(80e9, 312 * TERA, 19.5 * TERA),
    "a100-40": Device(40e9, 312 * TERA, 19.5 * TERA),
    "b200": Device(180e9, 2250 * TERA, 80 * TERA),
    "h100": Device(80e9, 989 * TERA, 67 * TERA),
    "h200": Device(141e9, 989 * TERA, 67 * TERA),
    "l40s": Device(48e9, 362 * TERA, 91.6 * TERA),
    "mi300x": Device(192e9, 1307 * TERA, 163.4 * TERA),
    "rtx4090": Device(24e9, 165 * TERA, 82.6 * TERA),
    "v100": Device(32e9, 125 * TERA, 15.7 * TERA),
}


def find_device(name: str) -> Device:
    """A device by name.

    Raises:
        ValueError: there is none; the nearest names and all that exist are told.
    """
    if name not in DEVICES:
        raise ValueError(unknown("device", name, DEVICES))
    return DEVICES[name]
