"""The ladder of information as a user runs it."""

import numpy as np
import pytest
from conftest import command
from msgspec import structs
from test_figures import toy_comparison, toy_score

from duo.evaluation.comparison import Comparison, compare_rows
from duo.evaluation.format import load_struct
from duo.evaluation.row import Row
from duo.recipe import build, load
from duo.report import ladder
from duo.report.ladder import has_ladder, ladder_remark, rungs_of

BUDGET = {"skip": 0.0, "small": 1.0, "big": 2.0}
ROWS = """# a ladder
base: tiny
full_holdout: false
compare:
  minus: [fixed_best]
  gap: [fixed_best, oracle]
  seeds: 2
  knowledge: {table: control, control: control, own: own, gone: own}
  rows:
    fixed_best: {router: {name: fixed_best}}
    control: {router: {name: ngram_control, buckets: 64}}
    table: {router: {name: ngram_budget, buckets: 64, hidden: 4}}
    own: {router: {name: advised}}
    oracle: {router: {name: oracle}}
    all_big: {router: {name: fixed, pattern: [2, 2]}}
    gone: null
"""


@pytest.fixture(scope="module")
def climbed(small, tmp_path_factory):
    """A ladder's result, its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("ladder")
    (folder / "rows.yaml").write_text(ROWS)
    run = [*small[1:], f"recipe={folder}/rows.yaml", f"cache={folder}/cache", f"output={folder}/run"]
    printed = command(*run)
    return load_struct(Comparison, folder / "run", "result.json"), folder, run, printed


def test_every_rung_stands_beside_what_its_knowledge_is_worth(climbed):
    comparison, *_ = climbed
    rows = comparison.groups[""]
    assert rows["control"].seeds == 2
    fixed = rows["fixed_best"].subset["held"].sequences
    for rung, by in {"table": "control", "control": "control", "own": "own"}.items():
        knowledge, known = rows[by].knowledge["held"], rows[rung].beside["held"].known
        assert (known.by, known.loss) == (by, knowledge.loss)
        assert np.array(knowledge.losses).shape == (rows[by].seeds, len(fixed.loss_B))
        assert knowledge.loss == pytest.approx(np.mean(knowledge.losses, axis=0).sum() / fixed.tokens_B.sum())
        gain = rows["fixed_best"].subset["held"].loss - rows[rung].subset["held"].loss
        assert known.ceiling.value == pytest.approx(rows["fixed_best"].subset["held"].loss - knowledge.loss)
        assert known.share.value is None or known.share.value == pytest.approx(gain / known.ceiling.value)
    assert not any(
        rows[name].beside["held"].known or rows[name].knowledge for name in ("oracle", "all_big", "fixed_best")
    )
    assert rows["control"].subset["held"].loss == pytest.approx(rows["fixed_best"].subset["held"].loss)


def test_rungs_stand_in_the_order_of_the_recipe_with_gains_on_the_same_tokens(climbed):
    comparison, folder, _, printed = climbed
    rungs = rungs_of(comparison, "", "held")
    assert [rung.name for rung in rungs] == ["fixed_best", "control", "table", "own", "oracle", "all_big"]
    fixed = rungs[0].score
    for rung in rungs:
        assert rung.gain.value == pytest.approx(fixed.loss - rung.score.loss)
        assert np.array_equal(rung.score.sequences.sequence_B, fixed.sequences.sequence_B)
        assert rung.labels == (rung.name == "oracle")
    assert rungs[-1].shown == "all_big (over the budget)"
    assert (folder / "run" / "figures" / "ladder.png").stat().st_size > 0
    table = printed.partition("the ladder of information")[2]
    assert [line.split()[0] for line in table.splitlines() if " " in line.strip()][2:5] == [
        "fixed_best",
        "control",
        "table",
    ]


def toy_ladder(oracle=2.4):
    """Rungs whose gains are known: half of the oracle's without labels, more only over the budget or with labels."""

    def row(loss, **about):
        found = toy_score(loss)
        exact = found.sequences._replace(loss_ZB=np.full((1, 6), 8 * loss) + np.linspace(-1, 1, 6))
        return Row("random", {}, BUDGET, subset={"held": structs.replace(found, **about).made_of(exact)})

    rows = {
        "fixed": row(3.0),
        "low": row(2.9),
        "high": row(2.7),
        "rich": row(2.5, within_budget=False),
        "oracle": row(oracle, labels_consulted=True),
    }
    return Comparison(
        "toy", "0" * 64, {"": compare_rows(rows, [], ["fixed", "oracle"])}, [], ["fixed", "oracle"], [], {}
    )


def test_what_the_ladder_says_of_luck_is_said_exactly():
    assert ladder_remark(toy_ladder(), "", "held") == (
        "held: the highest rung without labels (high, 50.0% ±0.0% of the oracle's gain) is a lower bound of what "
        "somebody can know; one minus it (50.0%) is an upper bound of luck. "
        "Each rung is what was found by its knowledge, and no limit of what that allows"
    )


def test_where_the_oracle_gains_nothing_no_share_of_it_is_told():
    assert ladder_remark(toy_ladder(oracle=3.0), "", "held").startswith("held: there is no gap between")


def test_a_finished_ladder_is_told_again_with_its_remarks(climbed):
    comparison, _, run, printed = climbed
    assert ladder_remark(comparison, "", "held") in printed
    assert ladder.CEILINGS in printed
    assert printed.endswith(command(*run))


def test_a_comparison_that_names_no_knowledge_is_no_ladder():
    assert not has_ladder(toy_comparison(["a", "b"]))


@pytest.mark.parametrize(
    ("knowledge", "said"),
    [
        ({"fixed_bst": "own"}, "unknown row in compare.knowledge: 'fixed_bst': did you mean fixed_best"),
        ({"table": "gone"}, "compare.knowledge.table=gone needs a row of that name, and compare.gap"),
        ({"table": 3}, "compare.knowledge.table=3"),
    ],
)
def test_impossible_ladders_are_refused_before_any_work(tmp_path, knowledge, said):
    (tmp_path / "rows.yaml").write_text(ROWS)
    settings = load(str(tmp_path / "rows.yaml")).settings
    with pytest.raises(ValueError, match=said):
        build(settings | {"compare": settings["compare"] | {"knowledge": knowledge}})


def test_a_row_whose_router_predicts_nothing_is_named_before_any_work(climbed, tmp_path):
    _, _, run, _ = climbed
    there = [part for part in run if not part.startswith(("output=", "cache="))]
    printed = command(
        *there, "compare.knowledge.table=oracle", f"output={tmp_path}/run", f"cache={tmp_path}/cache", check=1
    )
    assert "compare.knowledge.table=oracle: router 'oracle' predicts nothing" in printed
    assert "stage 1" not in printed


def test_the_shipped_ladders_go_from_nothing_to_the_label():
    for name in ("ladder6", "ladder_reference6"):
        recipe = load(name)
        rows = recipe.groups[""]
        assert [*rows][:2] == ["random", "fixed_best"]
        assert {"advised_self", "advised_reference", "oracle", "ngram_control"} <= {*rows}
        assert not any(row.full_holdout for row in rows.values())
        table, control = rows["ngram_budget"], rows["ngram_control"]
        assert table.stage3 == control.stage3  # the same steps
        assert recipe.compare.known_by["ngram_budget"] == "ngram_control"
