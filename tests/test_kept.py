"""What was made is loaded again as it was, or not at all; its numbers are a table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command
from safetensors.torch import load_file, save_file

import duo

TEXT = "Document word1\tword2"
ROWS = """
base: tiny
compare:
  seeds: 2
  minus: [random]
  gap: []
  over: {budget.big: [1, 2]}
  rows:
    random: {router: {name: random}}
    learned: {router: {name: softmax_budget}}
    broken: {router: {name: softmax_budget, alpha: 3.0e+38}}
"""


@pytest.fixture(scope="module")
def compared(small, finished, tmp_path_factory):
    """The folder of a comparison over two budgets, whose weights lie in the finished run's cache."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "rows.yaml").write_text(ROWS)
    settings = [setting for setting in small[1:] if not setting.startswith("budget.big")]
    command(f"recipe={folder}/rows.yaml", *settings, f"output={folder}/run", f"cache={finished}/cache")
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run's folder, to be damaged."""
    return shutil.copytree(finished / "run", tmp_path / "run")


def test_a_run_is_loaded_whole_and_frozen(finished):
    backbone, router, tokenizer, length = duo.load(finished / "run")
    assert (tokenizer.get_vocab_size(), length, router.spec.budget.big) == (300, 32, 1)
    assert not any(parameter.requires_grad for module in (backbone, router) for parameter in module.parameters())
    assert [module.training for module in (backbone, router)] == [False, False]
    for name, module in (("backbone", backbone), ("router", router)):
        held, state = load_file(finished / "run" / f"{name}.safetensors"), module.state_dict()
        assert all(torch.equal(state[key], value.to(state[key].dtype)) for key, value in held.items())


def test_a_reading_is_one_pass_on_the_routers_routes(finished):
    loaded = duo.load(str(finished / "run"))
    reading = loaded.read(TEXT)
    tokens = torch.tensor([loaded.tokenizer.encode(TEXT).ids])
    assert "".join(reading.texts) == TEXT[len(loaded.tokenizer.decode(tokens[0, :1].tolist())) :]
    weight_BTLM = torch.eye(3)[torch.from_numpy(reading.route_NL).long()][None]
    logits = loaded.backbone(tokens[:, :-1], lambda x, layer: weight_BTLM[:, :, layer]).logits_BTV[0]
    expected = -logits.log_softmax(-1)[torch.arange(len(logits)), tokens[0, 1:]]
    np.testing.assert_allclose(reading.loss_N, expected.numpy(), atol=1e-5)
    assert reading.score.loss == pytest.approx(expected.mean().item(), abs=1e-5)
    assert (reading.route_NL == 2).mean() == pytest.approx(reading.score.share["big"])


def test_a_long_text_is_read_to_its_end_and_every_token_once(finished):
    loaded = duo.load(finished / "run")
    text = " ".join(f"word{number}" for number in range(40))
    reading = loaded.read(text)
    assert len(reading.texts) > 2 * loaded.length
    assert text.endswith("".join(reading.texts))
    assert reading.route_NL.shape == (len(reading.texts), 2)
    # the beginning is the first window, whatever comes behind it
    short = loaded.read("".join(text[: len(text) - len("".join(reading.texts))]) + "".join(reading.texts[:20]))
    np.testing.assert_allclose(short.loss_N[:15], reading.loss_N[:15], atol=1e-5)


def change_weights(path):
    state = load_file(path)
    name = sorted(state)[0]
    save_file(state | {name: state[name] + 1}, path)


def change_tokens(path):
    text = json.loads(path.read_text())
    text["model"]["merges"].reverse()
    path.write_text(json.dumps(text))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("result.json", lambda path: path.unlink(), "its run is not finished"),
        ("recipe.yaml", lambda path: path.unlink(), "holds no recipe.yaml: give a run's folder"),
        ("backbone.safetensors", lambda path: path.unlink(), "lacks backbone.safetensors: python -m duo.run recipe="),
        ("tokenizer.json", lambda path: path.unlink(), "lacks tokenizer.json"),
        ("tokenizer.json", lambda path: path.write_text("{"), "tokenizer.json cannot be read"),
        ("router.safetensors", lambda path: path.write_bytes(b"x"), "router.safetensors cannot be read"),
        ("backbone.safetensors", change_weights, "backbone.safetensors is not the one that result.json is of"),
        ("tokenizer.json", change_tokens, "tokenizer.json is not the one that result.json is of"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_was_made_is_named(run, name, change, said):
    change(run / name)
    with pytest.raises(ValueError, match=said):
        duo.load(run)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"row": "learned"}, "leave out row"), ({"seed": 0, "group": "x"}, "leave out group, seed"),
    ],
)  # fmt: skip
def test_a_run_of_one_router_has_no_rows(finished, about, said):
    with pytest.raises(ValueError, match=said):
        duo.load(finished / "run", **about)


def test_each_seed_of_a_row_is_loaded_from_the_cache(finished, compared):
    loaded = [duo.load(compared, "learned", group="budget.big=1", seed=seed) for seed in (0, 1)]
    alone = duo.load(finished / "run")  # the same recipe as seed 0
    states = [each.router.state_dict() for each in (*loaded, alone)]
    assert all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert duo.load(compared, "learned", group="budget.big=2").router.spec.budget.big == 2


