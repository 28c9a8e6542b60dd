"""duo: adaptive computation in language models, with a big and a small FFN in every layer (Duo-LLM, Apple, 2024).

Tensor names end in their shape: B batch, T tokens of a sequence, S tokens of the present step, L layers, D width of the
stream, V vocabulary, M modules (skip, small, big), N tokens of a batch, P patterns, H heads, K width of a head.
"""

from duo.backbone import Backbone, BackboneConfig, Gate, Run
from duo.backbone.budget import Budget
from duo.routing.calibration import calibrated, module_counts
from duo.routing.compose import capped, one_hot, replay, straight_through, top
from duo.routing.router import Router, Spec
from duo.routing.trial import Trial

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
