"""What an entry claims is executed again, and what was altered is named."""

import sys
from dataclasses import replace

import pytest
import torch
from forging import board_path, elsewhere, entry_of, forged, lower, republished, rewritten, setting
from msgspec import structs
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch
from test_figures import toy_comparison

from duo.data.datamodule import TextData
from duo.data.tokens import pair_documents, write
from duo.leaderboard.__main__ import main
from duo.leaderboard.board.tracks import build_board
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.recipe import from_yaml
from duo.leaderboard.verify import differences, verify
from duo.routing import registry
from duo.stages import backbone_source, train_or_load
from duo.stages.score import score_row


def test_what_was_run_again_is_so_from_the_entry_alone(board, capsys):
    digest, _, _ = entry_of(board)
    assert main(["verify", digest[:10], "--mark", f"leaderboard.store={board.location}"]) == 0
    assert "re-executed, verified" in capsys.readouterr().out
    line = next(line for line in build_board(board).tracks[0].lines if digest in line.entries)
    assert line.status == "re-executed"


def test_a_promise_may_be_rounded_otherwise_and_no_other_number():
    (row,) = toy_comparison(["oracle"]).groups[""].values()
    score = row.subset["held"]

    def changed(**values):
        return structs.replace(row, subset={"held": structs.replace(score, **values).made_of(score.sequences)})

    said = changed(promised_loss=4.0)
    assert [*differences(said, changed(promised_loss=4.0 + 1e-8), 0)] == []
    (other,) = differences(said, changed(promised_loss=4.0 + 1e-5), 0)
    assert "promised_loss" in other
    (other,) = differences(said, changed(promised_loss=4.0, loss=score.loss + 1e-8), 0)
    assert ".loss: the entry says" in other


@pytest.mark.long
def test_a_bound_and_a_reference_are_so_too(board):
    for name in ("oracle", "all_big"):
        assert verify(board, entry_of(board, name)[0]).wrong == []


@pytest.mark.long
def test_a_router_that_was_trained_as_its_recipe_says_is_so(board):
    assert verify(board, entry_of(board)[0], retrain=True).wrong == []


FAKED = [
    (lower, "row.scores.held.loss"),
    (elsewhere(lower), "row.scores.held.loss"),
    (elsewhere(rewritten), "loss"),
    (setting("row", "scores", "held", "flops_per_token", value=1000.0), "row.scores.held.flops_per_token"),
    (setting("package", "version", value="99.0"), "package.version"),
]


MORE_FAKED = [
    (setting("row", "scores", "held", "router_flops_per_token", value=0.0), "router_flops_per_token"),
    (setting("row", "scores", "held", "share", value={"skip": 0.0, "small": 0.9, "big": 0.1}), "share.small"),
    (setting("row", "scores", "held", "passes", value=3.0), "row.scores.held.passes"),
    (setting("row", "scores", "held", "loss_interval", value=[1.0, 2.0]), "loss_interval"),
    (setting("row", "learned", value=False), "row.learned"),
]


@pytest.mark.parametrize(
    ("change", "named"), [*FAKED, *(pytest.param(*case, marks=pytest.mark.long) for case in MORE_FAKED)]
)
def test_a_field_that_was_altered_is_named(board, change, named):
    assert any(named in sentence for sentence in verify(board, forged(board, change)).wrong)


def test_an_entry_that_was_changed_where_it_stands_is_named_with_the_field(board, capsys):
    digest, head, _ = entry_of(board)
    path = board_path(board) / "entries" / digest / "result.json"
    path.write_text(path.read_text().replace(f"{head['row']['scores']['held']['flops_per_token']}", "1234.5", 1))
    assert main(["verify", digest, f"leaderboard.store={board.location}"]) == 1
    said = capsys.readouterr().err
    assert "result.json was changed" in said
    assert "row.scores.held.flops_per_token: the entry says 1234.5" in said


@pytest.mark.long
def test_weights_that_are_not_those_of_the_numbers_are_found(board):
    def noise(_, files):
        weights = load_torch(files["router.safetensors"])
        files["router.safetensors"] = save_torch({name: torch.randn_like(value) for name, value in weights.items()})

    assert verify(board, forged(board, noise)).wrong


