"""A sweep is the comparison that one process would make, however many make it, and whatever becomes of them."""

import json
import sys
from pathlib import Path

import pytest
from conftest import command
from test_figures import toy_comparison
from test_run import comparable

from duo.recipe import load
from duo.sweep import __main__ as sweep_command
from duo.sweep import machine as machines
from duo.sweep.dry import lines_of
from duo.sweep.gather import gather
from duo.sweep.runs import runs_of, sweep_recipe
from duo.sweep.typed import PlanConfig, SweepConfig, read_typed, split_values


class Job:
    """One that is done as soon as it is there."""

    def __init__(self, folder, statuses):
        self.paths = type("Paths", (), {"stdout": folder / "log"})
        self.statuses = statuses

    def done(self):
        return True


class Toy:
    """A machine that does all work at once, in this process; what is told to be killed does nothing."""

    def __init__(self, devices=None, killed=()):
        self.killed, self.done, self.stopped = killed, [], []

    def start(self, task, slot):
        self.done.append(task.name)
        return Job(task.folder, [] if any(name in task.name for name in self.killed) else [task.work(task.arguments)])

    def stop(self, jobs):
        self.stopped += jobs

    def statuses(self, job):
        return job.statuses


def told(capsys, *arguments, check=1):
    assert sweep_command.main([*map(str, arguments)]) == check
    captured = capsys.readouterr()
    return captured.err.strip() if check else captured.out


