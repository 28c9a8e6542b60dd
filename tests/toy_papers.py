"""Worlds in which every claim of the paper is so; what makes each part of each claim false stands in `plants`."""

from math import comb

import numpy as np

from duo.evaluation.comparison import Comparison
from duo.evaluation.intervals import Sequences
from duo.evaluation.row import Row
from duo.evaluation.score import Score
from duo.evaluation.trace import Candidates, Trace
from duo.report.paper import Evidence

LAYERS, TOKENS = 12, 24
BUDGETS = range(LAYERS + 1)
LEARNED = {"softmax_budget", "any_budget", "ngram_budget", "taught"}
PLANTED = {
    "committed": lambda big: 4.2 + 0.01 * (big - 6) ** 2,
    "same": lambda big: 4.25 + 0.01 * (big - 6) ** 2,
    "best_of_random": lambda big: 4.55 - 0.01 * big,
    "fixed_best": lambda big: 4.65 - 0.01 * big,
    "any_budget": lambda big: 4.645 - 0.01 * big,
    "softmax_budget": lambda big: 4.64 - 0.01 * big,
    "random": lambda big: 4.75 - 0.01 * big,
}
DENSE = {
    "duo_0": 4.9, "dense_small": 4.7, "duo_50": 4.6, "dense_equal_flops": 4.55, "duo_100": 4.55, "dense_big": 4.53,
    "big_first_50": 4.8,
}  # fmt: skip
LADDER = {"fixed_best": 4.6, "softmax_budget": 4.55, "ngram_budget": 4.5, "taught": 4.25, "oracle": 4.2}
LATE = np.linspace(-0.25, 0.25, LAYERS)
EXITS = np.linspace(0.1, 0.9, LAYERS)
PEAKS = (4, 13)  # places where an oracle gains much, in the middle of lines
SHARES = {"few": 1 / 3, "half": 0.5, "many": 2 / 3}
MIXTURES = ("70 % small", "50 % skip")
OPT = {"opt, 70 % small": "big", "opt, 50 % skip": "skips", "opt, 20 % skip": "skips"}


