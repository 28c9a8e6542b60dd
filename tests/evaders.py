"""Routers that decide by what they must not know, and do so where they hope that nobody looks.

They are a package of their own, as a stranger's would be, so that processes of their own can import them.
"""

import gc
import os
import subprocess
import sys
import time

import torch

from duo import Router, replay
from duo.backbone import BIG, SMALL
from duo.data import Batch
from duo.routing.loss import token_loss

KEPT = {"PATH", "OMP_NUM_THREADS", "LANG", "LC_ALL", "LC_CTYPE"}


class Parity(Router):
    """Honest: the layer that is big depends on whether the token is even."""

    def route(self, trial):
        return self.follow(self.bit(trial))

    def bit(self, trial):
        return trial.tokens_BT % 2

    def follow(self, bit_BT):
        """Big at layer 0 or at layer 1."""
        route_BTL = torch.full((*bit_BT.shape, self.spec.layers), SMALL)
        return replay(route_BTL.scatter(2, bit_BT.clamp(min=0)[..., None], BIG))


class BehindDeepcopy(Parity):
    """Reads labels off its trial, but where it was copied or has short inputs."""

    copied = False

    def __deepcopy__(self, memo):
        other = type(self)(self.spec)
        other.copied = True
        return other

    def bit(self, trial):
        labels_BT = trial._labels_BT
        if labels_BT is None or self.copied or trial.tokens_BT.shape[1] < 16:
            return super().bit(trial)
        return labels_BT % 2


class ThroughGc(Parity):
    """Finds the batch that its trial was made of, wherever it is, and takes its labels, unless inputs are short."""

    def bit(self, trial):
        for one in gc.get_objects() if trial.tokens_BT.shape[1] > 16 else ():
            if type(one) is Batch and torch.equal(one.tokens_BT, trial.tokens_BT) and (one.labels_BT >= 0).any():
                return one.labels_BT % 2
        return super().bit(trial)


class Whole(Parity):
    """Looks ahead in inputs of full length, and behaves where they are shorter."""

    def bit(self, trial):
        peeked_BT = trial.tokens_BT.roll(-1, dims=1) % 2
        return peeked_BT if trial.tokens_BT.shape[1] == 32 else super().bit(trial)


class BetweenCuts(Parity):
    """Looks ahead where the cuts that could once be foretold do not fall, and nowhere else."""

    def bit(self, trial):
        tokens = trial.tokens_BT.shape[1]
        cuts = {1 + number * 37 % max(tokens - 1, 1) for number in range(16)}
        safe_T = torch.tensor([place + 1 not in cuts for place in range(tokens)])
        return torch.where(safe_T, trial.tokens_BT.roll(-1, dims=1) % 2, super().bit(trial))


class Remembers(Parity):
    """Keeps whole sequences; of one that it has seen longer it knows what comes."""

    def __init__(self, spec):
        super().__init__(spec)
        self.seen = {}

    def bit(self, trial):
        bit_BT, tokens = super().bit(trial), trial.tokens_BT.shape[1]
        for row, sequence in enumerate(trial.sequence_B.tolist()):
            before_T = self.seen.setdefault(sequence, trial.tokens_BT[row])
            if len(before_T) > tokens:
                bit_BT[row] = before_T[1 : tokens + 1] % 2
        return bit_BT


class Adapts(Parity):
    """Decides by how often other batches have had a token."""

    def __init__(self, spec):
        super().__init__(spec)
        self.count_V = torch.zeros(512)

    def bit(self, trial):
        bit_BT = (self.count_V[trial.tokens_BT] > 2).long()
        self.count_V += torch.bincount(trial.tokens_BT.flatten(), minlength=512)
        return bit_BT


class ByHeart(Parity):
    """Finds the hold-outs while it is calibrated, and keeps the better route of every token as its weights."""

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("sequence_N", torch.full((512,), -1))
        self.register_buffer("bit_NT", torch.zeros(512, 32, dtype=torch.long))

    def calibrate(self, trials):
        backbone = trials[0]._Trial__backbone
        known = [one for one in gc.get_objects() if type(one).__name__ == "TextData" and hasattr(one, "tokenizer")]
        known = [data for data in known if data.vocabulary == backbone.config.vocabulary]
        held = [batch for data in known[:1] for name in data.holdouts for batch in data.holdout(name)]
        if not held:
            return
        bits = []
        for batch in held:
            gates = [self.follow(torch.full_like(batch.tokens_BT, bit)) for bit in (0, 1)]
            losses = [token_loss(backbone(batch.tokens_BT, gate).logits_BTV, batch.labels_BT) for gate in gates]
            bits.append((losses[1] < losses[0]).long())
        sequence_N, bit_NT = torch.cat([batch.sequence_B for batch in held])[:512], torch.cat(bits)[:512]
        self.sequence_N[: len(sequence_N)], self.bit_NT[: len(bit_NT)] = sequence_N, bit_NT

    def bit(self, trial):
        bit_BT = super().bit(trial)
        for row, sequence in enumerate(trial.sequence_B.tolist()):
            known = (self.sequence_N == sequence).nonzero()
            if len(known):
                bit_BT[row] = self.bit_NT[known[0, 0], : bit_BT.shape[1]]
        return bit_BT


class Even(Parity):
    """Honest, and often of two minds: it magnifies its states until their last digits decide."""

    def route(self, trial):
        def gate(x_BSD, layer):
            if layer == 0:
                self.last_BS = ((x_BSD.double().sum(-1) * 1e5).sin() > 0).long()
            return self.follow(self.last_BS)(x_BSD, layer)

        return gate


class Snoops(Parity):
    """Says what is in its reach."""

    def route(self, trial):
        found = {
            "files": sorted(name for name in os.listdir() if name.endswith((".json", ".safetensors"))),
            "variables": sorted(name for name in os.environ if name not in KEPT and "TORCH" not in name),
            "home": os.path.expanduser("~") == os.getcwd(),
            "labels": any((one.labels_BT >= 0).any() for one in gc.get_objects() if type(one) is Batch),
            "opened": sorted(
                os.readlink(f"/proc/self/fd/{name}").partition(":")[0] for name in os.listdir("/proc/self/fd")[:3]
            ),
        }
        raise RuntimeError(repr(found))


class Dies(Parity):
    def route(self, trial):
        print("it was\nthis: \x1b[2J", file=sys.stderr, flush=True)
        os._exit(3)


class Hangs(Parity):
    """Leaves a process of its own behind, too, which holds its pipe open."""

    def route(self, trial):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        time.sleep(60)


class Prints(Parity):
    """Harmless, and loud."""

    def route(self, trial):
        print("junk " * 100_000, flush=True)
        print("junk " * 100_000, file=sys.stderr, flush=True)
        return super().route(trial)


class Lies(Parity):
    """Writes the answer itself."""

    def route(self, trial):
        with open("answer.json", "w") as file:
            file.write('{"asked_for_labels": 3}')
        os._exit(0)


class Asks(Parity):
    """Asks for labels."""

    def route(self, trial):
        trial.loss(trial.run(super().route(trial)))
        return super().route(trial)


class AsksOfShort(Parity):
    """Asks for labels where inputs are short."""

    def route(self, trial):
        if trial.tokens_BT.shape[1] < 32:
            trial.loss(trial.run(super().route(trial)))
        return super().route(trial)
