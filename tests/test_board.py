"""The board that entries make: tracks, lines over seeds, ranks, gains, and what claims cannot move."""

import csv
import io
import json

import pytest
from forging import entry_of, forged, lower, republished, reseeded
from safetensors.numpy import load, save

from duo.leaderboard.board.board import SUBSET
from duo.leaderboard.board.text import render
from duo.leaderboard.board.tracks import build_board
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
