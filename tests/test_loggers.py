"""Where curves go: CSV and TensorBoard always, and a tracker that a recipe names."""

import csv
import json

import mlflow
import pytest
from test_training import QUIET, config_of, data, module_of, weights  # noqa: F401

from duo.recipe import load
from duo.training import fit
from duo.training.loggers import TRACKERS, check_installed

ABOUT = {"recipe": {"budget": {"big": 6}, "router": {"name": "random"}}, "digest": "abc"}


def curves_of(folder):
    """Every column of the CSV, by name."""
    rows = [*csv.DictReader((folder / "logs" / "version_0" / "metrics.csv").open())]
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def test_shares_by_module_and_layer_are_logged_while_training(data, tmp_path):  # noqa: F811
    fit(module_of(), data, tmp_path, "test", QUIET)
    curves = curves_of(tmp_path)
    assert {"loss", "learning_rate", "tokens_per_second", "share/big", "share/small", "share/skip"} <= {*curves}
    by_layer = [curves[f"layer_{layer:02}/big"] for layer in range(3)]
    for whole, *layers in zip(curves["share/big"], *by_layer, strict=True):
        assert whole == pytest.approx(sum(layers) / 3, abs=1e-5)
        assert 0.2 < whole < 0.8  # coins
    assert all(share == 0 for share in curves["share/skip"])


def test_no_hook_stays_on_the_backbone(data, tmp_path):  # noqa: F811
    module = module_of()
    fit(module, data, tmp_path, "test", QUIET)
    assert not module.backbone._forward_hooks


def test_mlflow_holds_the_curves_and_the_recipe(data, tmp_path):  # noqa: F811
    fit(module_of(), data, tmp_path, "stage 1", QUIET | {"logger": "mlflow"}, ABOUT)
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'duo'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe/budget/big"] == "6"
    assert run.data.params["digest"] == "abc"
    points = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "loss")}
    assert [*points.values()] == pytest.approx(curves_of(tmp_path)["loss"], abs=1e-5)
    assert {"learning_rate", "tokens_per_second", "share/big", "layer_00/small"} <= {*run.data.metrics}


def test_a_tracker_changes_neither_weights_nor_identity(data, tmp_path):  # noqa: F811
    plain, tracked = module_of(), module_of()
    fit(plain, data, tmp_path / "plain", "test", QUIET)
    fit(tracked, data, tmp_path / "tracked", "test", QUIET | {"logger": "mlflow"}, ABOUT)
    assert (weights(plain) == weights(tracked)).all()
    assert load("tiny", ["trainer.logger=mlflow"]).digest == load("tiny").digest


def test_a_run_tells_its_tracker_recipe_and_digests(small, tmp_path):
    from conftest import command

    settings = ["router.name=random", "trainer.logger=mlflow", f"output={tmp_path}/run", f"cache={tmp_path}/cache"]
    command(*small, *settings)
    (folder,) = (tmp_path / "cache" / "backbones").iterdir()
    client = mlflow.MlflowClient((folder / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'duo'")
    (run,) = client.search_runs([experiment.experiment_id])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert run.data.params["digest"] == result["recipe_digest"]
    assert run.data.params["recipe/stage1/steps"] == "12"
    assert run.data.params["backbone"].startswith(folder.name)


@pytest.mark.parametrize(("name", "near"), [("mlfow", "mlflow"), ("wandbb", "wandb"), ("commet", "comet")])
def test_an_unknown_tracker_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"trainer.logger='{name}'.*did you mean {near}"):
        load("tiny", [f"trainer.logger={name}"])


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_says_what_to_install(name, monkeypatch):
    monkeypatch.setattr("duo.training.loggers.find_spec", lambda module: None)
    with pytest.raises(
        ValueError, match=rf"trainer.logger={name} is not installed: pip install {TRACKERS[name].package}"
    ):
        check_installed({"logger": name})
    check_installed({"logger": True})
    check_installed({})
