"""Comparisons of rows, as a user runs them."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import command
from msgspec import structs
from rich.table import Table
from test_figures import toy_comparison, toy_score

from duo.backbone import MODULES
from duo.evaluation.comparison import Comparison, compare_rows
from duo.evaluation.format import load_struct
from duo.evaluation.intervals import Estimate
from duo.evaluation.row import Row
from duo.evaluation.score import average_scores, difference
from duo.recipe import build, load
from duo.report.tables import gap_line, render


def load_comparison(folder):
    return load_struct(Comparison, folder, "result.json")


ROWS = """# a comparison
base: tiny
compare:
  minus: [random]
  gap: [fixed_best, oracle]
  seeds: 2
  rows:
    learned: {stage3: {steps: 4, warmup_steps: 1}}
    oracle: {router: {name: oracle}, full_holdout: false}
    fixed_best: {router: {name: fixed_best}}
    random: {router: {name: random}}
    none: null
"""


@pytest.fixture(scope="module")
def compared(small, tmp_path_factory):
    """A comparison, its folder, its arguments and what it printed."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "rows.yaml").write_text(ROWS)
    # steps enough for a gap between fixed_best and the oracle
    steps = ["stage1.steps=80", "stage1.checkpoint_every=20", "stage1.log_every=20"]
    arguments = [*small[1:], *steps, f"recipe={folder}/rows.yaml", f"cache={folder}/cache", f"output={folder}/run"]
    return folder, arguments, command(*arguments)


def test_rows_stand_side_by_side_by_loss_with_bounds_apart(compared):
    folder, _, printed = compared
    rows = json.loads((folder / "run" / "result.json").read_text())["groups"][""]
    assert [*rows] == ["learned", "oracle", "fixed_best", "random"]
    lines = [line.split()[0] for line in printed.partition("full hold-out")[2].splitlines() if "±" in line]
    whole, subset = lines[:3], lines[3:7]
    losses = {name: row["scores"]["held"]["loss"] for name, row in rows.items() if row["scores"]}
    assert whole == sorted(losses, key=losses.get)
    assert subset[-1] == "oracle"
    assert (folder / "run" / "figures" / "loss.png").stat().st_size > 0
    assert rows["oracle"]["scores"] == {}


def test_routers_that_learn_are_averaged_over_seeds_and_others_scored_once(compared):
    rows = json.loads((compared[0] / "run" / "result.json").read_text())["groups"][""]
    assert {name: row["seeds"] for name, row in rows.items()} == {
        "learned": 2, "oracle": 1, "fixed_best": 1, "random": 1
    }  # fmt: skip
    learned = rows["learned"]
    assert len({*learned["seed_losses"]["held"]}) == 2
    assert learned["scores"]["held"]["loss"] == pytest.approx(np.mean(learned["seed_losses"]["held"]))


def test_differences_and_gaps_are_those_of_the_losses(compared):
    comparison = load_comparison(compared[0] / "run")
    rows = json.loads((compared[0] / "run" / "result.json").read_text())["groups"][""]
    losses = {name: row["scores"]["held"]["loss"] for name, row in rows.items() if row["scores"]}
    for name, loss in losses.items():
        beside = rows[name]["beside"]["held"]
        assert beside["minus"]["random"]["value"] == pytest.approx(loss - losses["random"])
        ours, begin, oracle = (rows[row]["subset"]["held"]["loss"] for row in (name, beside["gap_from"], "oracle"))
        closed = (begin - ours) / (begin - oracle)
        assert beside["gap_closed"]["value"] == pytest.approx(closed)
    assert rows["oracle"]["beside"]["held"]["gap_closed"]["value"] == pytest.approx(1)
    assert comparison.groups[""]["oracle"].beside["held"].gap_closed.interval == pytest.approx((1, 1))


