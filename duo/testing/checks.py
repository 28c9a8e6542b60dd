"""The mechanism of checks: a sentence, what breaks it, and the outcome in plain words."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

import duo
from duo.routing.registry import describe_error
from duo.routing.router import Spec
from duo.testing.lab import SPEC, Build, Lab


class Check(Protocol):
    """One property of every router; its name and docstring are sentences."""

    __name__: str
    __doc__: str

    def __call__(self, build: Build, spec: Spec = SPEC) -> None:
        """Raises AssertionError where a router of this Spec lacks the property."""


def check(prove: Callable[[Lab], None]) -> Check:
    """A check that builds its own lab; where the budget has skips, one for each skip scope.

    torch's generator is left as it was found.
    """

    @functools.wraps(prove)
    def checked(build: Build, spec: Spec = SPEC) -> None:
        with torch.random.fork_rng(devices=[]):  # no device: by default it starts every GPU
            for skip_scope in ("ffn", "block") if spec.budget.skip else ("ffn",):
                prove(Lab(build, spec, skip_scope))

    del checked.__wrapped__  # pytest would look for a fixture `lab`
    return checked


class Outcome(NamedTuple):
    """What one check found."""

    check: str
    """The check's name as a sentence."""
    proves: str
    """What every router must do, in a sentence."""
    error: str | None
    """What was wrong, in plain words; None where nothing was."""


def outcomes(build: Build, spec: Spec, checks: Sequence[Check]) -> Iterator[Outcome]:
    """What the checks find, one after the other, on the routers that `build` makes; raises nothing of theirs."""
    for one in checks:
        error = None
        try:
            one(build, spec)
        except AssertionError as failure:
            error = str(failure).splitlines()[0] if str(failure) else _describe_raised(failure)
        except Exception as failure:
            error = _describe_raised(failure)
        yield Outcome(one.__name__.replace("_", " "), one.__doc__.strip().splitlines()[0], error)


def _describe_raised(error: BaseException) -> str:
    """An exception and its innermost line that is neither duo's, nor torch's, nor Python's."""
    error = error.__cause__ or error  # what the router raised, where duo said it in a sentence
    ours = tuple(str(Path(package.__file__ or "").parent) for package in (duo, torch))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(ours) and Path(frame.filename).parent != Path(traceback.__file__).parent
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"it raised {describe_error(error)}{where}"
