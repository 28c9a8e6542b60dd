"""The shared leaderboard, as submitters and readers use it."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command
from safetensors.numpy import load, save
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from duo.intervals import mean_interval
from duo.leaderboard import entry
from duo.leaderboard.__main__ import main
from duo.leaderboard.canonical import from_yaml, public_command
from duo.leaderboard.page import page
from duo.leaderboard.table import rendered
from duo.leaderboard.tracks import board_of
from duo.leaderboard.verify import verify
from duo.store import Store


def quiet(*_):
    """What says nothing."""


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """A finished run of the learned router, and its cache."""
    folder = tmp_path_factory.mktemp("leaderboard")
    command(*small, f"output={folder}/run", f"cache={folder}/cache")
    return folder


@pytest.fixture(scope="module")
def submitted(run):
    """The store that the run was submitted to."""
    settings = [f"leaderboard.store={run}/board", f"cache={run}/cache"]
    assert main(["submit", f"{run}/run", "--note", "<b>ours</b> | the first", *settings]) == 0
    return run / "board"


@pytest.fixture
def board(submitted, tmp_path):
    """A store of one's own with the same content."""
    return Store(str(shutil.copytree(submitted, tmp_path / "board")))


def entry_of(store, name="softmax_budget"):
    """The digest, head and files of an entry by its name."""
    for digest in store.digests("entries"):
        head = store.head("entries", digest)
        if head["name"] == name:
            files = {file: store.file("entries", digest, file, head) for file in head["files"]}
            head.pop("files")
            return digest, head, files
    raise AssertionError(name)


def forged(store, change, name="softmax_budget"):
    """Adds a copy of an entry in which `change(head, files)` has altered something; returns its digest."""
    _, head, files = entry_of(store, name)
    change(head, files)
    return store.add("entries", head, files)


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


def test_what_was_submitted_says_nothing_of_the_machine_it_ran_on(submitted, run):
    for path in submitted.rglob("*"):
        if path.is_file():
            assert str(run).encode() not in path.read_bytes()
            assert b"/root" not in path.read_bytes()
            assert b"/tmp" not in path.read_bytes()


def test_submitting_again_adds_nothing(submitted, run, board, capsys):
    before = board.digests("entries")
    assert main(["submit", f"{run}/run", f"leaderboard.store={board.location}", f"cache={run}/cache"]) == 0
    assert board.digests("entries") == before
    assert "0 entries added" in capsys.readouterr().out


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


def lower(head, files):
    sequences = load(files["sequences.safetensors"])
    for part in ("scores", "subset"):
        sequences[f"{part}/held/loss_N"] = sequences[f"{part}/held/loss_N"] - 1
        score, tokens_N = head["row"][part]["held"], sequences[f"{part}/held/tokens_N"]
        score["loss"] = float(sequences[f"{part}/held/loss_N"].sum() / tokens_N.sum())
        score["loss_interval"] = mean_interval(sequences[f"{part}/held/loss_N"], tokens_N)
    files["sequences.safetensors"] = save(sequences)


def setting(*path, value):
    """A change of one field of the head."""

    def change(head, _):
        for key in path[:-1]:
            head = head[key]
        head[path[-1]] = value

    return change


def elsewhere(change):
    """The same change in an entry that claims to come from another machine, where rounding is forgiven."""

    def changed(head, files):
        change(head, files)
        head["provenance"]["device"] = "a machine far away"

    return changed


