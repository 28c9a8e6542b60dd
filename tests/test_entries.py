"""Entries are other people's files: what cannot be shown is left out, and what they say is text."""

import re

import numpy as np
import pytest
from forging import appended, board_path, entry_of, forged, reseeded, reshaped, setting, shifted
from safetensors.numpy import load, save

from duo.leaderboard.board.text import render
from duo.leaderboard.board.tracks import build_board
from duo.leaderboard.entry import entry
from duo.leaderboard.entry.recipe import from_yaml, strip_command
from duo.leaderboard.page import write_page


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (setting("schema", value=5), "schema"),
        (setting("schema", value=1), "an older form of entries"),
        (setting("row", "budget", "big", value=2), "row.budget"),
        (setting("row", "options", value={"alpha": 3.0}), "row.options"),
        (setting("row", "options", value={"a": "b" * 3000}), "2 KiB"),
        (setting("row", "router", value="random"), "row.router"),
        (setting("row", "digests", "tokens", value="0" * 64), "row.digests"),
        (setting("row", "subset", "held", "tokens", value=7), "tokens=7"),
        (setting("row", "subset", "held", "documents", value=99), "documents=99"),
        (setting("row", "scores", value={}), "not of the same hold-outs|give full_holdout=true"),
        (setting("row", "subset", value={}), "hold-outs"),
        (setting("row", "collapsed", value={}), "hold-outs"),
        (setting("row", "scores", "held", "flops_per_token", value=9e9), "budget that its FLOPs exceed"),
        (setting("row", "scores", "held", "share", value={}), "share"),
        (setting("name", value="a\x1b[2Jb"), "signs that are not printed"),
        (setting("name", value="a\u202eb"), "signs that are not printed"),
        (shifted, "not the published ones"),
        (reshaped, "do not belong together"),
        (lambda _, files: files.update({"recipe.yaml": b"seed: [" * 900}), "recipe.yaml"),
        (setting("row", "scores", "held", "loss", value="4"), "loss"),
        (setting("row", "scores", "held", "loss", value=1.5), "its loss is not that of its sequences"),
        (setting("row", "scores", "held", "within_budget", value=False), "not within the budget"),
        (setting("name", value=""), "name"),
        (setting("surplus", value=1), "surplus"),
        (lambda _, files: files.pop("router.safetensors"), "its files are"),
        (lambda _, files: files.update({"sequences.safetensors": b"short"}), "sequences.safetensors"),
        (lambda _, files: files.update({"recipe.yaml": b"a: 1\n" * 20000}), "larger than 64 KiB"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_shown_is_left_out_with_its_reason_and_the_others_show(board, tmp_path, change, reason):
    shown = len(build_board(board).tracks[0].lines)
    digest = forged(board, change)
    found = build_board(board)
    assert len(found.tracks[0].lines) == shown
    (sentence,) = found.left_out
    assert sentence.startswith(digest[:12])
    assert re.search(reason, sentence)
    assert sentence in render(found, "table").replace("\n", " ")
    assert write_page(found, tmp_path).exists()


BOMB = "\n".join(f"b{place}: &b{place} [{', '.join([f'*b{place - 1}'] * 9)}]" for place in range(1, 10))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x: 2020-01-01", "date where only plain values"),
        ("x: !!binary aGVsbG8=", "bytes where only plain values"),
        ("x: {1: 2, a: 3}", "dict where only plain values"),
        ("x: &a [*a]", "alias"),
        (f"b0: &b0 [0]\n{BOMB}", "alias"),
        (f"x: 0x{'f' * 20000}", "too large"),
        (f"seed: 0x{'f' * 20000}", "too large"),
        ("x: .nan", "not finite"),
        ("x: 1", "'x'"),
        ("base: /etc/evil.yaml", "'base'"),
        ("base: tiny", "'base'"),
        ("trainer: [x]", "trainer: ['x']"),
        ("stage1: {learning_rate: 0.006}", "'stage1.learning_rate'"),
        ("output: ../victim", "'output'"),
        ("cache: ../victim", "'cache'"),
        ("x: ${oc.env:HOME}", "interpolation"),
        ("trainer: {default_root_dir: ../victim}", "trainer.default_root_dir"),
        ("data: {source: files, train: ['/etc/*']}", "'data.source'"),
        ("null_draws: 3", "'null_draws'"),
        ("backbone: {seed: 3}", "'backbone.seed'"),
    ],
)
def test_a_recipe_that_no_submission_makes_is_left_out_and_the_others_show(board, tmp_path, text, reason):
    digest = forged(board, appended(f"{text}\n"))
    found = build_board(board)
    (sentence,) = found.left_out
    assert sentence.startswith(digest[:12])
    assert reason in sentence
    assert len(found.tracks[0].lines) == 7
    for format in ("table", "markdown", "csv", "json"):
        assert render(found, format)
    assert write_page(found, tmp_path).exists()


def test_an_entry_without_its_weights_is_left_out(board):
    digest = entry_of(board)[0]
    (board_path(board) / "entries" / digest / "router.safetensors").unlink()
    assert build_board(board).left_out == [f"{digest[:12]}: entries/{digest[:12]}/router.safetensors is missing"]


def test_costs_too_large_to_add_up_are_left_out(board):
    forged(board, setting("row", "scores", "held", "seconds_per_token", value=1.7e308))
    assert "seconds_per_token" in build_board(board).left_out[0]


