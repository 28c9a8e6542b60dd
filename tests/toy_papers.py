"""Worlds in which every claim of the paper is so, and for each claim one in which it is not."""

import json
from dataclasses import replace

import numpy as np

from duo.evaluation.comparison import Comparison
from duo.evaluation.intervals import Sequences
from duo.evaluation.row import Row
from duo.evaluation.score import Score
from duo.evaluation.trace import Candidates, Trace
from duo.report.paper import Evidence

LAYERS, TOKENS = 12, 24
BUDGETS = range(LAYERS + 1)
PLANTED = {
    "committed": lambda big: 4.2 + 0.01 * (big - 6) ** 2,
    "same": lambda big: 4.25 + 0.01 * (big - 6) ** 2,
    "best_of_random": lambda big: 4.55 - 0.01 * big,
    "fixed_best": lambda big: 4.65 - 0.01 * big,
    "any_budget": lambda big: 4.645 - 0.01 * big,
    "softmax_budget": lambda big: 4.64 - 0.01 * big,
    "random": lambda big: 4.75 - 0.01 * big,
}
DENSE = {"duo_0": 4.9, "dense_small": 4.7, "duo_50": 4.6, "duo_100": 4.55, "dense_big": 4.53, "big_first_50": 5.0}
LATE = np.linspace(-0.25, 0.25, LAYERS)
SKIPPED = np.array([0.9, 0.1] * 6)