def test_what_was_loaded_says_on_one_line_what_it_is(finished):
    said = repr(loaded := duo.load(finished / "run"))
    assert said.startswith("Loaded(backbone of ")
    assert type(loaded.router).__name__ in said
    assert len(said) < 120


@pytest.mark.parametrize(
    ("row", "about", "said"),
    [
        ("learned", {}, "name a group; there are budget.big=1, budget.big=2"),
        (None, {"group": "budget.big=1"}, "name a row; there are random, learned, broken"),
        ("other", {"group": "budget.big=1"}, "row=other"), ("learned", {"group": "budget.big=3"}, "budget.big=3"),
        ("learned", {"group": "budget.big=1", "seed": 2}, "seed=2: row learned of .* has 0, 1"),
        ("broken", {"group": "budget.big=1"}, "row broken of .* failed: "),
    ],
)  # fmt: skip
def test_a_row_that_is_not_there_is_named_with_those_that_are(compared, row, about, said):
    with pytest.raises(ValueError, match=said):
        duo.load(compared, row, **about)


def test_what_the_cache_has_lost_is_not_trained_again(finished, compared, tmp_path):
    cache = shutil.copytree(finished / "cache", tmp_path / "cache")
    shutil.rmtree(cache / "routers")
    with pytest.raises(ValueError, match="the row's router is not in cache="):
        duo.load(compared, "learned", group="budget.big=1", cache=cache)
    shutil.rmtree(cache / "backbones")
    with pytest.raises(ValueError, match="the row's backbone is not in cache="):
        duo.load(compared, "learned", group="budget.big=1", cache=cache)


def test_an_entry_and_its_backbone_are_loaded_by_the_beginning_of_their_digests(finished, board):
    alone = duo.load(finished / "run").read(TEXT)
    entries = {digest: duo.load(digest[:4], store=board.location) for digest in board.digests("entries")}
    learned = [each for each in entries.values() if type(each.router).__name__ == "SoftmaxBudget"]
    np.testing.assert_allclose(learned[0].read(TEXT).loss_N, alone.loss_N, atol=1e-6)
    backbone = duo.load(board.digests("backbones")[0], store=board.location)
    assert backbone.router is None
    assert backbone.length == 32
    with pytest.raises(ValueError, match="a backbone alone chooses no routes"):
        backbone.read(TEXT)


def test_a_beginning_of_several_digests_names_them(board):
    digest = board.digests("entries")[0]
    twin = digest[:8] + "0" * 56
    entries = Path(board.location) / "entries"
    shutil.copytree(entries / digest, entries / twin)
    with pytest.raises(ValueError, match=f"2 entries and backbones begin with .* there are entries/{digest[:8]}"):
        duo.load(digest[:8], store=board.location)


@pytest.mark.parametrize(
    ("what", "said"),
    [("abcdef0123", "0 entries and backbones begin with 'abcdef0123'"), ("nowhere", "neither a run's folder nor"),
     ("abc", "4 digits or more")],
)  # fmt: skip
def test_what_is_nowhere_is_named(board, what, said):
    with pytest.raises(ValueError, match=said):
        duo.load(what, store=board.location)


def test_a_text_of_one_token_is_named(finished):
    with pytest.raises(ValueError, match="the text has 1 token"):
        duo.load(finished / "run").read("D")


def test_results_are_those_of_the_file(finished):
    table, told = duo.results(finished / "run"), json.loads((finished / "run" / "result.json").read_text())
    row = table.query("row == 'softmax_budget' and holdout == 'held' and part == 'full'").iloc[0]
    score = told["scores"]["held"]
    assert (row.loss, row.share_big, [row.loss_low, row.loss_high]) == (
        score["loss"], score["share"]["big"], score["loss_interval"],
    )  # fmt: skip
    other = told["baselines"]["random"]["held"]
    assert row.minus_random == pytest.approx(score["loss"] - other["loss"])
    assert row.minus_random_low < row.minus_random < row.minus_random_high
    assert {*table.part} == {"full", "subset"}
    assert {*table.query("part == 'subset'").row} == {*told["subset"]} - {"router"} | {"softmax_budget"}


def test_results_of_a_comparison_have_a_line_for_each_row_of_each_group(compared):
    table, told = duo.results(compared), json.loads((compared / "result.json").read_text())
    full = table.query("part == 'full'")
    lines = {(f"budget.big={big}", row) for big in (1, 2) for row in ("random", "learned", "broken")}
    assert {*zip(full.group, full.row, strict=True)} == lines - {("budget.big=1", "broken")}  # it has no numbers
    learned = full.query("row == 'learned' and group == 'budget.big=2'").iloc[0]
    row = told["groups"]["budget.big=2"]["learned"]
    assert (learned.seeds, learned.loss) == (2, row["scores"]["held"]["loss"])
    assert learned.minus_random == pytest.approx(row["beside"]["held"]["minus"]["random"]["value"])


def test_results_of_an_unfinished_run_are_none(run):
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match="its run is not finished"):
        duo.results(run)


def test_the_package_has_no_other_late_names():
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = duo.lod
