"""What a run does: a backbone and a router made or reused, scored alone or beside others.

source      where a backbone comes from: trained here, or published
pretrained  a backbone that begins as a pretrained model
stage1      trains a backbone under random routing
published   backbones and tokens that are shared by digest
stage3      trains and calibrates a router
score       a router's row, and those of its baselines and bounds
single      a run of one router
compare     a run of many rows
downstream  a run of tasks, answered by a router and its baselines
harness     a run's folder as a model of lm-eval
report      a report's comparisons, and its routes token by token
writer      backbone, router and tokenizer of a recipe or a run
export      what a run made, as a folder that transformers loads
passage     a text read by a recipe's backbone, router and oracle
identity    what is made depends on these, as digests
cache       what is made is kept and reused: lock, finish, load
output      a run's own folder
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duo.stages.compare import run_comparison
    from duo.stages.downstream import run_downstream
    from duo.stages.report import Measured, measure_report
    from duo.stages.single import run_single
    from duo.stages.source import BackboneSource, backbone_source
    from duo.stages.stage3 import calibrate, train_or_load

__all__ = [
    "BackboneSource", "Measured", "backbone_source", "calibrate", "measure_report", "run_comparison", "run_downstream",
    "run_single", "train_or_load",
]  # fmt: skip

FILES = {
    "run_comparison": "compare", "run_downstream": "downstream", "Measured": "report", "measure_report": "report",
    "run_single": "single", "BackboneSource": "source", "backbone_source": "source", "calibrate": "stage3",
    "train_or_load": "stage3",
}  # fmt: skip
"""By name, the file that has it."""


def __getattr__(name: str) -> Any:
    if name not in FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # not imported above: Lightning takes seconds, for which who looks into the cache need not wait
    return getattr(import_module(f"duo.stages.{FILES[name]}"), name)
