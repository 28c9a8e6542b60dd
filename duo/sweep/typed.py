"""What was typed: a recipe, the values that keys go through, and how to run all that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from duo.plan.devices import find_device
from duo.recipe import Recipe, load
from duo.recipe.kinds import shown, split_key
from duo.recipe.read import LEFT_BEHIND, check_keys, parse_overrides
from duo.recipe.schema import NOT_IN_ROWS

CLOSING = {"[": "]", "{": "}", "(": ")"}
HERE = "here"
NOT_SWEPT = NOT_IN_ROWS | {"scale"}


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep's runs are run.

    Raises:
        ValueError: a number is impossible.
    """

    parallel: int | None = None
    """Runs at once (null: 2 on this machine, whose threads they share; on SLURM all of them)."""
    slurm: dict[str, Any] = field(default_factory=dict)
    """What SLURM is asked for, for each run, in sbatch's words: time (minutes), partition, gpus_per_node,
    cpus_per_task, mem, ...; none: the runs are processes of this machine."""

    def __post_init__(self) -> None:
        if self.parallel is not None and self.parallel < 1:
            raise ValueError(f"sweep.parallel={self.parallel} must be 1 or more")


@dataclass(frozen=True)
class PlanConfig:
    """What hours are planned for.

    Raises:
        ValueError: there is no such device, or a number is impossible.
    """

    device: str = HERE
    """Kind of device, as python -m duo.plan knows them; `here`: this machine, as fast as a moment shows it to be."""
    devices: int = 1
    """Devices of each run."""
    efficiency: float = 0.4
    """Share of a device's FLOPs that is reached: an assumption."""

    def __post_init__(self) -> None:
        if self.device != HERE:
            find_device(self.device)
        if self.devices < 1:
            raise ValueError(f"devices={self.devices} must be 1 or more")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency={self.efficiency:g} must be a share of the device's FLOPs, from 0 to 1")


PLANNED = [part.name for part in fields(PlanConfig)]


@dataclass(frozen=True)
class _Own:
    """Keys that are the sweep's own."""

    sweep: SweepConfig = field(default_factory=SweepConfig)


class Typed(NamedTuple):
    """What was typed."""

    recipe: Recipe
    """Under the keys that have one value."""
    over: dict[str, list[Any]]
    """Keys that have several, as a recipe takes them."""
    config: SweepConfig
    plan: PlanConfig


def read_typed(name: str, settings: Sequence[str]) -> Typed:
    """Reads settings, each value of each key as `python -m duo.run` would.

    Raises:
        ValueError: a key that is not there (the nearest ones are named), a value that is missing, there twice or
            impossible, or a key whose values are given twice.
    """
    own = [setting for setting in settings if setting.startswith("sweep.")]
    planned = [setting for setting in settings if setting.partition("=")[0] in PLANNED]
    single: list[str] = []
    swept: dict[str, list[str]] = {}
    for setting in settings:
        if setting in own or setting in planned:
            continue
        key, _, text = setting.partition("=")
        values = split_values(key, text)
        if key in swept:
            raise ValueError(f"{key} is there twice: give all its values at once, as in {key}=1,2")
        if len(values) > 1:
            _check_swept(key)
            swept[key] = values
        else:
            single.append(setting)
    recipe, over = _read_values(name, single, swept)
    return Typed(recipe, over, _read_own(own), _read_plan(planned))


def _check_swept(key: str) -> None:
    if split_key(key)[0] in NOT_SWEPT:
        raise ValueError(f"{key} cannot differ between the runs of a sweep: give it one value")


def split_values(key: str, text: str) -> list[str]:
    """The values of a setting: what stands between commas, but for those in brackets and quotes.

    >>> split_values("budget.big", "2,4"), split_values("budget.pinned", "[0,1],[2]"), split_values("seed", "0")
    (['2', '4'], ['[0,1]', '[2]'], ['0'])

    Raises:
        ValueError: a value is missing.
    """
    parts, quote = [""], ""
    open_: list[str] = []
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in CLOSING:
            open_.append(CLOSING[character])
        elif open_ and character == open_[-1]:
            open_.pop()
        elif character == "," and not open_:
            parts.append("")
            continue
        parts[-1] += character
    if not all(part.strip() for part in parts):
        raise ValueError(f"{shown(f'{key}={text}')} lacks a value: write one, or several with commas, as in {key}=1,2")
    return [part.strip() for part in parts] if len(parts) > 1 else parts


def _read_values(name: str, single: Sequence[str], swept: dict[str, list[str]]) -> tuple[Recipe, dict[str, list[Any]]]:
    """The recipe under the first value of each key, and all values of each as a recipe takes them."""
    first = {key: f"{key}={values[0]}" for key, values in swept.items()}
    over: dict[str, list[Any]] = {}
    for key, texts in swept.items():
        found = over.setdefault(_name(key), [])
        others = [setting for other, setting in first.items() if other != key]
        for text in texts:
            load(name, [*single, *others, f"{key}={text}"])  # says what is wrong as it would of a run
            value = _value_of(f"{key}={text}")
            if value in found:
                raise ValueError(f"{key} has the value {text} twice: leave one out")
            found.append(value)
    for section, key, _ in LEFT_BEHIND:
        if f"{section}.{key}" in over:  # another router would leave behind the options that were typed for all
            typed = [setting for setting in single if setting.startswith(f"{section}.")]
            over |= {_name(setting.partition("=")[0]): [_value_of(setting)] for setting in typed}
    return load(name, [*single, *first.values()]), over


def _name(key: str) -> str:
    """A key as `compare.over` names it: `budget.big`, however it was typed."""
    return ".".join(split_key(key))


def _value_of(setting: str) -> Any:
    """The value of a setting with one value."""
    value: Any = parse_overrides([setting], Recipe)
    for part in split_key(setting.partition("=")[0]):
        value = value[part]
    return value


def _read_own(settings: Sequence[str]) -> SweepConfig:
    values = parse_overrides(settings, _Own)
    check_keys(values, _Own)
    given = values.get("sweep", {})
    if isinstance(given.get("parallel"), str):
        given["parallel"] = int(given["parallel"])
    return SweepConfig(**given)


def _read_plan(settings: Sequence[str]) -> PlanConfig:
    values = parse_overrides(settings, PlanConfig)
    check_keys(values, PlanConfig)
    kinds = {"device": str, "devices": int, "efficiency": float}
    if not math.isfinite(float(values.get("efficiency", 1))):
        raise ValueError(f"efficiency={values['efficiency']} must be a share of the device's FLOPs, from 0 to 1")
    return PlanConfig(**{key: kinds[key](value) for key, value in values.items()})
