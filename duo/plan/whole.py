"""The plan of a recipe: what it takes of devices, time and money."""

from __future__ import annotations

from msgspec import Struct, field

from duo.plan.balance import check_workers
from duo.plan.devices import find_device
from duo.plan.fit import Setting, check_fit, memory_of
from duo.plan.memory import count_parameters
from duo.plan.works import Work, Works
from duo.recipe import Recipe

KINDS = ("stage 1", "stage 3", "calibration", "search", "evaluation")
DAY, HOUR = 86400.0, 3600.0


class Stage(Struct, frozen=True):
    """Bytes of one device in a stage."""

    parts: dict[str, float]
    peak: float
    checkpointed: float
    """The peak with activation checkpointing."""


class Plan(Struct, frozen=True):
    """What a recipe takes."""

    recipe: str
    device: str
    devices: int
    strategy: str
    precision: str
    efficiency: float
    """Share of the devices' FLOPs that is reached: an assumption, not a result."""
    parameters: dict[str, int]
    """Of the largest backbone."""
    memory: dict[str, Stage]
    flops: dict[str, float]
    device_hours: dict[str, float]
    tokens_per_second: float
    """Of stage 1, on all devices together; 0 where nothing is trained."""
    days: float
    price: float | None
    """Of a device and hour."""
    cost: float | None
    works: list[Work] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(
    recipe: Recipe, name: str, device: str, devices: int = 1, *, strategy: str | None = None, efficiency: float = 0.4,
    price: float | None = None,
) -> Plan:  # fmt: skip
    """Plans a recipe; loads neither weights nor data.

    Args:
        recipe: what is to run.
        name: what it is called.
        device: kind of device.
        devices: how many there are.
        strategy: `ddp` or `fsdp2`; null: the recipe's, or ddp.
        efficiency: share of the devices' FLOPs that is reached.
        price: of a device and hour.

    Raises:
        ValueError: an unknown device or strategy, more devices than sequences, or a stage that does not fit; the
            setting that would make it fit is named.
    """
    kind = find_device(device)
    precision = str(recipe.trainer.get("precision", "32-true"))
    setting = Setting(devices, strategy or str(recipe.trainer.get("strategy", "auto")), precision)
    trained = [row for row in recipe.rows() if not row.leaderboard.backbone]
    for row in trained:
        accumulate = row.trainer.get("accumulate_grad_batches", 1)
        check_workers(devices, row.data.batch_size // accumulate, f"of a batch (data.batch_size={row.data.batch_size})")
    largest = max(recipe.rows(), key=lambda row: sum(count_parameters(row.backbone).values()))
    memory = memory_of(largest, setting, trains=bool(trained))
    check_fit(largest, setting, device)
    works = Works(recipe, devices)
    flops = {kind: works.flops(kind) for kind in KINDS}
    rate = kind.flops(precision) * efficiency
    hours = {kind: spent / rate / HOUR for kind, spent in flops.items()}
    first = [work for work in works.done if work.kind == "stage 1"]
    tokens = sum(work.tokens for work in first)
    total = sum(hours.values())
    return Plan(
        recipe=name, device=device, devices=devices, strategy=setting.strategy, precision=precision,
        efficiency=efficiency, parameters=count_parameters(largest.backbone),
        memory={
            stage: Stage(found._asdict(), found.peak(), found.recomputing().peak()) for stage, found in memory.items()
        },
        flops=flops, device_hours=hours,
        tokens_per_second=devices * rate * tokens / flops["stage 1"] if tokens else 0.0,
        days=total * HOUR / devices / DAY, price=price, cost=None if price is None else price * total,
        works=works.done, notes=works.notes,
    )  # fmt: skip