def test_numbers_that_are_none_are_left_out(board):
    def nan(_, files):
        sequences = load(files["sequences.safetensors"])
        sequences["scores/held/loss_ZB"][0, 0] = np.nan
        files["sequences.safetensors"] = save(sequences)

    forged(board, nan)
    assert "no number" in build_board(board).left_out[0]


def test_half_an_entry_is_not_shown_but_said(board):
    path = board_path(board) / "entries" / ("0" * 64)
    path.mkdir()
    (path / "recipe.yaml").write_text("a: 1\n")
    found = build_board(board)
    assert len(found.tracks[0].lines) == 7
    (sentence,) = found.left_out
    assert sentence.startswith("000000000000: it is being written, or whoever wrote it was stopped")


def test_seeds_that_do_not_go_together_are_left_out_and_the_others_show(board):
    def cheat(head, files):
        for seeded in head["row"]["scores"].values():
            seeded["bits_per_byte"] = None
        reseeded(8)(head, files)

    shown = len(build_board(board).tracks[0].lines)
    digest = forged(board, cheat)
    found = build_board(board)
    assert len(found.tracks[0].lines) == shown - 1
    assert digest[:12] in found.left_out[0]
    assert "seeds do not go together" in found.left_out[0]


HOSTILE = "<script>alert(1)</script> | [x](javascript:1) `a` =cmd"


def test_names_are_text_in_every_format(board):
    forged(board, lambda head, files: (head.update(name=HOSTILE), head["package"].update(source="2" * 64)))
    forged(
        board,
        lambda head, files: (
            head.update(name="=1+1"),
            reseeded(9)(head, files),
            head["package"].update(source="1" * 64),
        ),
    )
    found = build_board(board)
    markdown = render(found, "markdown")
    assert "<script>" not in markdown
    assert "&lt;script&gt;alert" in markdown
    assert "](javascript" not in markdown
    counts = {line.count("|") - line.count("\\|") for line in markdown.splitlines() if line.startswith("|")}
    assert len(counts) == 1
    assert "'=1+1" in render(found, "csv")


def test_what_an_entry_says_of_its_recipe_is_read_without_the_environment_or_other_files(board):
    _, _, files = entry_of(board)
    text = files["recipe.yaml"].decode()
    assert from_yaml(text)
    for bad in ("output: ${oc.env:HOME}\n", "base: ../../secret.yaml\n", "!!python/object:os.system {}\n"):
        with pytest.raises(ValueError, match=r"recipe.yaml|interpolation"):
            from_yaml(text.replace("base: first\n", bad))
    with pytest.raises(ValueError, match="not that of a published backbone: it says 'data.source'"):
        from_yaml(text.replace("data:\n", "data:\n  source: files\n  train: [/etc/passwd]\n"))
    with pytest.raises(ValueError, match="recipe.yaml lacks seed"):
        from_yaml(re.sub(r"(?m)^seed: 0\n", "", text))
    for younger in ("  skip: 0.0\n", "  learning_rate: 0.01\n", "  norm_epsilon: 1.0e-05\n"):
        assert younger in text  # an entry that is older than a key reads as before the key existed
        assert from_yaml(text.replace(younger, "", 1)) == from_yaml(text)


PLACES = [
    "see /home/me/notes", "C:\\Users\\me", "token=/etc/secret/key", "//home/me", "PATH:/root/x", "/.ssh/id_rsa",
    "~root/x", "~/x", "D:/Users/me",
]  # fmt: skip
KEYS = ["hf_" + "aB3" * 10, "sk-" + "aB3" * 10, "AKIA" + "A1" * 8, "ghp_" + "aB3" * 12, "-----BEGIN PRIVATE KEY-----"]
NEITHER = ["https://example.org/a/b", "3 tokens/s and/or 2", "a </b> tag", "1 / 2", "see ./here", "disk_usage"]


@pytest.mark.parametrize("words", NEITHER)
def test_words_that_only_look_like_a_place_or_a_key_are_fine(board, words):
    _, head, files = entry_of(board)
    files.pop("sequences.safetensors")
    row = entry.read(board, board.digests("entries")[0]).row
    assert entry.add(board, {**head, "note": words}, row, files)


@pytest.mark.parametrize("words", [*PLACES, *KEYS])
def test_a_place_on_ones_machine_or_a_key_reaches_no_entry(board, words):
    _, head, files = entry_of(board)
    files.pop("sequences.safetensors")
    row = entry.read(board, board.digests("entries")[0]).row
    before = board.digests("entries")
    with pytest.raises(ValueError, match="names a place on this machine|looks like a key"):
        entry.add(board, {**head, "note": words}, row, files)
    assert board.digests("entries") == before


def test_commands_lose_what_belongs_to_one_machine():
    said = "python -m duo.run recipe=/home/me/x.yaml output=/home/me/o cache=c data.train='[/home/me/*.txt]' seed=3"
    assert strip_command(said) == "python -m duo.run recipe=x.yaml seed=3"


def test_reading_entries_runs_no_code_of_theirs(board, monkeypatch):
    monkeypatch.setattr("importlib.metadata.EntryPoint.load", lambda point: pytest.fail(f"{point} was loaded"))
    forged(board, lambda head, _: head["package"].update(source="0" * 64))
    render(build_board(board), "table")
    assert entry.read(board, board.digests("entries")[0])
