"""The shared leaderboard, as submitters and readers use it."""

import csv
import io
import json
import shutil

import pytest
from conftest import command
from forging import entry_of, forged, lower, reseeded

from duo.leaderboard.__main__ import main
from duo.leaderboard.table import rendered
from duo.leaderboard.tracks import board_of
from duo.store import Store


def test_a_run_becomes_entries_with_its_baselines_and_bounds(submitted):
    board = board_of(Store(str(submitted)))
    (track,) = board.tracks
    assert not board.left_out
    kinds = [(line.kind, line.name) for line in track.lines]
    assert [kind for kind, _ in kinds] == ["deployable"] * 3 + ["reference"] * 2 + ["bound"] * 2
    assert {name for _, name in kinds} == {
        "softmax_budget", "random", "fixed_best", "all_small", "all_big", "oracle", "best_of_random"
    }  # fmt: skip
    ranked = [line for line in track.lines if line.rank]
    assert [line.rank for line in ranked] == [1, 2, 3]
    losses = [line.holdouts["held"].loss for line in ranked]
    assert losses == sorted(losses)
    for above, line in zip(ranked, ranked[1:], strict=False):
        standing = line.holdouts["held"]
        assert standing.above.value == pytest.approx(standing.loss - above.holdouts["held"].loss)
        low, high = standing.above.interval
        assert standing.significant == (low > 0 or high < 0)
    assert all(line.status == "claimed" for line in track.lines)


def test_what_was_submitted_says_nothing_of_the_machine_it_ran_on(submitted, finished):
    for path in submitted.rglob("*"):
        if path.is_file():
            assert str(finished).encode() not in path.read_bytes()
            assert b"/root" not in path.read_bytes()
            assert b"/tmp" not in path.read_bytes()


def test_submitting_again_adds_nothing(submitted, finished, board, capsys):
    before = board.digests("entries")
    assert main(["submit", f"{finished}/run", f"leaderboard.store={board.location}", f"cache={finished}/cache"]) == 0
    assert board.digests("entries") == before
    assert "0 entries added" in capsys.readouterr().out


def test_seeds_of_one_recipe_are_one_line_and_averaged(board):
    digest = forged(board, reseeded(7))
    (line,) = (line for line in board_of(board).tracks[0].lines if digest in line.entries)
    assert line.seeds == [0, 7]
    assert len(line.entries) == 2


def test_what_is_only_claimed_joins_nothing_that_was_executed_again(board):
    honest = entry_of(board)[0]
    board.add("marks", {"entry": honest, "level": "re-executed"}, {})
    before = next(line for line in board_of(board).tracks[0].lines if honest in line.entries)

    def cheat(head, files):
        lower(head, files)
        reseeded(9)(head, files)

    forged(board, cheat)
    twin = forged(board, lower)
    after = board_of(board)
    line = next(line for line in after.tracks[0].lines if honest in line.entries)
    assert (line.seeds, line.holdouts["held"].loss) == ([0], before.holdouts["held"].loss)
    assert any(twin[:12] in said and "of the same recipe, source and seed" in said for said in after.left_out)


def test_another_ones_oracle_moves_nobodys_gap(board):
    def gaps():
        return {line.entries[0]: line.holdouts["held"].gap_closed for line in board_of(board).tracks[0].lines}

    before = gaps()

    def evil_oracle(head, files):
        head["package"] |= {"name": "evil", "source": "0" * 64}

    forged(board, evil_oracle, "oracle")
    assert {digest: gap for digest, gap in gaps().items() if digest in before} == before


def test_a_backbone_is_published_once_whatever_it_is_called(finished, board):
    settings = [f"leaderboard.store={board.location}", f"cache={finished}/cache"]
    assert main(["submit", f"{finished}/run", "--backbone", "mine", *settings]) == 0
    assert len(board.digests("backbones")) == 1


def test_all_formats_agree(submitted):
    board = board_of(Store(str(submitted)))
    plain = json.loads(rendered(board, "json"))
    rows = [*csv.DictReader(io.StringIO(rendered(board, "csv")))]
    losses = {line["name"]: line["holdouts"]["held"]["loss"] for line in plain["tracks"][0]["lines"]}
    assert {row["name"]: float(row["loss"]) for row in rows} == losses
    for text in (rendered(board, "table"), rendered(board, "markdown").replace("\\", "")):
        for name, loss in losses.items():
            assert any(name in line and f"{loss:.4f}" in line for line in text.splitlines())


@pytest.mark.long
def test_a_run_that_is_not_finished_or_was_altered_is_refused(finished, tmp_path, board, capsys):
    folder = shutil.copytree(finished / "run", tmp_path / "run")
    settings = [f"leaderboard.store={tmp_path}/new", f"cache={finished}/cache"]
    result = json.loads((folder / "result.json").read_text())
    result["subset"]["router"]["held"]["loss"] = 1.0
    (folder / "result.json").write_text(json.dumps(result))
    main(["submit", str(folder), *settings])
    assert "its recipe gives" in capsys.readouterr().out
    (folder / "result.json").unlink()
    assert main(["submit", str(folder), *settings]) == 1
    assert "holds no finished run" in capsys.readouterr().err
    assert main(["submit", str(tmp_path), *settings]) == 1


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
    drop = lambda text: [word for word in text.split(", ") if "seconds" not in word]  # noqa: E731
    assert all(drop(ours[part]) == drop(theirs[part]) for part in ("scores", "baselines", "subset"))
    printed = command(*sizes, *again, "backbone.width=32", f"output={tmp_path}/b", f"cache={tmp_path}/cache", check=1)
    assert "has another shape than the recipe says: give backbone.width=16" in printed


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