def test_a_gap_begins_at_the_better_baseline_where_the_fixed_pattern_was_chosen_on_other_domains(compared):
    folder, _, printed = compared
    rows = json.loads((folder / "run" / "result.json").read_text())["groups"][""]
    losses = {name: rows[name]["subset"]["held"]["loss"] for name in ("fixed_best", "random")}
    begin = min(losses, key=losses.get)
    assert {row["beside"]["held"]["gap_from"] for row in rows.values()} == {begin}
    assert f"held: gap closed is measured from {begin} (no calibration set has its name, so" in printed

    scores = {name: {"held": toy_score(loss)} for name, loss in (("fixed", 4.2), ("luckier", 4.1), ("oracle", 3.5))}
    toy = {
        name: Row("toy", {}, dict.fromkeys(MODULES, 1.0), scores=score, subset=score) for name, score in scores.items()
    }
    for foreign, begin in (((), "fixed"), (("held",), "luckier")):
        found = compare_rows(toy, ["luckier"], ["fixed", "oracle"], foreign=foreign)
        assert {row.beside["held"].gap_from for row in found.values()} == {begin}


def test_of_how_many_documents_a_hold_out_is_stands_above_its_numbers(compared):
    assert "tokens, 10 documents" in compared[2]
    comparison = toy_comparison(["a", "b"])
    titles = [part.title for part in render(comparison) if isinstance(part, Table)]
    assert all("48 tokens, 6 documents: so few that intervals are guesses" in title for title in titles)


def test_why_nothing_is_said_of_a_gap_is_said():
    toy = SimpleNamespace(gap_closed={"held": Estimate(None, None)}, subset={"router": {"held": toy_score(4.0)}})
    about = "held: nothing is said of a gap between the best fixed pattern and the oracle: "
    assert gap_line(toy, "held") == f"{about}over 6 documents it is not clearly there"
    toy.subset["router"]["held"] = structs.replace(toy_score(4.0), documents=1)
    assert gap_line(toy, "held") == f"{about}one document cannot tell"


def test_rows_that_were_scored_are_not_scored_again(compared, tmp_path):
    _, arguments, printed = compared
    again = command(*[a if not a.startswith("output=") else f"output={tmp_path}/other" for a in arguments])
    assert "evaluation" in printed
    assert "evaluation" not in again
    assert (
        again.partition("held:")[2].partition("figures")[0].split(str(tmp_path))[0].splitlines()[:12]
        == (printed.partition("held:")[2].splitlines()[:12])
    )


def test_a_finished_comparison_prints_its_tables_again(compared):
    _, arguments, printed = compared
    assert printed.endswith(command(*arguments))


def test_a_row_that_fails_is_reported_and_the_others_go_on(small, tmp_path):
    (tmp_path / "rows.yaml").write_text(
        "# x\nbase: tiny\nfull_holdout: false\ncompare:\n  rows:\n    random: {router: {name: random}}\n"
        "    wild: {router: {alpha: 3.0e+38}}\n"
    )
    printed = command(*small[1:], f"recipe={tmp_path}/rows.yaml", f"cache={tmp_path}/c", f"output={tmp_path}/run")
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["groups"][""]
    assert "stage 3: the" in rows["wild"]["failed"]
    assert "wild failed: stage 3" in printed
    assert rows["random"]["subset"]["held"]["loss"] < 6


