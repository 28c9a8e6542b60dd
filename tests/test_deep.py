"""Models too deep for their patterns to be listed."""

import math
import tracemalloc

import pytest
import torch
from conftest import command, random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from toy_pretrained import saved

from duo import Budget, Spec, Trial
from duo.evaluation.comparison import Comparison
from duo.evaluation.format import load_struct
from duo.evaluation.result import Result
from duo.recipe import load
from duo.report.tables import table
from duo.routing import registry
from duo.routing.climb import climb_to_fixed, mean_losses
from duo.search import draw_patterns, patterns, patterns_of
from duo.search.patterns import count_patterns, counts_of, pattern_counts
from duo.stages.score import with_subset_for_searches
from routers.best_of_random import BestOfRandom
from routers.fixed_best import FixedBest
from routers.oracle import Oracle

DEEP = ("recipe=tiny", "backbone.layers=30", "budget.big=15")
BUDGETS = [Budget(24), Budget(15, 5), Budget(0.5), Budget(0.35, 0.25)]
ROUTERS = [name for name, (point, *_) in registry.available().items() if point.value.startswith("routers.")]


@pytest.fixture
def few(monkeypatch):
    """As if more than five patterns were too many to list."""
    monkeypatch.setattr(patterns, "MOST_LISTED", 5)


def trial_of(layers, seed=0, tokens=16):
    tokens_BT = random_tokens(8, tokens + 1, seed=seed)
    return Trial(toy_backbone(seed=seed, layers=layers), tokens_BT[:, :-1], tokens_BT[:, 1:])


@settings(deadline=None, max_examples=20)
@given(layers=st.integers(1, 7), big=st.integers(0, 20), skip=st.integers(0, 20))
def test_patterns_are_counted_as_many_as_are_listed(layers, big, skip):
    budget = Budget(big / 20 % 1, skip / 20 % 1 * (1 - big / 20 % 1))
    listed_PL = patterns_of(layers, budget)
    assert len(listed_PL) == count_patterns(counts_of(layers, budget)) == len(listed_PL.unique(dim=0))


def test_all_budgets_of_twelve_layers_are_listed_and_deep_ones_are_refused_at_once():
    shares = [Budget(big / 24, skip / 24) for big in range(1, 24) for skip in range(24 - big)]
    assert max(count_patterns(counts_of(12, budget)) for budget in shares) <= patterns.MOST_LISTED
    with pytest.raises(ValueError, match=r"15 big and 0 skipped have 155,117,520 patterns.*draw_patterns.*local"):
        patterns_of(30, Budget(15))


@pytest.mark.parametrize("count", [(0, 3, 2), (2, 1, 2)])
def test_draws_are_distinct_uniform_and_the_seeds(few, count):
    count_M, seen = torch.tensor(count), {}
    total = count_patterns(count_M[None])
    for seed in range(300):
        torch.manual_seed(seed)
        drawn_PL = draw_patterns(count_M, 3)
        assert (pattern_counts(drawn_PL) == count_M).all()
        assert len({*map(tuple, drawn_PL.tolist())}) == 3
        for pattern in map(tuple, drawn_PL.tolist()):
            seen[pattern] = seen.get(pattern, 0) + 1
    torch.manual_seed(299)
    assert torch.equal(draw_patterns(count_M, 3), drawn_PL)
    assert len(seen) == total
    assert all(abs(number - 900 / total) < 5 * math.sqrt(900 / total) for number in seen.values())
    assert len(draw_patterns(count_M, total)) == total


def built(build):
    """Numbers that a router holds beside what it learns, and the bytes of objects that building it held at once."""
    tracemalloc.start()
    try:
        router = build()
        return sum(part.numel() for part in router.buffers()), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", ROUTERS)
def test_no_router_lists_patterns_at_48_layers(name, budget, monkeypatch):
    monkeypatch.setattr(patterns, "MOST_LISTED", 0)  # whoever asks for a list is refused
    spec = Spec(48, 64, budget)
    if name == "any_budget" and budget.skip:
        with pytest.raises(ValueError, match="budget.skip.*small and big alone"):
            registry.build(name, spec)
        return
    registry.load(name)  # its imports are no part of it
    numbers, held = built(lambda: registry.build(name, spec))
    assert numbers < 100_000
    assert held < 4 << 20


