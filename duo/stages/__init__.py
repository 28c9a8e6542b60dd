"""The stages of runs: backbones and routers made or reused, scores, comparisons, and the part that is luck."""

from duo.stages.compare import compared, seeded
from duo.stages.identity import Made, backbone_digest, data_of, learns, store_of
from duo.stages.luck import luck
from duo.stages.score import BOUNDS, beside, made_beside, references, score_of, scored
from duo.stages.stage1 import Say, calibrate, device_of, made, published_backbone

__all__ = [
    "BOUNDS", "Made", "Say", "backbone_digest", "beside", "calibrate", "compared", "data_of", "device_of", "learns",
    "luck", "made", "made_beside", "published_backbone", "references", "score_of", "scored", "seeded", "store_of",
]  # fmt: skip
