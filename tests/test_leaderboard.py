"""The shared leaderboard, as submitters and readers use it."""

import csv
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import command
from forging import board_path, entry_of, forged, lower, republished, reseeded
from safetensors.numpy import load, save

from duo.backbone import BackboneConfig
from duo.leaderboard.__main__ import main
from duo.leaderboard.board.board import SUBSET
from duo.leaderboard.board.text import render
from duo.leaderboard.board.tracks import build_board
from duo.recipe import load as load_recipe
from duo.stages.publish import backbone_head
from duo.stages.published import fetch_backbone
from duo.storage.store import Store


def test_a_run_becomes_entries_with_its_baselines_and_bounds(submitted):
    board = build_board(Store(str(submitted)))
    (track,) = board.tracks
    assert not board.left_out
    kinds = [(line.kind, line.name) for line in track.lines]
    assert [kind for kind, _ in kinds] == ["deployable"] * 3 + ["reference"] * 2 + ["bound"] * 2
    assert {name for _, name in kinds} == {
        "softmax_budget", "random", "fixed_best", "all_small", "all_big", "oracle", "best_of_random"
    }  # fmt: skip
    ranked = [line for line in track.lines if line.rank]
    assert [line.rank for line in ranked] == [1, 2, 3]
    losses = [line.parts["held"].score.loss for line in ranked]
    assert losses == sorted(losses)
    for above, line in zip(ranked, ranked[1:], strict=False):
        standing = line.parts["held"]
        assert standing.above.value == pytest.approx(standing.score.loss - above.parts["held"].score.loss)
        low, high = standing.above.interval
        assert standing.significant == (low > 0 or high < 0)
    assert all(line.status == "claimed" for line in track.lines)


def test_seeds_of_one_recipe_are_one_line_and_average_scores(board):
    digest = forged(board, reseeded(7))
    (line,) = (line for line in build_board(board).tracks[0].lines if digest in line.entries)
    assert line.seeds == [0, 7]
    assert len(line.entries) == 2


def test_what_is_only_claimed_joins_nothing_that_was_executed_again(board):
    honest = entry_of(board)[0]
    board.add("marks", {"entry": honest, "level": "re-executed"}, {})
    before = next(line for line in build_board(board).tracks[0].lines if honest in line.entries)

    def cheat(head, files):
        lower(head, files)
        reseeded(9)(head, files)

    twin = forged(board, lower)
    forged(board, cheat)
    after = build_board(board)
    line = next(line for line in after.tracks[0].lines if honest in line.entries)
    assert (line.seeds, line.parts["held"].score.loss) == ([0], before.parts["held"].score.loss)
    assert any(twin[:12] in said and "of the same recipe, source and seed" in said for said in after.left_out)


def test_seeds_of_a_line_that_were_executed_again_stay_one_line_however_far_each_went(board):
    digests = [entry_of(board)[0], forged(board, reseeded(7))]
    for digest, level in zip(digests, ("re-executed", "retrained"), strict=True):
        board.add("marks", {"entry": digest, "level": level}, {})
    (line,) = (line for line in build_board(board).tracks[0].lines if digests[0] in line.entries)
    assert (line.entries, line.status) == (digests, "re-executed")


def test_claims_stand_behind_what_was_executed_again_and_hide_no_other_claim(board):
    for digest in board.digests("entries"):
        board.add("marks", {"entry": digest, "level": "re-executed"}, {})
    honest = forged(board, reseeded(5))

    def cheat(head, files):
        lower(head, files)
        reseeded(5)(head, files)

    cheats = forged(board, cheat)
    found = build_board(board)
    ranked = [line for line in found.tracks[0].lines if line.rank]
    assert [line.status for line in ranked] == ["re-executed"] * 3 + ["claimed"] * 2
    assert [line.entries for line in ranked[3:]] == [[cheats], [honest]]
    assert found.left_out == []


def test_the_same_weights_under_another_name_rename_no_track(board):
    before, marked = build_board(board).tracks[0], entry_of(board, "random")[0]
    board.add("marks", {"entry": marked, "level": "re-executed"}, {})
    change = republished(board, {"name": "evil", "train_tokens": 1}, parameters=7)
    for name in ("softmax_budget", "fixed_best", "oracle"):
        forged(board, change, name)
    (track,) = build_board(board).tracks
    assert (track.title, track.backbone, track.digest) == (before.title, before.backbone, before.digest)
    assert len(track.lines) == len(before.lines) + 3


def test_a_budget_in_shares_is_the_same_track(board):
    def share(head, files):
        files["recipe.yaml"] = files["recipe.yaml"].replace(b"big: 1.0\n", b"big: 0.5\n")

    digest = forged(board, share)
    (track,) = build_board(board).tracks
    assert track.budget == {"skip": 0, "small": 1, "big": 1}
    assert any(digest in line.entries for line in track.lines)


