"""Several runs beside one another: on the same tokens or not at all, told apart, paired."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from rich.console import Console
from toy_runs import DATA, fail, toy_row, toy_rows, toy_run

from duo.evaluation.finished import choose_groups
from duo.evaluation.row import close_gap, subtract
from duo.evaluation.several import compare_runs, pairs_of
from duo.report.markdown import to_markdown
from duo.report.several import render_several, several_pictures
from duo.report.width import fit

A, B = toy_run("A", toy_rows(3.9, 3)), toy_run("B", toy_rows(3.8, 4))


def rows_of(*runs, **about):
    (rows,) = compare_runs(runs, **about).groups.values()
    return rows


def test_rows_of_one_name_are_told_apart_and_what_is_the_same_stands_once():
    assert [*rows_of(A, B)] == ["mine (A)", "fixed", "oracle", "mine (B)"]
    assert [*rows_of(A, A._replace(label="C"))] == ["mine", "fixed", "oracle"]


@pytest.mark.parametrize(
    "other",
    [
        toy_row(3.9, 5), toy_row(3.9, 3, backbone="c"), toy_row(3.9, 3, budget={"skip": 0.0, "small": 2.0, "big": 1.0}),
        toy_row(3.9, 3, searches=True), toy_row(3.9, 3, seeds=2), fail(toy_row(3.9, 3)),
    ],
)  # fmt: skip
def test_a_row_that_differs_in_anything_is_another(other):
    assert {"mine (A)", "mine (B)"} <= {*rows_of(A, toy_run("B", toy_rows(1, 1) | {"mine": other}))}


def test_a_row_is_the_same_whenever_it_was_scored():
    again = toy_rows(3.9, 3)
    slow = {name: structs.replace(score, time_ratio=9.0) for name, score in again["mine"].scores.items()}
    slow = {name: score.made_of(again["mine"].scores[name].sequences) for name, score in slow.items()}
    again["mine"] = structs.replace(again["mine"], scores=slow, learned=True)
    assert "mine" in rows_of(A, toy_run("B", again))


def test_every_row_is_called_by_a_name_of_its_own_even_where_names_look_like_labels():
    odd = toy_run("A", {"x": toy_row(3.0, 1), "x (B)": toy_row(3.1, 2)})
    found = rows_of(odd, toy_run("B", {"x": toy_row(3.2, 3)}))
    assert [*found] == ["x (A)", "x (B) (A)", "x (B)"]
    assert [round(row.scores["held"].loss, 1) for row in found.values()] == pytest.approx([3.0, 3.1, 3.2], abs=0.11)


def test_differences_are_those_of_the_code_for_rows_paired_on_the_same_tokens():
    found = rows_of(A, B)
    ours, theirs = B.groups[""]["mine"], A.groups[""]["mine"]
    minus = found["mine (B)"].beside["held"].minus["mine (A)"]
    assert minus == subtract(ours, theirs, "held")
    assert minus.value == pytest.approx(ours.scores["held"].loss - theirs.scores["held"].loss)
    low, high = ours.scores["held"].loss_interval
    assert minus.interval[1] - minus.interval[0] < (high - low) / 5  # what both share is not in it
    assert found["mine (A)"].beside["held"].minus["mine (A)"].interval == (0, 0)


def test_rows_are_subtracted_that_the_first_run_calls_its_own_or_that_are_asked_for():
    assert compare_runs([A, B]).minus == ["mine (A)"]
    assert compare_runs([B, A]).minus == ["mine (B)"]
    assert compare_runs([A, B], ["fixed", "mine (B)"]).minus == ["fixed", "mine (B)"]
    # a name without a run will do where one alone has it
    assert compare_runs([A, toy_run("B", {"new": toy_row(3.8, 9)})], ["new"]).minus == ["new"]


@pytest.mark.parametrize(("name", "said"), [("mine", "minus=mine is 2 rows: .*mine \\(A\\), fixed"), ("x", "no row")])
def test_a_row_to_subtract_that_is_not_there_or_twice_is_named_with_those_that_are(name, said):
    with pytest.raises(ValueError, match=said):
        compare_runs([A, B], [name])


def test_a_row_of_an_earlier_run_is_subtracted_from_its_namesakes_too():
    one, other = ({"mine": toy_row(3.9, seed), "also": toy_row(3.7, seed + 1)} for seed in (3, 6))
    comparison = compare_runs([toy_run("A", one), toy_run("B", other)])
    assert [*pairs_of(comparison, "", "held")] == [("also (B)", "also (A)")]
    found = comparison.groups[""]["also (B)"].beside["held"].minus["also (A)"]
    assert found == subtract(other["also"], one["also"], "held")


def test_the_gap_is_that_of_a_rows_own_run():
    found = rows_of(A, toy_run("B", {"mine": toy_row(3.8, 4)} | toy_rows(3.7, 5, backbone="c")))
    for name, run in (("fixed (A)", A), ("mine (A)", A)):
        own = run.groups[""]
        expected = close_gap(own[name[:-4]], own["fixed"], own["oracle"], "held")
        assert found[name].beside["held"].gap_closed == expected
        assert found[name].beside["held"].gap_from == "fixed (A)"
    assert found["oracle (B)"].beside["held"].gap_closed.value == pytest.approx(1)


@pytest.mark.parametrize(
    ("about", "lent"),
    [({}, True), ({"backbone": "c"}, False), ({"budget": {"skip": 0.0, "small": 2.0, "big": 1.0}}, False)],
)
def test_a_gap_is_lent_to_runs_on_the_same_backbone_at_the_same_budget_alone(about, lent):
    found = rows_of(toy_run("B", {"new": toy_row(3.8, 4, **about)}), A)["new"].beside["held"]
    assert (found.gap_closed.value is not None) is lent
    assert found.gap_from == ("fixed" if lent else "")


def test_the_ends_of_a_gap_may_come_from_two_runs():
    rows = A.groups[""]
    entries = [toy_run(label, {name: rows[name]}) for label, name in zip("ABC", rows, strict=True)]
    found = rows_of(*entries)["mine"].beside["held"].gap_closed
    assert found == close_gap(rows["mine"], rows["fixed"], rows["oracle"], "held")
    assert compare_runs(entries).gap == ["fixed", "oracle"]
    assert compare_runs(entries[:2]).gap == []


def test_a_gap_begins_at_the_better_baseline_where_the_fixed_pattern_was_chosen_on_other_domains():
    rows = toy_rows(3.8, 4) | {"random": toy_row(3.9, 6)}
    run = toy_run("B", rows, begins=["random"], foreign=["other"])
    beside = rows_of(A, run)["random"].beside
    assert (beside["held"].gap_from, beside["other"].gap_from) == ("fixed", "random")


def test_a_row_that_failed_says_why_and_costs_the_others_nothing():
    run = toy_run("B", toy_rows(3.8, 4) | {"broken": fail(toy_row(3.0, 1))})
    comparison = compare_runs([A, run])
    assert comparison.groups[""]["broken"].failed == "it broke"
    assert comparison.groups[""]["mine (B)"].beside["held"].minus
    assert "broken failed: it broke" in shown([A, run], comparison)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (toy_run("B", toy_rows(3.8, 4, tokens="u"), data=DATA | {"data.tokens": 16}),
         r"runs/B was scored on other tokens than runs/A \(data.tokens=16, not 8\): run both on"),
        (toy_run("B", toy_rows(3.8, 4, tokens="u")), "other tokens .*its documents or its tokenizer were others"),
        (toy_run("B", toy_rows(3.8, 4, holdouts=("held",))), "runs/B was scored on other tokens than runs/A"),
        (toy_run("B", toy_rows(3.8, 4, tokens="t", first=7)), "runs/B was scored on another part of the tokens"),
        (toy_run("B", toy_rows(3.8, 4) | {"oracle": structs.replace(
            toy_row(3.0, 2, searches=True), subset=toy_row(3.0, 2, first=7).subset)}), "another part of the tokens"),
    ],
)  # fmt: skip
def test_other_tokens_are_refused_by_name(other, said):
    with pytest.raises(ValueError, match=said):
        compare_runs([A, other])


def test_runs_are_compared_in_the_groups_that_all_have():
    four, five = (toy_run(label, toy_rows(3.9, 3), groups=groups) for label, groups in (("A", "xy"), ("B", "yz")))
    assert [[*run.groups] for run in choose_groups([four, five], None)] == [["y"], ["y"]]
    assert [[*run.groups] for run in choose_groups([A, four], "x")] == [[""], [""]]
    assert [[*run.groups] for run in choose_groups([A, toy_run("B", toy_rows(3.9, 3), groups="x")], None)] == [[""]] * 2
    with pytest.raises(ValueError, match=r"no group is in all runs \(runs/A has one group; runs/B has y, z\)"):
        choose_groups([A, five], None)
    with pytest.raises(ValueError, match="group=x: runs/B has y, z"):
        choose_groups([A, five], "x")


def shown(runs, comparison, width=200):
    console = Console(file=io.StringIO(), width=width, emoji=False, highlight=False, markup=False)
    for part in fit(render_several(runs, comparison), width):
        console.print(part)
    return console.file.getvalue()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=3, unique=True), st.integers(60, 160))
def test_nothing_is_wider_than_the_screen_whatever_rows_are_called(names, width):
    runs = [toy_run(label, {name: toy_row(3.9, seed) for name in names}) for label, seed in (("A", 1), ("B", 2))]
    comparison = compare_runs(runs)
    assert len(comparison.groups[""]) == 2 * len(names)
    assert all(character.isprintable() for line in shown(runs, comparison).split("\n") for character in line)
    if max(map(len, names)) < 20:
        assert max(len(line.rstrip()) for line in shown(runs, comparison, width).splitlines()) <= width


def test_at_80_columns_loss_difference_gap_and_cost_are_in_one_table():
    runs = []
    for run in (A, B):
        mine, *ends = run.groups[""].items()
        runs.append(toy_run(run.label, {"softmax_budget": mine[1], **dict(ends)}))
    printed = shown(runs, compare_runs(runs), 80)
    assert "continued" not in printed.partition("subset")[0]
    (line,) = [line for line in printed.splitlines() if "loss" in line and "MFLOPs" in line][:1]
    assert line.split() == ["loss", "softmax_budget", "(A)", "MFLOPs", "gap", "closed"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (toy_run("B", toy_rows(3.8, 4, backbone="c")), "different backbones"),
        (toy_run("B", toy_rows(3.8, 4, budget={"skip": 0.0, "small": 2.0, "big": 1.0})), "different budgets"),
    ],
)
def test_runs_that_differ_in_more_than_their_router_say_so(other, said):
    assert said in shown([A, other], compare_runs([A, other]))
    assert said not in shown([A, B], compare_runs([A, B]))


def test_figures_have_each_row_and_say_what_the_runs_are():
    one, other = ({"mine": toy_row(3.9, seed), "also": toy_row(3.7, seed + 1)} for seed in (3, 6))
    runs = [toy_run("A", one, groups="xy"), toy_run("B", other, groups="xy")]
    drawn = {name: draw() for name, draw in several_pictures(runs, compare_runs(runs)).items()}
    rows = [label.get_text() for label in drawn["differences"].axes[0].get_yticklabels()]
    assert sorted(rows) == ["also (A)", "also (B)", "mine (A)", "mine (B)"]
    pairs = [label.get_text() for label in drawn["same_rows"].axes[0].get_yticklabels()]
    assert pairs == ["also (B) at y - also (A)", "also (B) at x - also (A)"]
    assert all(figure.get_supxlabel() == "A = runs/A    B = runs/B" for figure in drawn.values())
    assert "same_rows" not in several_pictures([A, A._replace(label="C")], compare_runs([A, A._replace(label="C")]))


def test_markdown_shows_names_as_they_are():
    run = toy_run("B", {"<b>|*": toy_row(3.0, 7)})
    printed = to_markdown(render_several([A, run], compare_runs([A, run])))
    assert "| &lt;b&gt;\\|\\* |" in printed
    head = next(line for line in printed.splitlines() if line.startswith("|"))
    assert head.split(" | ")[:3] == ["| ", "loss", "minus mine"]
