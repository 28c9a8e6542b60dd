"""python -m duo.plan recipe=NAME [devices=N] [device=NAME] [key=value ...]: what a recipe takes, before it runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import msgspec

from duo.plan.devices import DEVICES
from duo.recipe import load, recipes
from duo.report.command import run_command

USAGE = (
    "python -m duo.plan recipe=NAME [devices=1] [device=h100] [strategy=ddp|fsdp2] [efficiency=0.4] [price=MONEY] "
    "[--json] [key=value ...]"
)
OWN = ("recipe", "devices", "device", "strategy", "efficiency", "price")


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status: 0 done, 1 a mistake or what does not fit, 2 no recipe."""
    settings = dict(argument.partition("=")[::2] for argument in arguments if argument.partition("=")[0] in OWN)
    if {"--help", "-h"} & {*arguments} or "recipe" not in settings:
        asked = bool({"--help", "-h"} & {*arguments})
        print(
            f"{USAGE}\nDevices: {', '.join(DEVICES)}\nRecipes: {', '.join(recipes())}\n"
            "Other settings are the recipe's own (python -m duo.run --help).",
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    rest = [argument for argument in arguments if argument.partition("=")[0] not in OWN and argument != "--json"]
    return run_command(lambda: show(settings, rest, as_json="--json" in arguments))


def show(settings: dict[str, str], overrides: Sequence[str], as_json: bool) -> int:
    """Prints the plan."""
    from duo.plan.text import lines_of
    from duo.plan.whole import plan

    efficiency = _number("efficiency", settings.get("efficiency", "0.4"))
    if efficiency > 1:
        raise ValueError(f"efficiency={efficiency:g} must be a share of the devices' FLOPs, at most 1")
    name = settings["recipe"]
    found = plan(
        load(name, overrides),
        name,
        settings.get("device", "h100"),
        _whole("devices", settings.get("devices", "1")),
        strategy=settings.get("strategy"),
        efficiency=efficiency,
        price=_number("price", settings["price"]) if "price" in settings else None,
    )
    print(msgspec.json.format(msgspec.json.encode(found)).decode() if as_json else "\n".join(lines_of(found)))
    return 0


def _number(key: str, text: str) -> float:
    """A positive number; raises ValueError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{key}={text} is no number above 0")
    return value


def _whole(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{key}={text} is no whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
