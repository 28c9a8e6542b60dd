"""Routers that each break one thing every router must do when it learns, is saved, or is left alone."""

import torch
from conftest import backbone_of

from duo import calibrated
from routers.softmax_budget import SoftmaxBudget


class UnseededLearning(SoftmaxBudget):
    def loss(self, trial):
        noise = torch.rand(len(self.heads)).tolist()
        return super().loss(trial) + sum(n * head.weight.sum() for n, head in zip(noise, self.heads, strict=True))


class LossIsNotANumber(SoftmaxBudget):
    def loss(self, trial):
        return super().loss(trial) * float("nan")


class LossPerToken(SoftmaxBudget):
    def loss(self, trial):
        return trial.loss(trial.run(self.route(trial)))


class LossIsDetached(SoftmaxBudget):
    def loss(self, trial):
        return super().loss(trial).detach()


class LossIsFlat(SoftmaxBudget):
    def loss(self, trial):
        return super().loss(trial) * 0


class ForgetsAHead(SoftmaxBudget):
    def __init__(self, spec):
        super().__init__(spec)
        self.spare = torch.nn.Linear(2, 2)


class LearnsTheBudgetAlone(SoftmaxBudget):
    def loss(self, trial):
        return self.budget_loss(trial.run(self.route(trial)).weight_BTLM.mean(dim=(1, 2)))


class DetachesSmall(SoftmaxBudget):
    def route(self, trial):
        gate = super().route(trial)
        kept_M = torch.tensor([True, False, True])
        return lambda x_BSD, layer: torch.where(kept_M, gate(x_BSD, layer), gate(x_BSD, layer).detach())


class Unsaved(SoftmaxBudget):
    """Keeps its offsets outside the buffers."""

    def __init__(self, spec):
        super().__init__(spec)
        del self.offset_M
        self.offset_M = torch.zeros(3)

    def calibrate(self, trials):
        self.offset_M = calibrated(lambda trial: self.logits, trials, self.spec.budget)


class Float32Only(SoftmaxBudget):
    def logits(self, x_BSD, layer):
        return super().logits(x_BSD @ torch.eye(self.spec.width), layer)


class TrainsTheBackbone(SoftmaxBudget):
    def loss(self, trial):
        with torch.no_grad():
            backbone_of(trial).norm.weight.mul_(1.0001)
        return super().loss(trial)


class PrunesTheBackbone(SoftmaxBudget):
    def calibrate(self, trials):
        super().calibrate(trials)
        backbone_of(trials[0]).block(0).ffn.big.down.weight[0, 0] = 0


class TunesTheStream(SoftmaxBudget):
    """Scales what its gate is shown."""

    def logits(self, x_BSD, layer):
        logits = super().logits(x_BSD, layer)
        self.tune(x_BSD)
        return logits

    def tune(self, x_BSD):
        if not self.training:
            x_BSD.mul_(1.01)


class TunesInSecret(TunesTheStream):
    """Does so where no version tells, in training alone."""

    def tune(self, x_BSD):
        if self.training:
            x_BSD.data.mul_(1.01)


class Seeds(SoftmaxBudget):
    def route(self, trial):
        torch.manual_seed(0)
        return super().route(trial)


class DrawsInCalibration(SoftmaxBudget):
    def calibrate(self, trials):
        torch.randperm(3)
        super().calibrate(trials)