@pytest.fixture(scope="module")
def settings(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    fewer = ["data.holdout_tokens=512", "data.subset_sequences=4", "data.subset_tokens=8"]
    return folder, [*small, *fewer, f"cache={folder}/cache", "budget.big=0,1", "seed=0,1"]


@pytest.fixture(scope="module")
def swept(settings):
    """A sweep of which one run was killed, and then what the same command made of it."""
    folder, typed = settings
    arguments, first, again = [*typed, f"output={folder}/sweep"], Toy(killed=["big=1, seed=1"]), Toy()
    with pytest.MonkeyPatch.context() as patch:
        for toy, status in ((first, 1), (again, 0)):
            patch.setattr(machines, "Here", lambda devices, toy=toy: toy)
            assert sweep_command.main(arguments) == status
            if status:
                failed = json.loads((folder / "sweep" / "result.json").read_text())
    return folder / "sweep", first, again, failed


def test_values_are_what_stands_between_commas_outside_brackets_and_quotes():
    assert split_values("key", "[0,1],{a: 1,b: 2},'x,y',\"u,v\",(1,2)") == [
        "[0,1]", "{a: 1,b: 2}", "'x,y'", '"u,v"', "(1,2)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["budgt.big=1,2"], "unknown key 'budgt'"),
        (["budget.bgi=1,2"], "did you mean budget.big"),
        (["budget.big=1,"], "'budget.big=1,' lacks a value"),
        (["budget.big="], "'budget.big=' lacks a value"),
        (["budget.big=1,two"], "budget.big"),
        (["budget.big=1,1"], "budget.big has the value 1 twice"),
        (["budget.big=1,99"], "4 layers"),
        (["budget.big=1"], "there is nothing to sweep"),
        (["seed=0,1", "seed=2,3"], "seed is there twice"),
        (["seed=0,2"], "seed=0,2 leaves numbers out, and rows are averaged: give seed=0,1"),
        (["seed=0,1", "compare.seeds=2"], "compare.seeds=2"),
        (["cache=a,b"], "cache cannot differ between the runs of a sweep"),
        (["data.seed=0,1"], "rows are compared on the same tokens"),
        (["seed=0,1", "sweep.paralel=2"], "did you mean sweep.parallel"),
        (["seed=0,1", "sweep.parallel=0"], "sweep.parallel=0 must be 1 or more"),
        (["seed=0,1", "sweep.parallel=two"], "sweep.parallel='two' must be a whole number"),
        (["seed=0,1", "sweep.slurm.partiton=gpu"], "did you mean sweep.slurm.partition"),
        (["seed=0,1", "sweep.slurm.partition=gpu"], "sweep.slurm.time=null must be each job's minutes"),
        (["seed=0,1", "sweep.slurm.time=60"], "SLURM's srun, which is not here"),
        (["seed=0,1", "tasks=[arc_easy]"], "no run of routers that are scored"),
        (["seed=0,1", "--dry", "device=h10"], "unknown device 'h10': did you mean h100"),
        (["seed=0,1", "devices=2"], "are what --dry plans for: a run is given trainer.devices"),
        (["seed=0,1", "--dry", "efficiency=2"], "efficiency=2 must be a share"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_nothing_is_begun(capsys, tmp_path, typed, said):
    line = told(capsys, "recipe=tiny", *typed, f"output={tmp_path}/sweep")
    assert said in line
    assert len(line.splitlines()) == 1
    assert [*tmp_path.iterdir()] == []


def test_without_submitit_one_line_says_what_to_install(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    line = told(capsys, "recipe=tiny", "seed=0,1", f"output={tmp_path}/sweep")
    assert line == "error: sweeps need submitit: pip install 'duo-llm[sweep]'"
    assert [*tmp_path.iterdir()] == []


def whole_of(*typed, recipe="tiny"):
    found = read_typed(recipe, typed)
    return sweep_recipe(found.recipe, found.over, recipe)


def test_other_seeds_than_the_first_are_those_of_rows_that_learn():
    runs = runs_of(whole_of("budget.big=1,2", "seed=3,4"), Path("sweep"))
    assert [run.name for run in runs] == [f"budget.big={big}, seed={seed}" for big in (1, 2) for seed in (3, 4)]
    assert [run.rows for run in runs] == [["router", "all_big", "fixed_best", "random"], ["router"]] * 2
    assert [run.recipe.seed for run in runs] == [3, 4, 3, 4]
    assert len({run.folder for run in runs}) == len({run.recipe.digest for run in runs}) == 4
    assert len({key for run in runs for key in run.backbones}) == 1


def test_a_comparison_over_values_is_a_sweep_as_it_is():
    whole = whole_of("compare.seeds=2", recipe="any_budget_sweep")
    assert whole.digest == load("any_budget_sweep", ["compare.seeds=2"]).digest
    fewer = whole_of("budget.big=2,4", recipe="any_budget_sweep")
    assert fewer.compare.over == {"budget.big": [2, 4]}
    assert fewer.compare.rows == whole.compare.rows


def test_options_that_were_typed_for_all_routers_stay_with_each():
    whole = whole_of("router.name=softmax_budget,surrogate", "router.hidden=8")
    assert {rows["router"].router["hidden"] for rows in whole.groups.values()} == {8}


def test_values_that_only_go_together_are_taken_together():
    whole = whole_of("backbone.layers=6,8", "budget.big=5,6")
    assert [rows["router"].budget.big for rows in whole.groups.values()] == [5, 6, 5, 6]


@pytest.mark.long
def test_a_sweep_finds_what_the_same_comparison_finds_in_one_process(swept, tmp_path):
    folder, *_ = swept
    command(f"recipe={folder}/recipe.yaml", f"output={tmp_path}/one")
    ours, theirs = comparable(folder), comparable(tmp_path / "one")
    assert ours.pop("recipe") == "sweep-tiny"
    assert theirs.pop("recipe") == "recipe"
    assert ours == theirs


@pytest.mark.long
def test_a_run_that_fails_is_told_and_is_all_that_is_run_again(swept):
    folder, first, again, failed = swept
    assert first.done == ["backbone 1 of 1", *(f"budget.big={big}, seed={seed}" for big in (0, 1) for seed in (0, 1))]
    assert again.done == ["backbone 1 of 1", "budget.big=1, seed=1"]
    row = failed["groups"]["budget.big=1"]["router"]
    assert row["failed"].startswith("budget.big=1, seed=1: it ended without a word")
    assert failed["groups"]["budget.big=1"]["random"]["failed"] is None
    assert failed["groups"]["budget.big=0"]["router"]["seeds"] == 2
    assert {path.name for path in (folder / "figures").iterdir()} == {"loss.png", "big_share.png"}


@pytest.mark.long
def test_what_is_finished_is_shown_and_nothing_is_run(swept, settings, capsys, monkeypatch):
    folder, typed = settings
    toy = Toy()
    monkeypatch.setattr(machines, "Here", lambda devices: toy)
    shown = told(capsys, *typed, f"output={folder}/sweep", check=0)
    assert "budget.big=1" in shown
    assert toy.done == []
    planned = told(capsys, *typed, f"output={folder}/sweep", "--dry", check=0)
    assert planned.count("finished") == 4
    assert max(map(len, planned.splitlines())) <= 80


def test_rows_are_averaged_over_seeds_and_one_that_failed_has_no_scores():
    whole = whole_of("budget.big=1,2", "seed=0,1", "compare.rows.router={}", "compare.rows.random.router.name=random")
    runs = runs_of(whole, Path("sweep"))
    found = {run.name: toy_comparison(run.rows, [run.group]) for run in runs[:3]}
    for part in found.values():
        part.provenance["seconds"] = 2.0
    merged = gather(whole, "toy", "python -m duo.sweep", runs, found, {runs[3].name: "it was killed"})
    assert merged.recipe_digest == whole.digest
    assert merged.provenance["seconds"] == 6.0
    first, second = merged.groups.values()
    assert [row.seeds for row in first.values()] == [2, 1]
    assert second["router"].failed == "budget.big=2, seed=1: it was killed"
    assert second["random"].scores
    with pytest.raises(ValueError, match="every run failed; the first one: it was killed"):
        gather(whole, "toy", "", runs, {}, {runs[3].name: "it was killed"})


def test_a_plan_fits_a_terminal_and_counts_a_backbone_once():
    whole = whole_of("seed=0,1", "compare.rows.random.router.name=random", "stage3.freeze_backbone=false")
    runs = runs_of(whole, Path("sweep"))
    lines = [*lines_of(whole, runs, {runs[0].name}, 2, PlanConfig())]
    assert max(map(len, lines)) <= 80
    assert [line.split()[:2] for line in lines[1:4]] == [["1", "backbone"], ["seed=0", "finished"], ["seed=1", "to"]]
    slow = [*lines_of(whole, runs, set(), 2, PlanConfig("h100", 1, 1e-9))]
    hours = [float(line.split()[-1].replace(",", "")) for line in slow[1:6]]
    assert hours[3] == pytest.approx(hours[0] + hours[1] + hours[2], abs=0.02)
    assert hours[4] == pytest.approx(hours[0] + (hours[1] + hours[2]) / 2, abs=0.02)


def test_settings_of_a_sweep_are_checked():
    assert SweepConfig(parallel=3).parallel == 3
    assert read_typed("tiny", ["seed=0,1", "sweep.slurm.time=5"]).config.slurm == {"time": 5}
