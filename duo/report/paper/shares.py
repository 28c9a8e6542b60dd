"""What routes look like: statistics of them, of the sequences where keep_B is true."""

from __future__ import annotations

import math

import numpy as np

from duo.evaluation.trace import Trace


def layer_shares(trace: Trace, module: int, keep_B: np.ndarray) -> np.ndarray:
    """Share of scored tokens that use a module, by layer, (L,)."""
    kept_BT = trace.scored_BT & keep_B[:, None]
    shares: np.ndarray = (trace.route_BTL[kept_BT] == module).mean(0)
    return shares


def lateness(trace: Trace, module: int, keep_B: np.ndarray) -> float:
    """Share of a module in the later half of the layers minus that in the earlier half."""
    shares_L = layer_shares(trace, module, keep_B)
    half = len(shares_L) // 2
    return float(shares_L[-half:].mean() - shares_L[:half].mean())


def earliness(trace: Trace, module: int, keep_B: np.ndarray) -> float:
    """Share of a module at the first third of the positions minus that at the last third."""
    third = max(trace.tokens_BT.shape[1] // 3, 1)
    parts = [trace._replace(**{name: getattr(trace, name)[:, where] for name in BY_TOKEN}) for where in
             (slice(None, third), slice(-third, None))]  # fmt: skip
    first, last = (layer_shares(part, module, keep_B).mean() for part in parts)
    return float(first - last)


BY_TOKEN = ("tokens_BT", "labels_BT", "loss_BT", "route_BTL")


def exit_order(trace: Trace, module: int, keep_B: np.ndarray) -> float:
    """Correlation of a module's share with the layer's number: 1 where later layers use it ever more."""
    shares_L = layer_shares(trace, module, keep_B)
    spread = shares_L.std()
    if not spread:
        return 0.0
    layer_L = np.arange(len(shares_L))
    return float(((shares_L - shares_L.mean()) * (layer_L - layer_L.mean())).mean() / spread / layer_L.std())


def persistence(trace: Trace, module: int, keep_B: np.ndarray) -> float:
    """How much more often a layer uses a module in a sequence's later half, the more it did in its earlier half.

    The share of later tokens that use it, averaged over sequences and layers with the earlier share as weights, minus
    the same with each layer's mean over the sequences in place of the later share.
    """
    used_BTL = (trace.route_BTL == module) & trace.scored_BT[..., None]
    half = used_BTL.shape[1] // 2
    scored_BT = trace.scored_BT
    counts = [np.maximum(scored_BT[:, part].sum(1), 1)[:, None] for part in (slice(None, half), slice(half, None))]
    early_BL = used_BTL[keep_B, :half].sum(1) / counts[0][keep_B]
    late_BL = used_BTL[keep_B, half:].sum(1) / counts[1][keep_B]
    return float((early_BL * (late_BL - late_BL.mean(0))).sum() / max(early_BL.sum(), 1e-12))


def agreement(trace: Trace, other: Trace, keep_B: np.ndarray) -> float:
    """Cohen's kappa of two routers' modules: agreement beyond what each one's shares by layer would give.

    Chance knows the layers: two routers that always use the same layers agree by chance alone.
    """
    kept_BT = trace.scored_BT & keep_B[:, None]
    ours_NL, theirs_NL = trace.route_BTL[kept_BT], other.route_BTL[kept_BT]
    by_chance = sum(
        (ours_NL == module).mean(0) * (theirs_NL == module).mean(0) for module in np.union1d(ours_NL, theirs_NL)
    )
    chance = float(np.mean(by_chance))
    # of routers that choose by layer alone nothing is left to agree on
    return float(((ours_NL == theirs_NL).mean() - chance) / (1 - chance)) if chance < 0.95 else math.nan


def without_potential(small: Trace, oracle: Trace, keep_B: np.ndarray, bound: float) -> float:
    """Share of the tenth of tokens that lose most under all small of which the oracle gains at most `bound` nats."""
    kept_BT = small.scored_BT & keep_B[:, None]
    loss_N, gain_N = small.loss_BT[kept_BT], (small.loss_BT - oracle.loss_BT)[kept_BT]
    hard_N = loss_N >= np.quantile(loss_N, 0.9)
    return float((gain_N[hard_N] <= bound).mean())


def lead(value_BT: np.ndarray, marked_BT: np.ndarray, scored_BT: np.ndarray, keep_B: np.ndarray) -> float:
    """Mean of the marked tokens minus that of the others."""
    kept_BT = scored_BT & keep_B[:, None]
    marked_N, value_N = marked_BT[kept_BT], value_BT[kept_BT]
    return float(value_N[marked_N].mean() - value_N[~marked_N].mean()) if 0 < marked_N.sum() < len(marked_N) else 0.0