def test_gaps_on_the_page_are_measured_between_the_lines_of_the_table(board):
    (track,) = build_board(board).tracks
    assert track.baselines == {name: entry_of(board, name)[0] for name in ("fixed_best", "oracle")}
    forged(board, lambda head, _: head["package"].update(name="evil", source="0" * 64), "oracle")
    assert build_board(board).tracks[0].baselines == track.baselines


def test_a_store_that_fails_while_it_is_read_gives_no_board(board, monkeypatch, capsys):
    def fails(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(type(board._files), "cat_file", fails)
    assert main(["show", "--format", "markdown", f"leaderboard.store={board.location}"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "cannot be read: timed out" in said.err


@pytest.mark.parametrize("format", ["table", "markdown", "csv", "json"])
def test_show_says_what_is_left_out_and_each_reason_once(board, format, capsys):
    (published,) = board.digests("backbones")
    path = board_path(board)
    (path / "backbones" / published / "backbone.json").unlink()
    (path / "entries" / entry_of(board)[0] / "recipe.yaml").write_text("changed")
    mark = board.add("marks", {"entry": "0" * 64, "level": "re-executed"}, {})
    assert main(["show", "--format", format, f"leaderboard.store={board.location}"]) == 0
    said = capsys.readouterr()
    told = said.out if format == "table" else said.err
    assert "8 left out\n" in told
    assert re.search(rf"6 times, of \w{{12}}, \w{{12}}, \w{{12}}, ...: backbones/{published[:12]}\S* is missing", told)
    assert "recipe.yaml was changed" in told
    assert f"mark {mark[:12]}: entry 000000000000, which it marks, is not here" in told


def test_all_means_all_that_are_finished(board, tmp_path, capsys):
    for digest in board.digests("entries"):
        (board_path(board) / "entries" / digest / "result.json").unlink()
    for store in (board.location, str(tmp_path)):
        assert main(["verify", "--all", f"leaderboard.store={store}"]) == 1
        assert "there are none yet" in capsys.readouterr().err
        assert main(["show", f"leaderboard.store={store}"]) == 0
        assert "no entry can be shown" in capsys.readouterr().out


def test_runs_that_fetch_one_backbone_at_the_same_time_all_get_it(board, tmp_path):
    (published,) = board.digests("backbones")
    head = backbone_head(board, published)
    config = BackboneConfig(**head.config)
    with ThreadPoolExecutor(8) as pool:
        folders = [*pool.map(lambda _: fetch_backbone(board, published, config, tmp_path)[0], range(24))]
    assert {*folders} == {tmp_path / "backbones" / published[:16]}


def test_another_ones_oracle_moves_nobodys_gap(board):
    def gaps():
        return {line.entries[0]: line.parts[f"held{SUBSET}"].gap_closed for line in build_board(board).tracks[0].lines}

    before = gaps()

    def evil_oracle(head, files):
        head["package"] |= {"name": "evil", "source": "0" * 64}

    forged(board, evil_oracle, "oracle")
    assert {digest: gap for digest, gap in gaps().items() if digest in before} == before


def test_all_formats_agree(submitted):
    board = build_board(Store(str(submitted)))
    plain = json.loads(render(board, "json"))
    rows = [*csv.DictReader(io.StringIO(render(board, "csv")))]
    losses = {
        (line["name"], part): standing["score"]["loss"]
        for line in plain["tracks"][0]["lines"]
        for part, standing in line["parts"].items()
    }
    assert {part for _, part in losses} == {"held", f"held{SUBSET}"}
    assert {(row["name"], row["hold-out"]): float(row["loss"]) for row in rows} == losses
    for text in (render(board, "table"), render(board, "markdown").replace("\\", "")):
        for (name, _), loss in losses.items():
            assert any(name in line and f"{loss:.4f}" in line for line in text.splitlines())


def test_lines_of_one_part_stand_on_the_same_tokens_and_bounds_on_the_subset_alone(submitted):
    (track,) = build_board(Store(str(submitted))).tracks
    assert track.parts == ["held", f"held{SUBSET}"]
    for part in track.parts:
        there = {line.name: line.parts[part] for line in track.lines if part in line.parts}
        assert ("oracle" in there) == (part != "held")
        (ids, *others) = [standing.score.sequences.sequence_B.tolist() for standing in there.values()]
        assert all(other == ids for other in others)
        fixed = there["fixed_best"]
        assert fixed.minus_fixed.value is None
        for standing in there.values():
            if standing is not fixed:
                assert standing.minus_fixed.value == pytest.approx(standing.score.loss - fixed.score.loss)


def test_a_line_that_takes_passes_may_be_of_subsets_alone_and_has_no_rank(board):
    def drop_scores(head, files):
        head["row"]["scores"] = {}
        head["row"]["subset"]["held"]["passes"] = 2.0
        arrays = load(files["sequences.safetensors"])
        files["sequences.safetensors"] = save({key: part for key, part in arrays.items() if key[:6] == "subset"})
        files["recipe.yaml"] = files["recipe.yaml"].replace(b"full_holdout: true", b"full_holdout: false")

    digest = forged(board, drop_scores)
    (line,) = (line for line in build_board(board).tracks[0].lines if digest in line.entries)
    assert (line.kind, line.rank, [*line.parts]) == ("deployable", None, [f"held{SUBSET}"])


@pytest.mark.long
def test_a_published_backbone_gives_the_same_run_without_its_documents(small, finished, submitted, tmp_path):
    (published,) = Store(str(submitted)).digests("backbones")
    sizes = [argument for argument in small if not argument.startswith(("data.source", "data.train=", "data.hold"))]
    again = [f"leaderboard.backbone={published}", f"leaderboard.store={submitted}"]
    printed = command(*sizes, *again, f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert "using the published backbone" in printed
    ours, theirs = (json.loads((folder / "run" / "result.json").read_text()) for folder in (finished, tmp_path))
    assert ours["backbone"]["digest"] == theirs["backbone"]["digest"]
    for part in ("scores", "baselines", "subset"):
        ours[part], theirs[part] = (json.dumps(result[part]) for result in (ours, theirs))
    drop = lambda text: [word for word in text.split(", ") if not re.search("seconds|time", word)]  # noqa: E731
    assert all(drop(ours[part]) == drop(theirs[part]) for part in ("scores", "baselines", "subset"))
    printed = command(*sizes, *again, "backbone.width=32", f"output={tmp_path}/b", f"cache={tmp_path}/cache", check=1)
    assert "has another shape than the recipe says: give backbone.width=16" in printed


def test_an_entry_says_what_it_is_made_of_in_80_columns(board, capsys):
    digest = entry_of(board)[0]
    other = forged(board, reseeded(7))
    board.add("marks", {"entry": digest, "level": "re-executed"}, {})
    assert main(["show", digest[:6], f"leaderboard.store={board.location}"]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    (backbone,), (tokens,) = board.digests("backbones"), board.digests("tokens")
    score = build_board(board).tracks[0].lines[0].parts["held"].score
    for part in (
        digest, backbone, tokens, "softmax_budget, seed 0: deployable, re-executed", f"7 ({other[:8]}, ",
        "stage3.steps=8", "backbone.width=16", "data.tokens=32", f"{score.tokens:,}", "held, subset",
    ):  # fmt: skip
        assert part in said
    assert "skip_scope" not in said  # it is the default
    assert "leaderboard.backbone=" not in said.partition("made by")[0]


def test_a_recipe_takes_a_beginning_for_the_whole_digest(board, tmp_path):
    (published,) = board.digests("backbones")
    at = f"leaderboard.store={board.location}"
    whole, short = (load_recipe("tiny", [f"leaderboard.backbone={name}", at]) for name in (published, published[:4]))
    assert short == whole
    assert short.digest == whole.digest
    assert short.settings == whole.settings
    with pytest.raises(ValueError, match=rf"leaderboard.backbone=0{{9}}: 0 backbones begin .* is {published[:12]}"):
        load_recipe("tiny", ["leaderboard.backbone=000000000", at])
    with pytest.raises(ValueError, match="must be a digest: 64 digits from 0 to f, or its first 4 or more"):
        load_recipe("tiny", ["leaderboard.backbone=abc", at])


def test_mistakes_on_the_command_line_are_told_in_one_line(board, tmp_path, capsys):
    for arguments, said in (
        (["show", f"leaderboard.store={tmp_path}/nowhere"], "there is nothing at leaderboard.store"),
        (["verify", f"leaderboard.store={board.location}"], "which entry"),
        (["verify", "zzz", f"leaderboard.store={board.location}"], "0 entries begin with 'zzz'"),
        (["show", "--track", "zzz", f"leaderboard.store={board.location}"], "no track begins with 'zzz'; there are: "),
    ):
        assert main(arguments) == 1
        assert said in capsys.readouterr().err


def test_the_page_is_written_by_the_command(board, tmp_path, capsys):
    pytest.importorskip("plotly")
    assert main(["page", f"{tmp_path}/site", f"leaderboard.store={board.location}"]) == 0
    assert "softmax_budget" in (tmp_path / "site" / "index.html").read_text()
