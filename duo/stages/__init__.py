"""The stages of runs: backbones and routers made or reused, scores, comparisons, and the part that is luck."""

from duo.stages.compare import compared, seeded
from duo.stages.luck import luck
from duo.stages.make import Made, Say, backbone_digest, calibrate, device_of, learns, made
from duo.stages.score import BOUNDS, beside, made_beside, score_of, scored

__all__ = [
    "BOUNDS", "Made", "Say", "backbone_digest", "beside", "calibrate", "compared", "device_of", "learns", "luck",
    "made", "made_beside", "score_of", "scored", "seeded",
]  # fmt: skip
