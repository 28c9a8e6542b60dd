"""What a recipe takes before it runs: memory, FLOPs, time and money. A plan loads no weights and no data.

__main__  python -m duo.plan
devices   what devices hold and do
memory    bytes by part, of a training step and of a pass in evaluation
training  FLOPs of training steps
deciding  what routers spend in training, calibration and evaluation, counted on toys
works     all trainings and evaluations of a recipe, each once
fit       whether it fits a device, and the knob that would make it
whole     the plan of a recipe
balance   one hold-out's search over many workers
text      the plan as it is shown
"""

from duo.plan.balance import Balance, balance
from duo.plan.memory import Memory
from duo.plan.whole import Plan, plan

__all__ = ["Balance", "Memory", "Plan", "balance", "plan"]