def test_groups_go_through_every_combination(small, tmp_path):
    (tmp_path / "rows.yaml").write_text(
        "# x\nbase: tiny\nfull_holdout: false\ncompare:\n  over: {budget.big: [0, 1, 2]}\n"
        "  rows:\n    oracle: {router: {name: oracle, context: same}}\n    random: {router: {name: random}}\n"
    )
    printed = command(*small[1:], f"recipe={tmp_path}/rows.yaml", f"cache={tmp_path}/c", f"output={tmp_path}/run")
    comparison = load_comparison(tmp_path / "run")
    assert [*comparison.groups] == ["budget.big=0", "budget.big=1", "budget.big=2"]
    lowest = min(comparison.groups, key=lambda group: comparison.scored(group, "held", True)["oracle"].loss)
    starred = [line for line in printed.splitlines() if line.strip().startswith("budget.big=") and "*" in line]
    assert any(line.strip().startswith(lowest) for line in starred)
    first, last = (comparison.scored(group, "held", True)["random"] for group in ("budget.big=0", "budget.big=2"))
    assert f"{difference(first, last).value:+.4f}" in printed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minus": ["randm"], "rows": {"random": {}}}, "did you mean random"),
        ({"gap": ["random"], "rows": {"random": {}}}, "compare.gap"),
        ({"rows": {"random": {"router": {"name": "randm"}}}}, "compare.rows.random: unknown router 'randm'"),
        ({"rows": {"random": {"budgt": 3}}}, "compare.rows.random: unknown key"),
        ({"rows": {"random": {}}, "over": {"budget.big": 4}}, "compare.over: budget.big=4 must be a list"),
        ({"rows": {"random": {}}, "seeds": 0}, "compare.seeds=0"),
        ({"rows": {"random": 3}}, "compare.rows.random"),
        ({"rows": {"random": {"output": "x"}}}, "output cannot be set for a row"),
        ({"rows": {"random": {"data": {"seed": 1}}}}, "compared on the same tokens"),
        ({"rows": {"random": {}}, "over": {"backbone.vocabulary": [512]}}, "compared on the same tokens"),
    ],
)
def test_impossible_comparisons_are_refused_before_any_work(changes, said):
    with pytest.raises(ValueError, match=said):
        build({"compare": changes}).rows()


def test_a_row_is_the_recipe_that_its_changes_make():
    rows = load("oracle_sweep").groups["budget.big=5"]
    assert rows["committed"].digest == load("oracle_budget6", ["budget.big=5"]).digest
    assert rows["random"].router == {"name": "random"}


def test_scores_of_one_seed_stay_as_they_are(compared):
    comparison = load_comparison(compared[0] / "run")
    score = comparison.scored("", "held", True)["random"]
    assert average_scores([score]) is score
    twice = average_scores([score, score])
    assert twice.loss == pytest.approx(score.loss)
    assert twice.loss_interval == pytest.approx(score.loss_interval)


def test_values_that_rows_go_through_keep_their_types():
    groups = build({"compare": {"rows": {"a": {}}, "over": {"stage3.batch_size": [None, 8], "seed": [1]}}}).groups
    assert [*groups] == ["stage3.batch_size=null, seed=1", "stage3.batch_size=8, seed=1"]
    assert [rows["a"].stage3.batch_size for rows in groups.values()] == [None, 8]


def test_a_group_that_fails_and_odd_names_are_shown_and_a_failed_row_is_tried_again(small, tmp_path):
    (tmp_path / "rows.yaml").write_text(
        "# x\nbase: tiny\nfull_holdout: false\ncompare:\n  over: {router.alpha: [3.0e+38, 10.0], seed: [0]}\n"
        "  rows:\n    'mine[v2]': {}\n"
    )
    run = [*small[1:], f"recipe={tmp_path}/rows.yaml", f"cache={tmp_path}/c", f"output={tmp_path}/run"]
    printed = command(*run)
    assert "mine[v2] at router.alpha=3e+38, seed=0 failed" in printed
    assert "router.alpha=10.0, seed=0" in printed
    again = command(*run)
    assert "row  mine[v2]" in again
    assert again.count("evaluation") == 0


def test_a_result_of_a_router_that_has_changed_since_is_not_shown_as_its_own(compared, tmp_path):
    folder, arguments, _ = compared
    result = json.loads((folder / "run" / "result.json").read_text())
    assert {*result["provenance"]["sources"]} == {"softmax_budget", "oracle", "fixed_best", "random"}
    shutil.copytree(folder / "run", tmp_path / "run")
    result["provenance"]["sources"]["random"] = "another"
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    printed = command(*[a if "output=" not in a else f"output={tmp_path}/run" for a in arguments], check=1)
    assert "router random has changed since" in printed