class World:
    """Draws what a report would measure; `documents` of one sequence each."""

    def __init__(self, documents=40, seed=0):
        self.documents, self.drawn = documents, np.random.default_rng(seed)
        self.document_B = np.arange(documents)
        self.level_B = self.drawn.normal(0, 0.3, documents)  # documents differ more than routers do
        self.losses, self.dense, self.schedules = (
            dict(PLANTED),
            dict(DENSE),
            {"constant": 4.2, "falling": 4.3, "rising": 4.3},
        )
        self.promised = {"committed": 4.2}
        self.big = {"oracle at few": 1 / 3 + LATE, "oracle at half": 0.5 + 0 * LATE, "oracle at many": 2 / 3 - LATE}
        self.big |= {
            f"router at {name}": share + LATE * 0.8 for name, share in (("few", 1 / 3), ("half", 0.5), ("many", 2 / 3))
        }
        self.early = 0.1  # how much more the router gives the first tokens
        self.skipped = {"oracle with skips": SKIPPED, "router with skips": np.linspace(0.1, 0.9, LAYERS)}
        self.stubborn, self.copies = 0.3, False
        self.hopeless, self.line_loss, self.line_gain = 0.3, 3.0, -0.2
        self.gain_of = lambda candidates, big: 0.1 * np.log(candidates)

    def row(self, loss, promised=None):
        """A row of this mean loss; it moves up and down with the documents."""
        noise_B = self.drawn.normal(0, 0.01, self.documents)
        loss_B = (loss + self.level_B - self.level_B.mean() + noise_B - noise_B.mean()) * TOKENS
        tokens_B = np.full(self.documents, TOKENS)
        used_TLM = np.ones((TOKENS, LAYERS, 3), dtype=int)
        sequences = Sequences(loss_B[None], tokens_B, used_TLM, self.document_B, self.document_B)
        return Row(
            "toy", {}, {"skip": 0, "small": 6, "big": 6}, subset={"code": score_of(loss, promised).made_of(sequences)}
        )

    def comparison(self, groups):
        return Comparison("toy", "0", groups, [], [], [], {})

    def comparisons(self):
        budgets = {
            f"budget.big={json.dumps(big)}": {
                name: self.row(of(big), self.promised.get(name) if big == LAYERS // 2 else None)
                for name, of in self.losses.items()
            }
            for big in BUDGETS
        }
        routers = {name: rows for name, rows in budgets.items() if name.partition("=")[2] in ("2", "4", "6", "8", "10")}
        rows = {"schedules": self.schedules, "dense": self.dense}
        single = {
            part: self.comparison({"": {name: self.row(loss) for name, loss in of.items()}})
            for part, of in rows.items()
        }
        return {"budgets": self.comparison(budgets), "routers": self.comparison(routers)} | single

    def trace(self, route_BTL, loss_BT):
        tokens_BT = np.zeros((self.documents, TOKENS), dtype=int)
        return Trace(tokens_BT, tokens_BT, loss_BT, route_BTL, self.document_B, self.document_B)

    def routes(self, share_L, module, other, early=0.0, stubborn=0.0):
        share_BTL = np.broadcast_to(share_L, (self.documents, TOKENS, LAYERS)).copy()
        share_BTL += early * np.linspace(1, -1, TOKENS)[:, None]
        share_BTL += stubborn * self.drawn.choice([-1, 1], (self.documents, 1, LAYERS))  # a sequence's own likings
        return np.where(self.drawn.random(share_BTL.shape) < share_BTL, module, other)

    def traces(self):
        line_BT = np.arange(TOKENS) % 8 == 0
        small_BT = self.drawn.exponential(4, (self.documents, TOKENS)) + 1.5 + self.line_loss * line_BT
        gain_BT = np.maximum(0.15, 0.5 + self.line_gain * line_BT + 0.0 * small_BT)
        gain_BT[self.drawn.random(gain_BT.shape) < self.hopeless] = 0.0
        loss = {"all small": small_BT, "oracle at half": small_BT - gain_BT}
        found = {"all small": self.routes(0 * LATE, 2, 1)}
        for name, share_L in self.big.items():
            found[name] = self.routes(share_L, 2, 1, self.early if name.startswith("router") else 0)
        if self.copies:
            for name in (name for name in self.big if name.startswith("router")):
                copied_BTL = found[name.replace("router", "oracle")]
                kept_BTL = self.drawn.random(copied_BTL.shape) < 0.9  # but for a tenth, so that documents differ
                found[name] = np.where(kept_BTL, copied_BTL, 3 - copied_BTL)
        for name, share_L in self.skipped.items():
            found[name] = self.routes(share_L, 0, 2, stubborn=self.stubborn)
        return {
            name: {"code": self.trace(route_BTL, loss.get(name, small_BT))} for name, route_BTL in found.items()
        }, line_BT

    def candidates(self):
        from math import comb

        counts = np.array([comb(LAYERS, big) for big in BUDGETS])
        noise_BG = self.drawn.normal(1, 0.05, (self.documents, LAYERS + 1)) * TOKENS
        mean_BG = (4.85 + self.level_B[:, None]) * TOKENS + 0 * counts
        gain_G = np.array([self.gain_of(count, big) for big, count in zip(BUDGETS, counts, strict=True)])
        few_N = np.array([self.gain_of(counts[big], LAYERS // 2) for big in range(1, LAYERS // 2)])
        mean_B1 = mean_BG[:, LAYERS // 2, None]
        return Candidates(
            mean_BG - gain_G * noise_BG,
            mean_B1 - few_N * noise_BG[:, -len(few_N) :],
            np.full(self.documents, TOKENS),
            self.document_B,
            self.document_B,
        )

    def shown(self, traces):
        """Traces that figures show and no claim needs: passages, and mixtures."""
        named = {"small": "all small", "big": "all small", "oracle": "oracle at half", "router": "router at half"}
        passages = {f"passage, {column}": traces[name] for column, name in named.items()}
        mixtures = {name: traces["router with skips"] for name in ("70 % small", "50 % skip", "opt, 70 % small")}
        return traces | passages | mixtures

    def evidence(self):
        traces, line_T = self.traces()
        words = {"code": {"line_start_BT": np.broadcast_to(line_T, (self.documents, TOKENS))}}
        candidates = {"code": self.candidates()}
        return Evidence(LAYERS, self.comparisons(), self.shown(traces), candidates, [b"a\n"], words)


def score_of(loss, promised=None):
    return Score(
        loss=loss, loss_interval=None, perplexity=None, bits_per_byte=None, tokens=1, documents=1,
        share={"skip": 0.0, "small": 0.5, "big": 0.5}, flops_per_token=1.0, budget_flops_per_token=1.0,
        router_flops_per_token=0.0, router_parameters=0, router_bytes=0, within_budget=True, passes=0.0,
        labels_consulted=False, seconds_per_token=0.0, time_ratio=1.0, unexplained_time=False, promised_loss=promised,
    )  # fmt: skip


def _losses(**of):
    return lambda world: world.losses.update(of)


def _set(**values):
    return lambda world: vars(world).update(values)


def _in(name, **values):
    return lambda world: getattr(world, name).update(values)


def _big(name, share_L):
    return lambda world: world.big.update({name: share_L})


AGAINST = {
    "oracle_below_random": _losses(best_of_random=lambda big: 4.0),
    "router_near_fixed": _losses(softmax_budget=lambda big: 4.25),
    "interior_minimum": _losses(committed=lambda big: 4.5 - 0.05 * big),
    "one_big_beats_all": _losses(committed=lambda big: 5 if big == 1 else 4.2),
    "more_big_helps": _losses(fixed_best=lambda big: 4.5 + 0.01 * big),
    "number_of_candidates": _set(gain_of=lambda candidates, big: 0.1 * big + 0.01 * np.log(candidates)),
    "constant_budget": _in("schedules", falling=4.1),
    "near_dense": _in("dense", dense_big=4.2),
    "joint_beats_freezing": _in("dense", big_first_50=4.4),
    "promises": _in("promised", committed=4.1),
    "late_at_few": _big("oracle at few", 1 / 3 - LATE),
    "even_at_half": _big("oracle at half", 0.5 + LATE),
    "early_at_many": _big("oracle at many", 2 / 3 + LATE),
    "skips_by_layer": lambda world: (
        world.skipped.update({"oracle with skips": np.full(LAYERS, 0.5)}),
        _set(stubborn=0)(world),
    ),
    "skips_persist": _set(stubborn=-0.0),
    "router_late_early": _set(early=-0.1),
    "router_exits_early": lambda world: world.skipped.update({"router with skips": SKIPPED}),
    "little_agreement": _set(copies=True),
    "hard_without_potential": _set(hopeless=0.0),
    "line_starts": _set(line_gain=1.0),
}
"""What makes each claim false in a world."""


def world(name=None, **about):
    """A world in which all claims are so, but for the one that is named."""
    made = World(**about)
    if name:
        AGAINST[name](made)
    return made


__all__ = ["AGAINST", "World", "replace", "world"]
