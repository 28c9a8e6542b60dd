"""A softmax router that also looks up what the last tokens are: features a token knows at no extra pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duo import Gate, Spec, Trial
from duo.backbone import MODULES, PADDING
from routers.softmax_budget import SoftmaxBudget

FACTOR = 6_364_136_223_846_793_005  # of hashes; products wrap around
BUCKETS = 4_096  # a larger table is better, and longer to fetch: the curve is in LOG.md (`recipe=table_sizes`)


class NgramTable(nn.Embedding):
    """Logits for what the last tokens are, one by one and together, all 0 at first; padding counts as a token.

    One hashed table is looked up with each of the last `tokens` tokens, and with each sequence of 2 to `together` of
    them; what it holds there is summed.

    Args:
        layers: that have logits.
        allowed: modules that have them.
        tokens: tokens looked up one by one: the token itself and those before it.
        together: longest sequence of tokens that is looked up as one.
        buckets: rows of the table.
    """

    def __init__(self, layers: int, allowed: list[int], tokens: int, together: int, buckets: int) -> None:
        if min(tokens, together, buckets) < 1:
            raise ValueError(
                f"router.tokens={tokens}, router.together={together} and router.buckets={buckets} must be 1 or more"
            )
        moved = allowed[1:]  # the logit of one module may stay
        super().__init__(buckets, layers * len(moved))
        nn.init.zeros_(self.weight)
        self.layers, self.moved = layers, moved
        self.tokens, self.together = tokens, together

    def added_to(self, logits: Gate, tokens_BT: Tensor) -> Gate:
        """The same logits_BSM plus what the table holds for the tokens."""
        found_BTX = self.found(tokens_BT)
        found_BTLM = found_BTX.new_zeros(*found_BTX.shape[:2], self.layers, len(MODULES))
        found_BTLM[..., self.moved] = found_BTX.unflatten(-1, (self.layers, len(self.moved)))
        return lambda x_BSD, layer: logits(x_BSD, layer) + found_BTLM[:, -x_BSD.shape[1] :, layer]

    def found(self, tokens_BT: Tensor) -> Tensor:
        """found_BTX: what the table holds for the tokens, summed over the look-ups."""
        return self(self._rows(tokens_BT)).float().sum(2)

    def _rows(self, tokens_BT: Tensor) -> Tensor:
        """Rows of the table for every look-up, row_BTX."""
        length, reach = tokens_BT.shape[1], max(self.tokens, self.together)
        past = [F.pad(tokens_BT, (back, 0), value=PADDING)[:, :length] for back in range(reach)]
        keys, key_BT = past[: self.tokens], past[0]
        for before_BT in past[1 : self.together]:
            key_BT = key_BT * FACTOR + before_BT
            keys.append(key_BT)
        return torch.stack([key_BT * FACTOR + number for number, key_BT in enumerate(keys)], -1) % self.num_embeddings


class NgramBudget(SoftmaxBudget):
    """The softmax router plus the logits of a table of the last tokens, which costs no FLOPs and no pass.

    Args:
        spec: layers, width and budget. A module whose budget is 0 is never used.
        alpha: weight of the budget loss.
        sharpness: inverse temperature at the end of training; it starts at 1.
        hidden: width of a hidden layer in each head; 0: a linear head.
        tokens: tokens looked up one by one, as in `NgramTable`.
        together: longest sequence of tokens that is looked up as one.
        buckets: rows of the table.
    """

    def __init__(
        self,
        spec: Spec,
        alpha: float = 10.0,
        sharpness: float = 20.0,
        hidden: int = 16,
        tokens: int = 3,
        together: int = 3,
        buckets: int = BUCKETS,
    ) -> None:
        super().__init__(spec, alpha, sharpness, hidden)
        self.table = NgramTable(spec.layers, self.allowed, tokens, together, buckets)

    def logits_of(self, trial: Trial) -> Gate:
        """The heads' logits plus what the table says of the trial's tokens."""
        return self.table.added_to(self.logits, trial.tokens_BT)