def test_a_router_that_lists_patterns_would_be_seen():
    class Lister(Oracle):
        def __init__(self, spec):
            super().__init__(spec)
            self.register_buffer("listed", patterns_of(18, Budget(9)))

    numbers, held = built(lambda: Lister(Spec(48, 64, Budget(24))))
    assert numbers > 100_000
    assert held > 4 << 20


@torch.no_grad()
def find_regrets(layers, budget, seeds):
    """How much the climbed pattern loses more than the best, in standard deviations of all patterns, by backbone."""
    count_CM, listed_PL, regrets = counts_of(layers, budget), patterns_of(layers, budget), []
    for seed in range(seeds):
        trial = trial_of(layers, seed)
        mean_P = mean_losses([trial], listed_PL, 128)
        loss = mean_P[(listed_PL == climb_to_fixed([trial], count_CM, 128)).all(1)]
        regrets.append(float((loss - mean_P.min()) / mean_P.std()))
    return regrets


def test_a_climb_finds_the_best_fixed_pattern_or_one_close_to_it():
    regrets = find_regrets(7, Budget(3), seeds=3)
    assert regrets.count(0) >= 2
    assert max(regrets) < 0.5


@pytest.mark.long
@pytest.mark.parametrize(("layers", "budget"), [(8, Budget(4)), (9, Budget(4)), (8, Budget(2, 3))])
def test_climbs_on_many_backbones_find_the_best_fixed_pattern_mostly(layers, budget):
    regrets = find_regrets(layers, budget, seeds=10)
    assert regrets.count(0) >= 5
    assert sum(regrets) / len(regrets) < 0.5


@torch.no_grad()
@pytest.mark.parametrize("kind", [FixedBest, BestOfRandom, Oracle])
@pytest.mark.parametrize("budget", [Budget(0.5), Budget(1, 2)])
def test_searching_routers_spend_exactly_the_counts_where_patterns_are_not_listed(few, kind, budget):
    trial, router = trial_of(5, tokens=4), kind(Spec(5, 16, budget)).eval()
    router.calibrate([trial_of(5, tokens=4)])
    weight_BTLM = trial.run(router.route(trial)).weight_BTLM
    assert torch.equal(weight_BTLM.sum(2).long(), trial.counts(budget))
    assert router.search_method == (None if kind is BestOfRandom else "local")
    again = kind(Spec(5, 16, budget)).eval()
    again.load_state_dict(router.state_dict())  # what was found is saved
    assert torch.equal(trial.run(again.route(trial)).weight_BTLM, weight_BTLM)


def test_the_oracle_searches_locally_only_where_it_must(few):
    assert Oracle(Spec(5, 16, Budget(1))).candidates.search == "exact"
    assert Oracle(Spec(5, 16, Budget(2))).candidates.search == "local"
    for options in ({"search": "exact"}, {"context": "same"}, {"per": "average"}):
        with pytest.raises(ValueError, match="patterns, and at most 5 are listed: router.search=local"):
            Oracle(Spec(5, 16, Budget(2)), **options)


def test_searches_of_deep_models_have_a_smaller_subset_for_all_rows_unless_a_size_is_named():
    def subset(name, *overrides):
        data = with_subset_for_searches(load(name, overrides)).data
        return data.subset_sequences, data.subset_tokens

    deep = ("backbone.layers=30", "budget.big=15")
    assert subset("tiny", *deep) == (24, 20)
    assert subset("tiny", *deep, "data.subset_sequences=40") == (40, 20)
    assert subset("tiny", "backbone.layers=30", "budget.big=2") == (48, 48)
    assert subset("any_budget_sweep", *deep) == (48, 48)  # nothing searches there
    shrunk = with_subset_for_searches(load("tiny", deep))
    assert with_subset_for_searches(shrunk) == shrunk


