"""What is to be known to read a report: its words, and what its figures show."""

from __future__ import annotations

TERMS = {
    "oracle": "knows each token's label, and takes that route of the budget on which the token loses least. Where "
    "nothing else is said it is the committed one: token after token, each choice kept, so that one pass attains what "
    "it promises.",
    "oracle, literal": "the paper's words taken literally: each token's best route, where all tokens before it follow "
    "the same one. As promised: the mean of these losses, which no pass attains; else: what one pass on the routes "
    "loses.",
    "fixed": "one pattern of layers for all tokens, the best on documents that are set apart for choosing it.",
    "best of 100": "of 100 random patterns the best for each sequence, chosen with its labels: more choice than fixed "
    "has.",
    "router": "the paper's learned router, trained as in a mixture of experts. It sees no label.",
    "random": "modules drawn for each token, as many as the budget allows.",
    "loss": "nats a token; the paper plots its exponential, the perplexity.",
}
"""What the words of a report mean."""

BY_LAYER = (
    "Brighter: the layer is used more often at that position than the panel's mean. At the right: each layer's share "
    "over all positions."
)
CAPTIONS = {
    "2": BY_LAYER,
    "3": BY_LAYER,
    "4a": "Left of 0 is better than the fixed pattern.",
    "4b": "Below 0 is better than all big.",
    "4c": "Right of 0 is worse than the constant budget. Named are the big layers of the first and the last tokens.",
    "5": "Successive tokens of one document, whose loss under all small is the hold-out's median. Router and oracle "
    "use half of the layers big; the oracle may lie above all big or all small, for it must use as many.",
    "6": "Gap: loss under all small minus that under the oracle with half of the layers big; white where there is "
    "none. Each panel has a scale of its own, which ends at its 95th percentile.",
    "7": "One sequence, the same in all panels of a hold-out; a router for each mixture, of its first seed. The "
    "paper's top, middle and bottom are a, b and c.",
    "8": "The paper shows accuracies, on ARC-easy (a) and HellaSwag (b), where models of this size guess; this is "
    'loss. Its panels a and b are the lines "jointly" and "dense", its c is "big first, frozen". Large marks are '
    "means, dots single seeds.",
    "9": "Left by layer, right by position; of each router's first seed. The paper says of b both big and skip and "
    "small and skip; this is small and skip.",
}
"""What is to be known of a figure."""
