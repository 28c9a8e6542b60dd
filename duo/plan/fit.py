"""Whether a recipe fits a device, and which setting would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from duo.plan.devices import find_device
from duo.plan.memory import Memory, evaluation_memory, training_memory
from duo.recipe import Recipe
from duo.routing.registry import unknown

STRATEGIES = ("auto", "ddp", "fsdp2")
RESERVED = 0.06
"""Share of a device that its driver, its libraries and gaps between tensors take: an assumption."""
GB = 1e9


@dataclass(frozen=True)
class Setting:
    """How a recipe is spread over devices.

    Raises:
        ValueError: an unknown strategy, or fewer than one device.
    """

    devices: int
    strategy: str
    precision: str

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(unknown("strategy", self.strategy, STRATEGIES))
        if self.strategy == "auto" and self.devices > 1:
            object.__setattr__(self, "strategy", "ddp")  # as Lightning chooses
        if self.devices < 1:
            raise ValueError(f"devices={self.devices} must be at least 1")


def memory_of(
    recipe: Recipe, setting: Setting, trains: bool = True, accumulate: int | None = None
) -> dict[str, Memory]:
    """What a device holds at most in stage 1 and in evaluation."""
    data, stage = recipe.data, recipe.stage1
    accumulate = accumulate or recipe.trainer.get("accumulate_grad_batches", 1)
    found = {}
    if trains:
        sequences = -(-data.batch_size // (setting.devices * accumulate))
        found["stage 1"] = training_memory(
            recipe.backbone, sequences * data.tokens, p_big=stage.p_big, p_skip=stage.p_skip,
            precision=setting.precision, devices=setting.devices, sharded=setting.strategy == "fsdp2",
            accumulate=accumulate,
        )  # fmt: skip
        if recipe.trainer.get("activation_checkpointing"):
            found["stage 1"] = found["stage 1"].recomputing()
    # whole, and all big beside the recipe's own routes
    found["evaluation"] = evaluation_memory(recipe.backbone, data.evaluated_at_once * data.tokens)
    return found


def check_fit(recipe: Recipe, setting: Setting, device: str) -> None:
    """Raises ValueError where a stage does not fit the device, with the setting that would make it fit."""
    room = find_device(device).memory * (1 - RESERVED)
    trains = not recipe.leaderboard.backbone
    for stage, found in memory_of(recipe, setting, trains).items():
        if found.peak() <= room:
            continue
        for words, smaller in _ways(recipe, setting, stage):
            if smaller.peak() <= room:
                hint = f"{words} makes it {smaller.peak() / GB:.1f} GB"
                break
        else:
            hint = "no batch is small enough: take devices that hold more, or a smaller backbone"
        raise ValueError(
            f"{stage} needs {found.peak() / GB:.1f} GB of each {device}, which has room for {room / GB:.1f} GB: {hint}"
        )


def _ways(recipe: Recipe, setting: Setting, stage: str) -> Iterator[tuple[str, Memory]]:
    """Settings that need less, the mildest first, and what each of them needs."""
    data = recipe.data
    if stage == "evaluation":
        size = data.evaluated_at_once
        while size > 1:
            size //= 2
            yield f"data.eval_batch_size={size}", evaluation_memory(recipe.backbone, size * data.tokens)
        return
    now = recipe.trainer.get("accumulate_grad_batches", 1)
    for strategy in dict.fromkeys((setting.strategy, "fsdp2")):
        if strategy == "fsdp2" and setting.devices == 1:
            continue
        for accumulate in range(now, data.batch_size // setting.devices + 1):
            if data.batch_size % (accumulate * setting.devices):
                continue
            changes = [f"strategy={strategy}"] * (strategy != setting.strategy)
            changes += [f"trainer.accumulate_grad_batches={accumulate}"] * (accumulate != now)
            spread = Setting(setting.devices, strategy, setting.precision)
            yield " ".join(changes), memory_of(recipe, spread, accumulate=accumulate)["stage 1"]
    for devices in (2, 4, 8, 16, 32, 64):
        if devices > setting.devices and not data.batch_size % devices:
            accumulate = data.batch_size // devices
            spread = Setting(devices, "fsdp2", setting.precision)
            words = f"devices={devices} strategy=fsdp2 trainer.accumulate_grad_batches={accumulate}"
            yield words, memory_of(recipe, spread, accumulate=accumulate)["stage 1"]