class World:
    """Draws what a report would measure; `documents` of one sequence each, routers of so many seeds."""

    def __init__(self, documents=40, seed=0, seeds=5, holdout="code"):
        self.documents, self.drawn, self.seeds, self.holdout = documents, np.random.default_rng(seed), seeds, holdout
        self.document_B = np.arange(documents)
        self.level_B = self.drawn.normal(0, 0.3, documents)  # documents differ more than routers do
        self.losses, self.dense, self.ladder = dict(PLANTED), dict(DENSE), dict(LADDER)
        self.schedules = {"constant": 4.2, "falling": 4.3, "rising": 4.3}
        self.promised = {"committed": 4.2}
        self.late = {"oracle": {"few": 1, "half": 0, "many": -1}, "router": dict.fromkeys(SHARES, 0.8)}
        self.late["opt"] = dict.fromkeys(OPT, 0.8)
        self.early = {"router": dict.fromkeys(SHARES, 0.1), "mixtures": dict.fromkeys(MIXTURES, 0.1)}
        self.early["opt"] = {name: 0.1 if kind == "big" else -0.1 for name, kind in OPT.items()}
        self.skipped = {"oracle": np.array([0.9, 0.1] * 6), "router": EXITS}
        self.stubborn, self.loyal, self.copies = 0.3, 1, set()
        self.hopeless, self.line_loss, self.line_gain = 0.3, 3.0, -0.2
        self.peak, self.guided = 8.0, 0.0
        self.few_loss, self.best_loss = {}, {}
        self.time = lambda flops: 0.3 + 0.6 * flops

    def sequences(self, losses):
        """Summed losses of a router's seeds; they move up and down with the documents."""
        noise_B = self.drawn.normal(0, 0.01, self.documents)
        around_B = self.level_B - self.level_B.mean() + noise_B - noise_B.mean()
        loss_ZB = (np.array(losses)[:, None] + around_B) * TOKENS
        used_TLM = np.ones((TOKENS, LAYERS, 3), dtype=int)
        return Sequences(loss_ZB, np.full(self.documents, TOKENS), used_TLM, self.document_B, self.document_B)

    def row(self, loss, name="", big=6, promised=None):
        """A row of this mean loss, of several seeds if it learned."""
        seeds = self.seeds if name in LEARNED else 1
        losses = loss + self.drawn.normal(0, 0.001, seeds) * (seeds > 1)
        flops = 0.4 + 0.6 * big / LAYERS
        score = score_of(loss, promised, flops, self.time(flops) + self.drawn.normal(0, 0.01), labels=name == "taught")
        budget = {"skip": 0, "small": LAYERS - big, "big": big}
        scores = {self.holdout: score.made_of(self.sequences(losses))}
        return Row(name or "toy", {}, budget, subset=scores, learned=name in LEARNED, seeds=seeds)

    def comparison(self, groups, gap=()):
        return Comparison("toy", "0", groups, [], [*gap], [], {})

    def comparisons(self):
        budgets = {
            f"budget.big={big}": {
                name: self.row(of(big), name, big, self.promised.get(name) if big == LAYERS // 2 else None)
                for name, of in self.losses.items()
            }
            for big in BUDGETS
        }
        routers = {name: rows for name, rows in budgets.items() if name.partition("=")[2] in ("2", "4", "6", "8", "10")}
        # backbones of a seed are alike, whatever is trained on them
        seeds = {f"backbone.seed={seed}": self.drawn.normal(0, 0.3) for seed in range(5)}
        dense = {
            seed: {name: self.row(loss + shift + self.drawn.normal(0, 0.002)) for name, loss in self.dense.items()}
            for seed, shift in seeds.items()
        }
        return {
            "budgets": self.comparison(budgets),
            "routers": self.comparison(routers),
            "schedules": self.comparison({"": {name: self.row(loss) for name, loss in self.schedules.items()}}),
            "dense": self.comparison(dense),
            "ladder": self.comparison(
                {"": {name: self.row(loss, name) for name, loss in self.ladder.items()}}, ("fixed_best", "oracle")
            ),
        }

    def trace(self, route_BTL, loss_BT):
        tokens_BT = np.zeros((self.documents, TOKENS), dtype=int)
        return Trace(tokens_BT, tokens_BT, loss_BT, route_BTL, self.document_B, self.document_B)

    def routes(self, share_L, module, other, early=0.0, stubborn=0.0):
        share_BTL = np.broadcast_to(share_L, (self.documents, TOKENS, LAYERS)).copy()
        share_BTL += early * np.linspace(1, -1, TOKENS)[:, None]
        liking_B1L = stubborn * self.drawn.choice([-1, 1], (self.documents, 1, LAYERS))  # a sequence's own
        share_BTL += liking_B1L * np.where(np.arange(TOKENS) < TOKENS // 2, 1, self.loyal)[:, None]
        return np.where(self.drawn.random(share_BTL.shape) < share_BTL, module, other)

    def copy(self, route_BTL):
        """Routes that are another's but for a tenth, so that documents differ."""
        return np.where(self.drawn.random(route_BTL.shape) < 0.9, route_BTL, 3 - route_BTL)

    def all_routes(self):
        """Routes by name, of each seed."""
        found = {"all small": [self.routes(0 * LATE, 2, 1)]}
        for budget, share in SHARES.items():
            oracle = self.routes(share + self.late["oracle"][budget] * LATE, 2, 1)
            late_L, early = share + self.late["router"][budget] * LATE, self.early["router"][budget]
            found[f"oracle at {budget}"] = [oracle]
            found[f"router at {budget}"] = [
                self.copy(oracle) if budget in self.copies else self.routes(late_L, 2, 1, early)
                for _ in range(self.seeds)
            ]
        found["oracle with skips"] = [self.routes(self.skipped["oracle"], 0, 2, stubborn=self.stubborn)]
        found["router with skips"] = [self.routes(self.skipped["router"], 0, 2) for _ in range(self.seeds)]
        for name in MIXTURES:
            early = self.early["mixtures"][name]
            found[name] = [self.routes(0.5 + 0 * LATE, 2, 1, early) for _ in range(self.seeds)]
        for name, kind in OPT.items():
            modules = (2, 1) if kind == "big" else (0, 2)
            share_L, early = 0.5 + self.late["opt"][name] * LATE, self.early["opt"][name]
            found[name] = [self.routes(share_L, *modules, early) for _ in range(self.seeds)]
        return found

    def traces(self):
        line_BT = np.broadcast_to(np.arange(TOKENS) % 8 == 0, (self.documents, TOKENS))
        small_BT = self.drawn.exponential(4, (self.documents, TOKENS)) + 1.5 + self.line_loss * line_BT
        gain_BT = np.maximum(0.15, 0.5 + self.line_gain * line_BT)
        gain_BT[:, PEAKS] += self.peak
        gain_BT[self.drawn.random(gain_BT.shape) < self.hopeless] = 0.0
        gain_BT += self.guided * small_BT
        loss = {"oracle at half": small_BT - gain_BT}
        routes = self.all_routes()
        return {
            name: {self.holdout: [self.trace(route_BTL, loss.get(name, small_BT)) for route_BTL in seeds]}
            for name, seeds in routes.items()
        }, line_BT

    def candidates(self):
        gain_G = np.array([0.1 * np.log(comb(LAYERS, big)) for big in BUDGETS])
        noise_BG = self.drawn.normal(1, 0.05, (self.documents, LAYERS + 1)) * TOKENS
        # more big layers help every route alike, and no oracle
        mean_BG = (4.85 + self.level_B[:, None] + 0.01 * (LAYERS // 2 - np.array(BUDGETS))) * TOKENS
        few_N, noise_BN = (
            gain_G[1 : LAYERS // 2],
            self.drawn.normal(1, 0.05, (self.documents, LAYERS // 2 - 1)) * TOKENS,
        )
        best_BG, few_BN = mean_BG - gain_G * noise_BG, mean_BG[:, LAYERS // 2, None] - few_N * noise_BN
        for big, more in self.best_loss.items():
            best_BG[:, big] += more * TOKENS
        for big, more in self.few_loss.items():
            few_BN[:, big - 1] += more * TOKENS
        return Candidates(best_BG, mean_BG, few_BN, np.full(self.documents, TOKENS), self.document_B, self.document_B)

    def shown(self, traces):
        """Traces that figures show and no claim needs: passages."""
        named = {"small": "all small", "big": "all small", "oracle": "oracle at half", "router": "router at half"}
        passages = {f"passage, {column}": traces[name] for column, name in named.items()}
        return traces | passages

    def evidence(self):
        traces, line_BT = self.traces()
        words = {self.holdout: {"line_start_BT": line_BT}}
        candidates = {self.holdout: self.candidates()}
        return Evidence(LAYERS, self.comparisons(), self.shown(traces), candidates, [b"a\n"], words)


def score_of(loss, promised=None, flops=1.0, time=1.0, labels=False):
    return Score(
        loss=loss, loss_interval=None, perplexity=None, bits_per_byte=None, tokens=1, documents=1,
        share={"skip": 0.0, "small": 0.5, "big": 0.5}, flops_per_token=flops, budget_flops_per_token=1.0,
        router_flops_per_token=0.0, router_parameters=0, router_bytes=0, within_budget=True, passes=0.0,
        labels_consulted=labels, seconds_per_token=0.0, time_ratio=time, unexplained_time=False, promised_loss=promised,
    )  # fmt: skip


def world(*changes, **about):
    """A world in which all claims are so, but for what is changed."""
    made = World(**about)
    for change in changes:
        change(made)
    return made
