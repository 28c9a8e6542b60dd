"""What an entry claims is executed again, and what was altered is named."""

from dataclasses import replace

import pytest
import torch
from forging import board_path, elsewhere, entry_of, forged, lower, quiet, republished, rewritten, setting
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from duo import stages
from duo.data.datamodule import TextData
from duo.data.tokens import write
from duo.leaderboard.__main__ import main
from duo.leaderboard.board.tracks import board_of
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.recipe import from_yaml
from duo.leaderboard.verify import verify


def test_what_was_run_again_is_so_from_the_entry_alone(board, capsys):
    digest, _, _ = entry_of(board)
    assert main(["verify", digest[:10], "--mark", f"leaderboard.store={board.location}"]) == 0
    assert "re-executed, and it is so" in capsys.readouterr().out
    line = next(line for line in board_of(board).tracks[0].lines if digest in line.entries)
    assert line.status == "re-executed"


@pytest.mark.long
def test_a_bound_and_a_reference_are_so_too(board):
    for name in ("oracle", "all_big"):
        assert verify(board, entry_of(board, name)[0], quiet) == []


@pytest.mark.long
def test_a_router_that_was_trained_as_its_recipe_says_is_so(board):
    assert verify(board, entry_of(board)[0], quiet, retrain=True) == []


FAKED = [
    (lower, "row.scores.held.loss"),
    (elsewhere(lower), "row.scores.held.loss"),
    (elsewhere(rewritten), "loss"),
    (setting("row", "scores", "held", "flops_per_token", value=1000.0), "row.scores.held.flops_per_token"),
    (setting("package", "version", value="99.0"), "package.version"),
]


MORE_FAKED = [
    (setting("row", "scores", "held", "deciding_flops_per_token", value=0.0), "deciding_flops_per_token"),
    (setting("row", "scores", "held", "share", value={"skip": 0.0, "small": 0.9, "big": 0.1}), "share.small"),
    (setting("row", "scores", "held", "passes", value=3.0), "row.scores.held.passes"),
    (setting("row", "scores", "held", "loss_interval", value=[1.0, 2.0]), "loss_interval"),
    (setting("row", "learned", value=False), "row.learned"),
]


@pytest.mark.parametrize(
    ("change", "named"), [*FAKED, *(pytest.param(*case, marks=pytest.mark.long) for case in MORE_FAKED)]
)
def test_a_field_that_was_altered_is_named(board, change, named):
    assert any(named in sentence for sentence in verify(board, forged(board, change), quiet))


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

    assert verify(board, forged(board, noise), quiet)


def test_a_router_that_was_trained_otherwise_is_found_by_training_it_again(board):
    sentences = verify(board, forged(board, lower), quiet, retrain=True)
    assert any("trained again by its recipe reaches" in sentence for sentence in sentences)


@pytest.mark.long
def test_a_router_that_was_trained_on_the_holdout_is_so_until_it_is_trained_again(board, tmp_path):
    _, head, files = entry_of(board)
    recipe = from_yaml(files["recipe.yaml"].decode())
    recipe = replace(recipe, leaderboard=replace(recipe.leaderboard, store=board.location))
    honest = stages.data_of(recipe, tmp_path / "honest")
    packed = honest.packed()
    (tmp_path / "tokens").mkdir()
    write(tmp_path / "tokens", honest.tokenizer, packed | {"train": packed["holdouts.held"]})
    seen = TextData(recipe.data, recipe.backbone.vocabulary, tmp_path / "seen", tmp_path / "tokens")
    seen.setup()
    backbone, router = stages.made(recipe, seen, quiet)
    row = stages.scored(recipe, backbone, router, honest, quiet)
    weights = (router.folder / "router.safetensors").read_bytes()
    del head["schema"], head["row"]
    digest = entry.add(board, head, row, {"recipe.yaml": files["recipe.yaml"], "router.safetensors": weights})
    assert verify(board, digest, quiet) == []
    sentences = verify(board, digest, quiet, retrain=True)
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
        verify(board, forged(board, change), quiet)


def test_another_source_of_the_router_is_said_and_not_run(board):
    digest = forged(board, setting("package", "source", value="0" * 64))
    with pytest.raises(ValueError, match="its source differs; install that one"):
        verify(board, digest, quiet)
    digest = forged(board, lambda head, _: head["package"].update(name="evil"))
    with pytest.raises(ValueError, match="of package evil"):
        verify(board, digest, quiet)


def test_a_damaged_published_backbone_is_found(board, finished, small, tmp_path):
    (published,) = board.digests("backbones")
    path = board_path(board) / "backbones" / published / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"weights.safetensors was changed"):
        verify(board, entry_of(board)[0], quiet)
