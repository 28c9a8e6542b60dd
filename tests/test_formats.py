"""A FORMAT that somebody forgot to raise is noticed: something small is made, and compared with what it gave.

Where one of these tests fails, numbers have changed. If they should, raise the FORMAT that the test names and put what
it found under the new number in `tests/formats.json`; the old lines stay, so that no number is used twice.
"""

import hashlib
import json

import pytest
import torch
from conftest import ROOT, toy_config
from msgspec import UNSET, structs

from duo import Backbone, Budget, Spec
from duo.backbone import FORMAT as BACKBONE
from duo.data import DataConfig, TextData
from duo.data.tokens import FORMAT as DATA
from duo.evaluation.evaluate import evaluate
from duo.evaluation.format import SCHEMA
from duo.evaluation.row import Row
from duo.evaluation.score import Score
from duo.routing.calibration import FORMAT as ROUTER
from duo.routing.uniform import STAGE_1, STAGE_3
from duo.stages import calibrate
from duo.training import DuoModule, TrainingConfig, fit
from routers.random import Random
from routers.softmax_budget import SoftmaxBudget

KNOWN = json.loads((ROOT / "tests" / "formats.json").read_text())
SPEC = Spec(3, 16, Budget(1))
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}


@pytest.fixture(scope="module")
def data(files, tmp_path_factory):
    globs = {"train": [f"{files}/train*.txt"], "holdouts": {"held": [f"{files}/held*.txt"]}}
    config = DataConfig(source="files", tokens=16, batch_size=4, calibration_tokens=512, **globs)
    data = TextData(config, 300, tmp_path_factory.mktemp("cache"))
    data.setup()
    return data


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A backbone and a router after the few steps that tell changes apart, gentle enough to be alike on any machine."""
    torch.manual_seed(0)
    backbone, folder = Backbone(toy_config(vocabulary=300)), tmp_path_factory.mktemp("trained")
    config = TrainingConfig(steps=6, learning_rate=1e-2, warmup_steps=2)
    fit(DuoModule(backbone, Random(SPEC, p_big=0.5), config, 0, STAGE_1), data, folder / "1", "test", QUIET)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch.manual_seed(0)
    router = SoftmaxBudget(SPEC)
    fit(DuoModule(backbone.requires_grad_(False), router, config, 0, STAGE_3), data, folder / "3", "test", QUIET)
    calibrate(router, backbone, data)
    return before, backbone, router


def fingerprint(weights):
    """Names with shapes, exactly; and the weights' norms."""
    names = json.dumps([(name, [*value.shape]) for name, value in weights.items()])
    norms = [float(value.double().norm()) for value in weights.values()]
    return {"names": hashlib.sha256(names.encode()).hexdigest()[:16], "norms": norms}


def check(kind, number, found, where):
    known = KNOWN[kind].get(str(number))
    way = f"raise {where} and add to tests/formats.json, {kind}: {json.dumps({str(number): found})}"
    assert known is not None, f"FORMAT {number} is new: {way}"
    assert {*found} == {*known}, way
    for key, value in found.items():
        same = value == (pytest.approx(known[key], rel=1e-3, abs=1e-6) if isinstance(value, list) else known[key])
        assert same, f"{key} has changed: {way}"


def test_a_change_of_prepared_data_raises_its_format(data):
    found = {name: hashlib.sha256(part.tobytes()).hexdigest()[:16] for name, part in data.packed().items()}
    check("data", DATA, found, "FORMAT in duo/data/tokens.py")


def test_a_change_of_trained_backbones_raises_their_format(trained):
    check("backbone", BACKBONE, fingerprint(trained[0]), "FORMAT in duo/backbone/config.py")


def test_a_change_of_trained_or_calibrated_routers_raises_their_format(trained):
    check("router", ROUTER, fingerprint(trained[2].state_dict()), "FORMAT in duo/routing/calibration.py")


def test_a_change_of_what_is_written_of_scores_raises_their_schema(trained, data):
    score = evaluate(trained[1], trained[2], data.holdout("held"))
    found = {
        "score": " ".join(Score.__struct_fields__),
        # what is left out where it says nothing leaves all files as they were
        "row": " ".join(field.name for field in structs.fields(Row) if field.default is not UNSET),
        "arrays": " ".join(score.sequences._fields),
    }
    check("scores", SCHEMA, found, "SCHEMA in duo/evaluation/format.py and in duo/leaderboard/entry/schema.py")


def test_a_format_that_is_not_raised_is_named():
    with pytest.raises(AssertionError, match=r"norms has changed: raise FORMAT in x and add to tests/formats.json"):
        check("backbone", BACKBONE, KNOWN["backbone"][str(BACKBONE)] | {"norms": [0.0]}, "FORMAT in x")
    with pytest.raises(AssertionError, match="FORMAT 999 is new"):
        check("backbone", 999, {}, "FORMAT in x")