def rewritten(head, files):
    """Losses per sequence of another router, with the same sum."""
    sequences = load(files["sequences.safetensors"])
    loss_N = sequences["scores/held/loss_N"]
    loss_N[: len(loss_N) // 2 * 2 : 2] += 3
    loss_N[1 : len(loss_N) // 2 * 2 : 2] -= 3
    files["sequences.safetensors"] = save(sequences)


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


def test_another_source_of_the_router_is_said_and_not_run(board):
    digest = forged(board, setting("package", "source", value="0" * 64))
    with pytest.raises(ValueError, match="its source differs; install that one"):
        verify(board, digest, quiet)
    digest = forged(board, lambda head, _: head["package"].update(name="evil"))
    with pytest.raises(ValueError, match="of package evil"):
        verify(board, digest, quiet)


def shifted(head, files):
    sequences = load(files["sequences.safetensors"])
    for name in sequences:
        if name.endswith("sequence_N"):
            sequences[name] = sequences[name] + 1
    files["sequences.safetensors"] = save(sequences)


def reshaped(head, files):
    sequences = load(files["sequences.safetensors"])
    sequences["scores/held/loss_N"] = sequences["scores/held/loss_N"][:, None].copy()
    files["sequences.safetensors"] = save(sequences)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (setting("schema", value=2), "schema"),
        (setting("row", "budget", "big", value=2), "row.budget"),
        (setting("row", "options", value={"alpha": 3.0}), "row.options"),
        (setting("row", "options", value={"a": "b" * 3000}), "2 KiB"),
        (setting("row", "router", value="random"), "row.router"),
        (setting("row", "digests", "tokens", value="0" * 64), "row.digests"),
        (setting("row", "subset", "held", "tokens", value=7), "tokens=7"),
        (setting("row", "scores", value={}), "not of the same hold-outs|give whole=true"),
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
    shown = len(board_of(board).tracks[0].lines)
    digest = forged(board, change)
    found = board_of(board)
    assert len(found.tracks[0].lines) == shown
    (sentence,) = found.left_out
    assert sentence.startswith(digest[:12])
    assert re.search(reason, sentence)
    assert sentence in rendered(found, "table").replace("\n", " ")
    assert page(found, tmp_path).exists()


def test_numbers_that_are_none_are_left_out(board):
    def nan(_, files):
        sequences = load(files["sequences.safetensors"])
        sequences["scores/held/loss_N"][0] = np.nan
        files["sequences.safetensors"] = save(sequences)

    forged(board, nan)
    assert "no number" in board_of(board).left_out[0]


def test_half_an_entry_is_not_seen(board):
    path = board_path(board) / "entries" / ("0" * 64)
    path.mkdir()
    (path / "recipe.yaml").write_text("a: 1\n")
    assert board_of(board).left_out == []


def board_path(board):
    return Path(board.location)


def reseeded(seed):
    """A change of an entry's seed."""

    def change(_, files):
        files["recipe.yaml"] = re.sub(rb"(?m)^seed: 0$", b"seed: %d" % seed, files["recipe.yaml"])

    return change


def test_seeds_of_one_recipe_are_one_line_and_averaged(board):
    digest = forged(board, reseeded(7))
    (line,) = (line for line in board_of(board).tracks[0].lines if digest in line.entries)
    assert line.seeds == [0, 7]
    assert len(line.entries) == 2


def test_seeds_that_do_not_go_together_are_left_out_and_the_others_show(board):
    def cheat(head, files):
        for seeded in head["row"]["scores"].values():
            seeded["bits_per_byte"] = None
        reseeded(8)(head, files)

    shown = len(board_of(board).tracks[0].lines)
    digest = forged(board, cheat)
    found = board_of(board)
    assert len(found.tracks[0].lines) == shown - 1
    assert digest[:12] in found.left_out[0]
    assert "seeds do not go together" in found.left_out[0]


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


def test_a_backbone_is_published_once_whatever_it_is_called(run, board):
    main(["submit", f"{run}/run", "--backbone", "mine", f"leaderboard.store={board.location}", f"cache={run}/cache"])
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
    found = board_of(board)
    markdown = rendered(found, "markdown")
    assert "<script>" not in markdown
    assert "&lt;script&gt;alert" in markdown
    assert "](javascript" not in markdown
    counts = {line.count("|") - line.count("\\|") for line in markdown.splitlines() if line.startswith("|")}
    assert len(counts) == 1
    assert "'=1+1" in rendered(found, "csv")


def test_what_an_entry_says_of_its_recipe_is_read_without_the_environment_or_other_files(board):
    _, _, files = entry_of(board)
    text = files["recipe.yaml"].decode()
    assert from_yaml(text)
    for bad in ("output: ${oc.env:HOME}\n", "base: ../../secret.yaml\n", "!!python/object:os.system {}\n"):
        with pytest.raises(ValueError, match=r"recipe.yaml|interpolation"):
            from_yaml(bad + text)
    with pytest.raises(ValueError, match="not resolved for a published backbone"):
        from_yaml(
            text.replace("train: []", "train: [/etc/passwd]")
            .replace("source: builtin", "source: files")
            .replace("holdouts: {}", "holdouts: {a: [/etc/passwd]}")
        )


@pytest.mark.long
def test_a_run_that_is_not_finished_or_was_altered_is_refused(run, tmp_path, board, capsys):
    folder = shutil.copytree(run / "run", tmp_path / "run")
    settings = [f"leaderboard.store={tmp_path}/new", f"cache={run}/cache"]
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
def test_a_published_backbone_gives_the_same_run_without_its_documents(small, run, submitted, tmp_path):
    (published,) = Store(str(submitted)).digests("backbones")
    sizes = [argument for argument in small if not argument.startswith(("data.source", "data.train=", "data.hold"))]
    again = [f"leaderboard.backbone={published}", f"leaderboard.store={submitted}"]
    printed = command(*sizes, *again, f"output={tmp_path}/run", f"cache={tmp_path}/cache")
    assert "using the published backbone" in printed
    ours, theirs = (json.loads((folder / "run" / "result.json").read_text()) for folder in (run, tmp_path))
    assert ours["backbone"]["digest"] == theirs["backbone"]["digest"]
    for part in ("scores", "baselines", "subset"):
        ours[part], theirs[part] = (json.dumps(result[part]) for result in (ours, theirs))
    drop = lambda text: [word for word in text.split(", ") if "seconds" not in word]  # noqa: E731
    assert all(drop(ours[part]) == drop(theirs[part]) for part in ("scores", "baselines", "subset"))
    printed = command(*sizes, *again, "backbone.width=32", f"output={tmp_path}/b", f"cache={tmp_path}/cache", check=1)
    assert "has another shape than the recipe says: give backbone.width=16" in printed


@pytest.mark.parametrize("words", ["see /home/me/notes", "C:\\Users\\me", "token=/etc/secret/key"])
def test_a_place_on_ones_machine_reaches_no_entry(board, words):
    _, head, files = entry_of(board)
    files.pop("sequences.safetensors")
    row = entry.read(board, board.digests("entries")[0]).row
    before = board.digests("entries")
    with pytest.raises(ValueError, match="names a place on this machine"):
        entry.add(board, {**head, "note": words}, row, files)
    assert board.digests("entries") == before


def test_commands_lose_what_belongs_to_one_machine():
    said = "python -m duo.run recipe=/home/me/x.yaml output=/home/me/o cache=c data.train='[/home/me/*.txt]' seed=3"
    assert public_command(said) == "python -m duo.run recipe=x.yaml seed=3"


def test_a_damaged_published_backbone_is_found(board, run, small, tmp_path):
    (published,) = board.digests("backbones")
    path = board_path(board) / "backbones" / published / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"weights.safetensors was changed"):
        verify(board, entry_of(board)[0], quiet)


def test_reading_entries_runs_no_code_of_theirs(board, monkeypatch):
    monkeypatch.setattr("importlib.metadata.EntryPoint.load", lambda point: pytest.fail(f"{point} was loaded"))
    forged(board, lambda head, _: head["package"].update(source="0" * 64))
    rendered(board_of(board), "table")
    assert entry.read(board, board.digests("entries")[0])


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
