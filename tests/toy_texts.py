"""A toy's reading of a text: its tokenizer, backbone and router, without any training."""

from functools import lru_cache

from conftest import toy_backbone

from duo import Budget, Router, Spec, replay, top
from duo.data.tokenizer import train_tokenizer
from duo.evaluation.passage import Reader

CODE = '''def default(self, names):
    """Für jeden Namen — é, 漢字, 🦜 — eine Zeile."""
    for name in names:
        if len(name) == 3 and name[0] != "_":
            return self.total - 0x1F * 12

    x = [len(y) for y in self.names]\r
\tyield None
'''


@lru_cache
def toy_tokenizer():
    return train_tokenizer([CODE * 3, "the words of the text, and the text's words. " * 5], 330)


class ByPlace(Router):
    """Big where a hash of the place says so: it has no labels, and other routes than the oracle."""

    def route(self, trial):
        return replay(top(trial.uniform(), trial.counts(self.spec.budget)))


class Informed(ByPlace):
    """Asks for labels."""

    def route(self, trial):
        trial.loss(trial.run(super().route(trial)))
        return super().route(trial)


def toy_reader(budget=None, router=ByPlace, length=16, **changes):
    budget = budget or Budget(1)
    backbone = toy_backbone(vocabulary=330, positions=512, **changes)
    return Reader(backbone, router(Spec(backbone.config.layers, 16, budget)), toy_tokenizer(), length, batch_size=4)