def check_says_local(folder, layers, tokens):
    result = load_struct(Result, folder, "result.json")
    (holdout,) = result.gap_closed
    assert result.search == {"fixed_best": "local", "oracle": "local"}
    fixed, oracle = (result.subset[row][holdout].loss for row in ("fixed_best", "oracle"))
    assert oracle < fixed
    assert len({score[holdout].tokens for score in result.subset.values()}) == 1
    assert result.subset["oracle"][holdout].sequences.used_TLM.shape[:2] == (tokens, layers)
    assert table(result, holdout, True).title.endswith("; search: local (fixed_best, oracle)")
    assert table(result, holdout).title.endswith("; search: local (fixed_best)")
    return result.gap_closed[holdout].value


def test_a_run_says_which_rows_searched_locally(few, small, tmp_path):
    where = f"output={tmp_path}/run", f"cache={tmp_path}/cache"
    little = "router={name: random}", "data.subset_sequences=4", "data.subset_tokens=6", "stage1.steps=2"
    printed = command(*small, "backbone.layers=4", "budget.big=2", *little, *where)
    assert "search  6 patterns in 4 layers are too many to list" in printed
    assert math.isfinite(check_says_local(tmp_path / "run", 4, 6))


@pytest.mark.long
def test_a_deep_run_ends(small, tmp_path):
    deep = ("backbone.layers=30", "budget.big=15", "data.subset_sequences=2", "data.subset_tokens=8")
    tokens = "data.holdout_tokens=256", "data.calibration_tokens=128"
    command(*small, *deep, *tokens, f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    closed = check_says_local(tmp_path / "run", 30, 8)
    assert closed is None or math.isfinite(closed)  # none where the gap of so few documents is not clear


def climb_the_ladder(small, folder, *settings):
    """The shipped recipe for deep models at a small size, and what it found."""
    sizes = "backbone.heads=2", "backbone.big=32", "backbone.small=4", "data.subset_sequences=4", "data.subset_tokens=6"
    where = f"output={folder}/run", f"cache={folder}/cache"
    printed = command("recipe=deep", *small[1:], "budget.big=0.5", *sizes, *settings, *where)
    (rows,) = load_struct(Comparison, folder / "run", "result.json").groups.values()
    assert [*rows] == ["random", "fixed_best", "softmax_budget", "advised_self", "oracle"]
    assert not [name for name, row in rows.items() if row.failed]
    return {name: row for name, row in rows.items()}, printed


def test_the_recipe_for_deep_models_runs(few, small, tmp_path):
    rows, printed = climb_the_ladder(small, tmp_path, "backbone.layers=6", "stage1.steps=2", "budget.pinned=[0]")
    assert "the ladder of information" in printed
    said = {name: row.search for name, row in rows.items() if row.search is not UNSET}
    assert said == dict.fromkeys(("fixed_best", "advised_self", "oracle"), "local")
    score = {name: row.subset["held"] for name, row in rows.items()}
    assert [name for name in score if score[name].labels_consulted] == ["oracle"]
    assert score["oracle"].loss < min(score[name].loss for name in score if name != "oracle")
    # the learned router holds its budget on its calibration set: 24 tokens of another text may ask for more
    assert all(part.within_budget for name, part in score.items() if name != "softmax_budget")
    assert rows["advised_self"].knowledge["held"].loss > 0


def test_the_recipe_for_deep_models_takes_the_shape_of_a_pretrained_one(tmp_path):
    saved(tmp_path / "model", "Llama", vocab_size=512)
    recipe = load("deep", [f"backbone.pretrained={tmp_path}/model"])
    assert recipe.backbone.layers == 2
    assert {row.spec.layers for row in recipe.rows()} == {2}
    assert str(recipe.spec.budget) == "1 big and 0 skipped"


@pytest.mark.long
def test_the_recipe_for_deep_models_runs_at_thirty_layers(small, tmp_path):
    rows, _ = climb_the_ladder(small, tmp_path, "backbone.layers=30", "data.holdout_tokens=256")
    assert rows["oracle"].subset["held"].loss < rows["advised_self"].subset["held"].loss
