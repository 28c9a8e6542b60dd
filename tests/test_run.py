"""The main job as a user runs it."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import command
from safetensors.torch import load_file

from duo.evaluation.score import TIMES
from duo.recipe import recipes

SCORE = {
    "loss", "loss_interval", "perplexity", "bits_per_byte", "tokens", "documents", "share", "flops_per_token",
    "budget_flops_per_token", "router_flops_per_token", "within_budget", "passes", "labels_consulted",
    "seconds_per_token", "time_ratio", "unexplained_time", "promised_loss", "router_parameters", "router_bytes",
}  # fmt: skip
RESULT = {
    "schema", "recipe", "recipe_digest", "router", "budget", "backbone", "tokens", "scores", "baselines", "subset",
    "gap_closed", "gap_from", "foreign", "collapsed", "provenance",
}  # fmt: skip


def comparable(folder):
    """A result without what may differ between two runs."""

    def without(value):
        if isinstance(value, dict):
            return {key: without(part) for key, part in value.items() if key not in {"provenance", *TIMES}}
        return value

    return without(json.loads((folder / "result.json").read_text()))


def same_weights(one, other):
    for name in ("backbone", "router"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (one, other))
        if ours.keys() != theirs.keys() or any(not ours[key].equal(theirs[key]) for key in ours):
            return False
    return True


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One run of `tiny` from nothing, and what it printed."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    return folder, command("recipe=tiny", f"output={folder}", "cache=none")


def test_tiny_leaves_a_whole_folder_and_says_where(tiny):
    folder, printed = tiny
    for name in (
        "recipe.yaml", "result.json", "backbone.safetensors", "router.safetensors", "logs/version_0/metrics.csv",
        "figures/training_loss.png", "figures/loss.png", "figures/big_share.png",
    ):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name
    assert str(folder) in printed.splitlines()[-1]
    for word in ("softmax_budget", "all_small", "all_big", "random", "text:", "code:"):
        assert word in printed


def test_a_result_has_the_keys_and_numbers_it_should(tiny):
    result = json.loads((tiny[0] / "result.json").read_text())
    assert {*result} == RESULT
    assert (result["recipe"], result["router"], result["budget"]) == (
        "tiny",
        "softmax_budget",
        {"skip": 0, "small": 2, "big": 2},
    )
    assert {*result["backbone"]} == {"digest", "parameters", "train_tokens", "tokenizer"}
    assert result["backbone"]["train_tokens"] == 60 * 16 * 64
    assert {*result["provenance"]} == {"commit", "versions", "device", "seed", "seconds", "command", "sources"}
    assert result["provenance"]["command"].startswith("python -m duo.run recipe=tiny")
    assert {*result["baselines"]} == {"all_small", "all_big", "random", "fixed_best"}
    assert {*result["subset"]} == {"router", *result["baselines"], "best_of_random", "oracle"}
    for row in result["subset"].values():
        assert {score["tokens"] for score in row.values()} == {48 * 48}
    for holdout, oracle in result["subset"]["oracle"].items():
        assert oracle["promised_loss"] == pytest.approx(oracle["loss"], abs=1e-5)
        assert oracle["loss"] < min(result["subset"][row][holdout]["loss"] for row in ("fixed_best", "best_of_random"))
        assert oracle["labels_consulted"]
        closed = result["gap_closed"][holdout]
        assert closed["interval"][0] <= closed["value"] <= closed["interval"][1]
    for row in (result["scores"], *result["baselines"].values()):
        assert {*row} == {"text", "code"}
        for score in row.values():
            assert {*score} == SCORE
            assert score["tokens"] >= 16384
            assert score["loss_interval"][0] < score["loss"] < score["loss_interval"][1]
            assert sum(score["share"].values()) == pytest.approx(1)
            assert (score["passes"], score["labels_consulted"]) == (0, False)
    for holdout, score in result["scores"].items():
        assert score["within_budget"]
        assert 0 < score["router_flops_per_token"] < 0.05 * score["flops_per_token"]
        assert result["baselines"]["all_big"][holdout]["share"]["big"] == 1
        assert not result["baselines"]["all_big"][holdout]["within_budget"]
        random = result["baselines"]["random"][holdout]
        assert random["flops_per_token"] == pytest.approx(random["budget_flops_per_token"])


def test_a_finished_run_prints_its_table_again_without_doing_anything(tiny):
    folder, printed = tiny
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    again = command("recipe=tiny", f"output={folder}", "cache=none")
    assert printed.endswith(again)
    assert "stage 1" not in again
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def test_two_runs_agree_bit_for_bit(tiny, tmp_path):
    command("recipe=tiny", f"output={tmp_path}/again", "cache=none", cwd=tmp_path)
    assert comparable(tmp_path / "again") == comparable(tiny[0])
    assert same_weights(tmp_path / "again", tiny[0])


def test_a_backbone_in_the_cache_is_reused_and_the_run_says_so(small, tmp_path):
    first = command(*small, f"cache={tmp_path}/cache", cwd=tmp_path)
    second = command(*small, f"cache={tmp_path}/cache", "router.name=random", cwd=tmp_path)
    assert first.startswith("start  duo.run")
    assert "\r" not in first + second
    assert "training a backbone" in first
    assert all(f"stage 3  calibrating {row}\n" in first for row in ("softmax_budget", "all_small", "all_big"))
    assert "reusing the trained backbone" in second
    assert "stage 3  training" not in second  # random has nothing to train
    folders = sorted((tmp_path / "outputs").iterdir())
    assert [folder.name.rpartition("-")[0] for folder in folders] == ["tiny", "tiny"]
    assert all(re.fullmatch(r"tiny-[0-9a-f]{8}", folder.name) for folder in folders)
    backbones = [load_file(folder / "backbone.safetensors") for folder in folders]
    assert all(backbones[0][key].equal(backbones[1][key]) for key in backbones[0])


def test_a_router_that_searches_is_scored_on_the_subset_alone(small, tmp_path):
    run = [*small, f"cache={tmp_path}/cache", f"output={tmp_path}/run", "router.name=oracle", "full_holdout=false"]
    printed = command(*run)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["scores"] == {}
    assert result["subset"]["router"]["held"]["loss"] == result["subset"]["oracle"]["held"]["loss"]
    assert result["gap_closed"]["held"]["value"] in (None, pytest.approx(1))
    assert printed.splitlines()[-1] == command(*run).splitlines()[-1]


def test_a_backbone_that_is_not_frozen_is_trained_on(small, tmp_path):
    cache = f"cache={tmp_path}/cache"
    command(*small, cache, f"output={tmp_path}/frozen")
    command(*small, cache, f"output={tmp_path}/free", "stage3.freeze_backbone=false")
    frozen, free = (load_file(tmp_path / name / "backbone.safetensors") for name in ("frozen", "free"))
    assert any(not frozen[key].equal(free[key]) for key in frozen)


@pytest.mark.parametrize(
    "change",
    [
        "backbone.skip_scope=block",
        pytest.param("backbone.family=opt", marks=pytest.mark.long),
        pytest.param("trainer.precision=bf16-mixed", marks=pytest.mark.long),
    ],
)
def test_other_backbones_run_too(small, tmp_path, change):
    skip = ["budget.skip=0.25", "stage1.p_skip=0.2"] if "block" in change else []
    command(*small, change, *skip, f"cache={tmp_path}/cache", f"output={tmp_path}/run")
    score = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]["held"]
    assert score["loss"] < 5.8
    assert (score["share"]["skip"] > 0.1) is bool(skip)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recipe=router_budegt6"], "did you mean router_budget6"),
        (["recipe=tiny", "budgt.big=1"], "did you mean budget"),
        (["recipe=tiny", "router.name=sofmax_budget"], "did you mean softmax_budget"),
        (["recipe=tiny", "router.name=fixed", "router.pattern=[1,2]"], "4 layers"),
        (["recipe=tiny", "budget.big=-1"], "negative"),
        (["recipe=tiny", "backbone.layers=0"], "backbone.layers=0"),
        (["recipe=tiny", "router.hidden=-3"], "router.hidden=-3"),
        (["recipe=tiny", "router.alpha=abc"], "router.alpha"),
        (["recipe=tiny", "output={tmp}/a_file"], "cannot be written"),
        (["recipe=tiny", "output={tmp}/foreign"], "files of something else"),
    ],
)
def test_mistakes_give_one_clear_line_and_lose_nothing(tmp_path, arguments, said):
    (tmp_path / "a_file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("mine")
    printed = command(*[argument.replace("{tmp}", str(tmp_path)) for argument in arguments], check=1, cwd=tmp_path)
    assert said in printed
    *starts, error = printed.splitlines()  # the first line is said again where imports take ten seconds
    assert starts
    assert all(line.startswith("start  duo.run") for line in starts)
    assert error.startswith("error: ")
    assert (tmp_path / "a_file").read_text() == (tmp_path / "foreign" / "thesis.tex").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_file", "foreign"]


def test_an_output_of_another_recipe_is_refused_and_kept(tiny):
    before = comparable(tiny[0])
    assert "belongs to another recipe" in command("recipe=tiny", f"output={tiny[0]}", "seed=1", check=1)
    assert comparable(tiny[0]) == before


def test_documents_that_changed_under_a_run_are_noticed(small, files, tmp_path):
    shutil.copytree(files, tmp_path / "documents")
    run = [argument.replace(str(files), str(tmp_path / "documents")) for argument in small]
    run += [f"cache={tmp_path}/cache", f"output={tmp_path}/run", "router.name=random"]
    command(*run)
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "documents" / "train1.txt").write_text("something else " * 100)
    assert "begun on other documents" in command(*run, check=1)


def test_devices_that_are_not_there_show_before_any_work(small, tmp_path):
    printed = command(*small, "trainer.accelerator=tpu", f"output={tmp_path}/run", f"cache={tmp_path}/c", check=1)
    assert printed.startswith("error: trainer: ")
    assert not (tmp_path / "c").exists()


def test_damaged_files_are_named(tiny, small, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny[0], folder)
    (folder / "result.json").write_text("{")
    assert "result.json cannot be read" in command("recipe=tiny", f"output={folder}", "cache=none", check=1)
    (folder / "result.json").unlink()
    ours = (folder / "router.safetensors").read_bytes()
    (kept,) = (path for path in folder.glob("cache/*/*/router.safetensors") if path.read_bytes() == ours)
    kept.write_bytes(b"short")
    assert f"{kept.name} cannot be read" in command("recipe=tiny", f"output={folder}", "cache=none", check=1)
    kept.unlink()  # the way out that was told
    command("recipe=tiny", f"output={folder}", "cache=none")
    assert comparable(folder) == comparable(tiny[0])


def test_a_loss_that_is_no_number_stops_the_run(small, tmp_path):
    printed = command(
        *small, "stage1.learning_rate=1e30", "stage1.warmup_steps=0", f"output={tmp_path}/run", "cache=none", check=1
    )
    assert re.search(r"error: stage 1: the (loss|gradient's norm) is (nan|inf) at step \d+ of 12", printed)


def test_without_a_recipe_it_says_what_to_type():
    printed = command(check=2)
    assert "python -m duo.run recipe=NAME" in printed
    assert "router_budget6" in printed


def test_help_lists_recipes_and_knobs_without_importing_lightning():
    printed = command("--help")
    assert all(name in printed for name in recipes())
    assert "stage1.steps=" in printed
    assert "Optimizer steps." in printed
    code = "import sys, duo.run; duo.run.main(['--help']); sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
