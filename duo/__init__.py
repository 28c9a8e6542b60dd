"""duo: adaptive computation in language models, with a big and a small FFN in every layer (Duo-LLM, Apple, 2024).

Tensor names end in their shape: B batch, T tokens of a sequence, S tokens of the present step, L layers, D width of the
stream, V vocabulary, M modules (skip, small, big), N tokens of a batch, P patterns, H heads, K width of a head.
"""

from duo.backbone import Backbone, BackboneConfig, Gate, Run
from duo.budget import Budget
from duo.calibration import calibrated, module_counts
from duo.router import Router, Spec, capped, one_hot, replay, straight_through, top
from duo.trial import Trial

__all__ = [
    "Backbone",
    "BackboneConfig",
    "Budget",
    "Gate",
    "Router",
    "Run",
    "Spec",
    "Trial",
    "calibrated",
    "capped",
    "module_counts",
    "one_hot",
    "replay",
    "straight_through",
    "top",
]
