"""The duo backbone: a decoder whose every layer holds a big and a small FFN, and may be skipped.

config       its shape; the order of the modules
attention    where tokens stand, and what they draw from one another
rotary       the angles of rotary positions
room         keys and values, in memory that is allocated once
routed       a layer's FFNs on the tokens that chose them
dense        a layer's dense parts: as they stand, compiled, or computed twice
block        one layer: attention, FFNs, what a skip bypasses
head         the logits: whole where they are small, else part by part
model        embedding, layers, head; what a pass leaves behind
watch        who is told of passes
budget       how many modules a token may spend
flops        what a route costs, in closed form
pretrained/  a model that transformers saved, as a backbone
"""

from duo.backbone.block import Gate
from duo.backbone.budget import Budget, Counts
from duo.backbone.config import BIG, FORMAT, MODULES, SKIP, SMALL, BackboneConfig
from duo.backbone.model import PADDING, Backbone, Run

__all__ = [
    "BIG",
    "FORMAT",
    "MODULES",
    "PADDING",
    "SKIP",
    "SMALL",
    "Backbone",
    "BackboneConfig",
    "Budget",
    "Counts",
    "Gate",
    "Run",
]
