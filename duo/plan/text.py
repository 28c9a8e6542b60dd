"""A plan as it is shown, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from duo.plan.whole import Plan

WIDTH = 80
UNITS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))

PARTS = {part: part for part in ("weights", "copies", "gradients", "optimizer", "activations")} | {
    "checkpointed": "activations, checkpointed",
    "again": "half a layer, once more",
    "passing": "one layer at a time",
    "logits": "logits",
}


def amount(value: float, unit: str = "") -> str:
    """A number in three digits or so, with the letter of its size.

    >>> amount(1.399e9), amount(72.3e9, "B"), amount(12)
    ('1.40 G', '72.3 GB', '12 ')
    """
    size, letter = next(((size, letter) for size, letter in UNITS if value >= size), (1.0, ""))
    value /= size
    digits = 0 if value >= 100 or size == 1.0 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {letter}{unit}"


def lines_of(plan: Plan) -> Iterator[str]:
    """The plan, line by line."""
    many = "" if plan.devices == 1 else f", strategy {plan.strategy}"
    yield f"{plan.recipe} on {plan.devices} {plan.device}{many}, {plan.precision}"
    yield f"at {plan.efficiency:.0%} of their FLOPs (assumed; efficiency=SHARE for another)"
    yield ""
    yield f"{'parameters':24}{amount(sum(plan.parameters.values())):>12}"
    for part, count in plan.parameters.items():
        yield f"  {part:22}{amount(count):>12}"
    stages = [*plan.memory]
    yield ""
    yield f"{'memory of each device':32}" + "".join(f"{stage:>16}" for stage in stages)
    for part, name in PARTS.items():
        yield f"  {name:30}" + "".join(f"{amount(plan.memory[stage].parts[part], 'B'):>16}" for stage in stages)
    yield f"  {'the most at once':30}" + "".join(f"{amount(plan.memory[stage].peak, 'B'):>16}" for stage in stages)
    yield f"  {'the same, checkpointed':30}" + "".join(
        f"{amount(plan.memory[stage].checkpointed, 'B'):>16}" for stage in stages
    )
    yield ""
    yield f"{'work':32}{'FLOPs':>16}{'device-hours':>16}"
    for kind, flops in plan.flops.items():
        yield f"  {kind:30}{amount(flops):>16}{plan.device_hours[kind]:>16,.2f}"
    hours = sum(plan.device_hours.values())
    yield f"  {'in all':30}{amount(sum(plan.flops.values())):>16}{hours:>16,.2f}"
    yield ""
    if plan.tokens_per_second:
        yield f"{'tokens a second (stage 1)':32}{plan.tokens_per_second:>16,.0f}"
    yield f"{'days':32}{plan.days:>16,.2f}"
    if plan.cost is not None:
        yield f"{'money':32}{plan.cost:>16,.2f}  at {plan.price:g} an hour"
    for note in plan.notes:
        yield from wrap(f"note: {note}", WIDTH, subsequent_indent="      ")
