"""The stages of runs: backbones and routers made or reused, scores, comparisons, and the part that is luck."""

from duo.stages.compare import compared
from duo.stages.luck import luck
from duo.stages.make import (
    Say,
    backbone_digest,
    backbone_folder,
    calibrate,
    device_of,
    learns,
    router_digest,
    router_folder,
    trained_backbone,
    trained_router,
)
from duo.stages.score import BOUNDS, Scores, baselines, evaluated, gaps, score_of

__all__ = [
    "BOUNDS", "Say", "Scores", "backbone_digest", "backbone_folder", "baselines", "calibrate", "compared", "device_of",
    "evaluated", "gaps", "learns", "luck", "router_digest", "router_folder", "score_of", "trained_backbone",
    "trained_router",
]  # fmt: skip
