"""Routers that each break one thing every router must do when it decides; `breakers_of_learning` has the others."""

import numpy as np
import torch

from duo import Router, one_hot, replay, top
from routers.fixed import Fixed
from routers.softmax_budget import SoftmaxBudget


def hashed(number_BT, layers):
    """Scores (B, T, L) that jump with every number."""
    return (number_BT[..., None].double() * torch.arange(1, layers + 1) * 0.6180339887).frac()


class Scored(Fixed):
    """Gives big to the layers of the highest `score`, which looks at what it must not."""

    def route(self, trial):
        return replay(top(self.score(trial), trial.counts(self.spec.budget)))


class Altered(SoftmaxBudget):
    """A sound router whose gate's answers are altered in evaluation."""

    def route(self, trial):
        gate = super().route(trial)
        return gate if self.training else lambda x_BSD, layer: self.alter(gate(x_BSD, layer), x_BSD)


class WrongShape(Altered):
    def alter(self, weight_BSM, x_BSD):
        return weight_BSM.flatten(0, 1)


class NoTensor(Altered):
    def alter(self, weight_BSM, x_BSD):
        return weight_BSM.tolist()


class Soft(Altered):
    def alter(self, weight_BSM, x_BSD):
        return weight_BSM * 0.9 + torch.tensor([0, 0.1, 0])


class NotANumber(Altered):
    def alter(self, weight_BSM, x_BSD):
        return weight_BSM * float("nan")


class Overspends(SoftmaxBudget):
    def calibrate(self, trials):
        self.offset_M[2] = 1e3


class Skips(Altered):
    def alter(self, weight_BSM, x_BSD):
        return one_hot(torch.zeros(x_BSD.shape[:2]))


class Unseeded(Scored):
    def score(self, trial):
        return torch.rand(*trial.tokens_BT.shape, self.spec.layers)


class SpendsOnce(Router):
    """Big while the budget lasts; it lasts for one run."""

    def route(self, trial):
        left = [self.spec.budget.big]

        def gate(x_BSD, layer):
            left[0] -= 1
            return one_hot(torch.full(x_BSD.shape[:2], 2 if left[0] >= 0 else 1))

        return gate


class DrawsAnew(Altered):
    def alter(self, weight_BSM, x_BSD):
        return one_hot(1 + (torch.rand(x_BSD.shape[:2]) < 0.5))


class DrawsInTraining(SoftmaxBudget):
    def route(self, trial):
        gate = super().route(trial)
        return (lambda x_BSD, layer: gate(x_BSD + torch.randn(1), layer)) if self.training else gate


class BatchMean(Altered):
    def alter(self, weight_BSM, x_BSD):
        return one_hot(1 + (x_BSD.mean(-1) > x_BSD.mean((0, 2))))


class RowOrder(Scored):
    def score(self, trial):
        row_B1 = torch.arange(len(trial.tokens_BT))[:, None]
        return hashed(row_B1 + 3 * trial.tokens_BT, self.spec.layers)


class Remembers(Scored):
    seen = 0

    def score(self, trial):
        self.seen += 1
        return hashed(trial.tokens_BT + self.seen, self.spec.layers)


class Caches(Scored):
    """Asked about tokens of the same shape, it gives the first answer."""

    def score(self, trial):
        self.cache = {} if not hasattr(self, "cache") else self.cache
        return self.cache.setdefault(trial.tokens_BT.shape, hashed(trial.tokens_BT, self.spec.layers))


class LooksAhead(Scored):
    def score(self, trial):
        return hashed(trial.tokens_BT.roll(-1, dims=1), self.spec.layers)


class ForeseesTokens(Scored):
    def score(self, trial):
        return hashed(trial.tokens_BT, self.spec.layers)

    def predict(self, trial):
        return torch.nn.functional.one_hot(trial.tokens_BT.roll(-1, dims=1), trial.vocabulary).float().log_softmax(-1)


class PredictsLogits(ForeseesTokens):
    def predict(self, trial):
        return torch.zeros(*trial.tokens_BT.shape, trial.vocabulary)


class SequenceMean(Altered):
    """Looks ahead inside the gate."""

    def alter(self, weight_BSM, x_BSD):
        return one_hot(1 + (x_BSD.mean(-1) > x_BSD.mean((1, 2))[:, None]))


class Peeks(Scored):
    """Reads the labels where the meter does not see it."""

    def score(self, trial):
        labels_BT = trial.tokens_BT if trial._labels_BT is None else trial._labels_BT
        return hashed(labels_BT, self.spec.layers)


class WholePassesOnly(Scored):
    def route(self, trial):
        route_BTL = self.score_L.argsort().expand(*trial.tokens_BT.shape, -1) % 2 + 1
        return lambda x_BSD, layer: one_hot(route_BTL[:, :, layer])


class CountsFromTheStep(Altered):
    """Takes the first token of a step for the first of its sequence."""

    def alter(self, weight_BSM, x_BSD):
        return one_hot(1 + (torch.arange(x_BSD.shape[1]) % 2).expand(x_BSD.shape[:2]))


class SlipsInOneSequence(SoftmaxBudget):
    """Takes small for big in one sequence alone, when it is asked about one token."""

    def route(self, trial):
        gate = super().route(trial)

        def slipping(x_BSD, layer):
            weight_BSM = gate(x_BSD, layer)
            if x_BSD.shape[1] > 1 or self.training:
                return weight_BSM
            return torch.cat((weight_BSM[:1, :, [0, 2, 1]], weight_BSM[1:]))

        return slipping


class CountsPadding(Scored):
    def score(self, trial):
        place_T = torch.arange(trial.tokens_BT.shape[1])
        return hashed(place_T.expand_as(trial.tokens_BT), self.spec.layers)


class NeedsTwoTokens(Scored):
    def score(self, trial):
        return hashed(trial.tokens_BT[:, 1:2].expand_as(trial.tokens_BT), self.spec.layers)


class DrawsInItsGate(Altered):
    def alter(self, weight_BSM, x_BSD):
        torch.rand(1)
        return weight_BSM


class SeedsNumpy(Scored):
    def score(self, trial):
        np.random.seed(0)
        return torch.from_numpy(np.random.rand(self.spec.layers)).expand(*trial.tokens_BT.shape, -1)


class SetsTheDefaultType(Altered):
    def route(self, trial):
        torch.set_default_dtype(torch.float64)
        return super().route(trial)


class SearchesInItsGate(SoftmaxBudget):
    """Waits until its gate is asked, and consults the labels then."""

    def route(self, trial):
        route_BTL = None

        def gate(x_BSD, layer):
            nonlocal route_BTL
            if route_BTL is None:
                small, big = (torch.full((*trial.tokens_BT.shape, self.spec.layers), module) for module in (1, 2))
                better_BT = trial.loss(trial.run(replay(big))) < trial.loss(trial.run(replay(small)))
                route_BTL = torch.where(better_BT[..., None], big, small)
            return replay(route_BTL)(x_BSD, layer)

        return gate
