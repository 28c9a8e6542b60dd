"""duo: adaptive computation in language models, with a big and a small FFN in every layer (Duo-LLM, Apple, 2024).

Tensor names end in their shape, one letter a dimension; X is any dimensions, a digit is a size.

    B  sequences: of a batch, of a hold-out    P  patterns, the candidates of a search
    T  tokens of a sequence                    C  counts of modules that occur
    S  tokens of the present step              G  budgets that a search is asked for
    N  tokens of all sequences together        J  nodes of a search: candidates so far
    L  layers                                  I  their children, a layer further
    M  modules (skip, small, big)              A  modules that are allowed
    D  width of the stream                     O  modules other than the present one
    V  vocabulary                              Q  pairs of layers
    H  heads of the attention                  R  some rows of many: a selection, a chunk, resamples
    K  width of a head                         W  documents of a hold-out
    U  keys that a token may attend to         Z  seeds of a router
"""

import sys
from typing import TYPE_CHECKING, Any

from duo.progress.start import announce
from duo.storage.signals import end_at_once

if sys.argv[:1] == ["-m"]:  # a command of duo's is being found: its imports take seconds
    end_at_once()
    announce(sys.orig_argv)

from duo.backbone import Backbone, BackboneConfig, Budget, Counts, Gate, Run
from duo.routing.calibration import calibrated
from duo.routing.compose import capped, one_hot, replay, straight_through, top
from duo.routing.router import Router, Spec
from duo.routing.trial import Trial
from duo.storage.later import when_imported
from duo.storage.weights import round_to_bfloat16

if TYPE_CHECKING:
    from duo.kept import load, results

__all__ = [
    "Backbone",
    "BackboneConfig",
    "Budget",
    "Counts",
    "Gate",
    "Router",
    "Run",
    "Spec",
    "Trial",
    "calibrated",
    "capped",
    "load",
    "one_hot",
    "replay",
    "results",
    "round_to_bfloat16",
    "straight_through",
    "top",
]


def __getattr__(name: str) -> Any:
    """`load` and `results`, whose imports take seconds that a router's package need not wait for."""
    if name not in ("load", "results"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from duo import kept

    return getattr(kept, name)


def _tell_transformers() -> None:
    """Lets AutoModelForCausalLM load what `python -m duo.convert --routed` wrote."""
    import duo.inference.huggingface  # noqa: F401 # registers at its end, also where its own import of transformers asks


def _tell_lm_eval() -> None:
    """Lets lm-eval's `--model duo` answer with a run's folder."""
    from lm_eval.api.registry import model_registry

    if "duo" not in model_registry:
        model_registry.register("duo", target="duo.stages.harness:RunLM")


when_imported("transformers.models.auto.modeling_auto", _tell_transformers)
when_imported("lm_eval.models", _tell_lm_eval)
