"""What routes look like: statistics of them, of the sequences where keep_B is true."""

from __future__ import annotations

import math

import numpy as np

from duo.backbone import SKIP
from duo.evaluation.difficulty import Losses, hard_without_potential, hardest
from duo.evaluation.trace import Trace
from duo.report.paper.evidence import Missing


def layer_shares(trace: Trace, keep_B: np.ndarray, module: int) -> np.ndarray:
    """Share of scored tokens that use a module, by layer, (L,)."""
    kept_BT = trace.scored_BT & keep_B[:, None]
    shares: np.ndarray = (trace.route_BTL[kept_BT] == module).mean(0)
    return shares


def lateness(trace: Trace, keep_B: np.ndarray, module: int) -> float:
    """Share of a module in the later half of the layers minus that in the earlier half."""
    shares_L = layer_shares(trace, keep_B, module)
    half = len(shares_L) // 2
    return float(shares_L[-half:].mean() - shares_L[:half].mean())


def earliness(trace: Trace, keep_B: np.ndarray, module: int) -> float:
    """Share of a module at the first third of the positions minus that at the last third."""
    third = max(trace.tokens_BT.shape[1] // 3, 1)
    parts = (trace.at(slice(None, third)), trace.at(slice(-third, None)))
    first, last = (layer_shares(part, keep_B, module).mean() for part in parts)
    return float(first - last)


def skips(trace: Trace) -> bool:
    """Whether any token skips a layer."""
    return bool((trace.route_BTL == SKIP).any())


def exit_order(trace: Trace, keep_B: np.ndarray, module: int) -> float:
    """Correlation of a module's share with the layer's number: 1 where later layers use it ever more."""
    shares_L = layer_shares(trace, keep_B, module)
    spread = shares_L.std()
    if not spread:
        return 0.0
    layer_L = np.arange(len(shares_L))
    return float(((shares_L - shares_L.mean()) * (layer_L - layer_L.mean())).mean() / spread / layer_L.std())


def persistence(trace: Trace, keep_B: np.ndarray, module: int) -> float:
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


def agreement(router: Trace, keep_B: np.ndarray, oracle: Trace) -> float:
    """Cohen's kappa of two routers' modules: agreement beyond what each one's shares by layer would give.

    Only the oracle's tokens count, where it was traced on the first ones of each sequence. Chance knows the layers: two
    routers that always use the same layers agree by chance alone.
    """
    kept_BT = oracle.scored_BT & keep_B[:, None]
    ours_NL, theirs_NL = _beside(router, oracle).route_BTL[kept_BT], oracle.route_BTL[kept_BT]
    by_chance = sum(
        (ours_NL == module).mean(0) * (theirs_NL == module).mean(0) for module in np.union1d(ours_NL, theirs_NL)
    )
    chance = float(np.mean(by_chance))
    # of routers that choose by layer alone nothing is left to agree on
    return float(((ours_NL == theirs_NL).mean() - chance) / (1 - chance)) if chance < 0.95 else math.nan


def later_than(trace: Trace, keep_B: np.ndarray, other: Trace, module: int) -> float:
    """A trace's lateness minus another's, on the other's tokens."""
    return lateness(_beside(trace, other), keep_B, module) - lateness(other, keep_B, module)


def _beside(trace: Trace, other: Trace) -> Trace:
    """A trace on the tokens of another; raises Missing where it is of other sequences."""
    if not np.array_equal(trace.sequence_B, other.sequence_B):
        raise Missing("oracle and router were traced on different sequences")
    return trace.at(slice(other.tokens_BT.shape[1]))


def without_potential(small: Trace, keep_B: np.ndarray, oracle: Trace) -> float:
    """Share of the hardest tenth of tokens (under all small) that has no potential under the oracle."""
    kept_BT = small.scored_BT & keep_B[:, None]
    small_N, oracle_N = small.loss_BT[kept_BT], oracle.loss_BT[kept_BT]
    hopeless_R = hard_without_potential(Losses(small_N, small_N, oracle_N))
    return len(hopeless_R) / max(len(hardest(small_N)), 1)


def loss_and_gain(small: Trace, keep_B: np.ndarray, oracle: Trace) -> float:
    """Correlation, over tokens, of the loss under all small with what the oracle gains on it."""
    loss_N, gain_N = _gains(small, keep_B, oracle)
    return float(np.corrcoef(loss_N, gain_N)[0, 1]) if loss_N.std() and gain_N.std() else 0.0


def gain_of_few(small: Trace, keep_B: np.ndarray, oracle: Trace, few: float) -> float:
    """The part of the oracle's whole gain that lies on the few tokens where it gains most."""
    _, gain_N = _gains(small, keep_B, oracle)
    most = np.sort(gain_N)[::-1][: math.ceil(few * len(gain_N))]
    return float(most.sum() / gain_N.sum())


def _gains(small: Trace, keep_B: np.ndarray, oracle: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Loss under all small, and what the oracle loses less, token by token."""
    kept_BT = small.scored_BT & keep_B[:, None]
    return small.loss_BT[kept_BT], (small.loss_BT - oracle.loss_BT)[kept_BT]


def lead(trace: Trace, keep_B: np.ndarray, value_BT: np.ndarray, marked_BT: np.ndarray) -> float:
    """Mean value of the marked tokens minus that of the others."""
    kept_BT = trace.scored_BT & keep_B[:, None]
    marked_N, value_N = marked_BT[kept_BT], value_BT[kept_BT]
    return float(value_N[marked_N].mean() - value_N[~marked_N].mean()) if 0 < marked_N.sum() < len(marked_N) else 0.0