def test_a_router_that_was_trained_otherwise_is_found_by_training_it_again(board):
    sentences = verify(board, forged(board, lower), retrain=True).wrong
    assert any("trained again by its recipe reaches" in sentence for sentence in sentences)


@pytest.mark.long
def test_a_router_that_was_trained_on_the_holdout_is_so_until_it_is_trained_again(board, tmp_path):
    _, head, files = entry_of(board)
    recipe = from_yaml(files["recipe.yaml"].decode())
    recipe = replace(recipe, leaderboard=replace(recipe.leaderboard, store=board.location))
    source, device = backbone_source(recipe), torch.device("cpu")
    honest = source.open_data(tmp_path / "honest")
    packed = {name: pair_documents(tokens, honest.documents(name)) for name, tokens in honest.packed().items()}
    (tmp_path / "tokens").mkdir()
    write(tmp_path / "tokens", honest.tokenizer, packed | {"train": packed["holdouts.held"]})
    seen = TextData(recipe.data, recipe.backbone.vocabulary, tmp_path / "seen", tmp_path / "tokens")
    seen.setup()
    backbone, router = train_or_load(recipe, source, seen, device)
    row = score_row(recipe, backbone, router, honest)
    weights = (router.folder / "router.safetensors").read_bytes()
    del head["schema"], head["row"]
    digest = entry.add(board, head, row, {"recipe.yaml": files["recipe.yaml"], "router.safetensors": weights})
    assert verify(board, digest).wrong == []
    sentences = verify(board, digest, retrain=True).wrong
    assert any("its weights do not come from its recipe" in sentence for sentence in sentences)


def test_weights_that_were_cut_where_they_stand_are_named(board, capsys):
    digest = entry_of(board)[0]
    path = board_path(board) / "entries" / digest / "router.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert main(["verify", digest, f"leaderboard.store={board.location}"]) == 1
    said = capsys.readouterr().err
    assert "router.safetensors was changed" in said
    assert "router.safetensors is none of the router's" in said


def test_what_a_published_backbone_says_of_its_size_is_checked(board):
    change = republished(board, parameters=7)
    with pytest.raises(ValueError, match="says 7 parameters, it has"):
        verify(board, forged(board, change))


def test_another_source_of_the_router_is_said_beside_whether_the_numbers_come_out_equal(board, capsys):
    digest = forged(board, setting("package", "source", value="0" * 64))
    assert verify(board, digest) == ([], True)
    assert main(["verify", digest, f"leaderboard.store={board.location}"]) == 0
    said = capsys.readouterr().out
    assert "its router's source differs from the one here; the numbers are equal" in said
    assert "re-executed, verified" in said

    def change(head, files):
        head["package"]["source"] = "0" * 64
        lower(head, files)

    digest = forged(board, change)
    assert main(["verify", digest, f"leaderboard.store={board.location}"]) == 1
    said = capsys.readouterr()
    assert "its router's source differs from the one here; the numbers are not equal" in said.out
    assert "row.scores.held.loss" in said.err


def test_a_router_of_another_package_is_not_run(board):
    digest = forged(board, lambda head, _: head["package"].update(name="evil"))
    with pytest.raises(ValueError, match="of package evil"):
        verify(board, digest)


def test_a_damaged_published_backbone_is_found(board, finished, small, tmp_path):
    (published,) = board.digests("backbones")
    path = board_path(board) / "backbones" / published / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"weights.safetensors was changed"):
        verify(board, entry_of(board)[0])


def test_a_package_that_is_not_duos_own_is_not_run_unasked(strangers, board, capsys, monkeypatch):
    known = registry.available()
    monkeypatch.setattr(registry, "available", lambda: known | {"softmax_budget": known["parity"]})
    arguments = ["verify", entry_of(board)[0], f"leaderboard.store={board.location}"]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "this runs code of strange-evaders, which is not duo's own" in said
    assert "give --yes" in said
    for answer, ending in (("n\n", "strange-evaders was not run, and nothing verified"), ("y\n", "of package duo-llm")):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert main(arguments) == 1
        assert ending in capsys.readouterr().err
    assert main([*arguments, "--yes"]) == 1
    assert "install that one" in capsys.readouterr().err


class Terminal:
    """A person who answers."""

    def __init__(self, answer):
        self.readline = lambda: answer

    def isatty(self):
        return True
