"""What the doctor says of a machine, and that nothing makes it crash."""

import io
import sys
from importlib.metadata import EntryPoint

import pytest

from duo.doctor import places, trial
from duo.doctor.__main__ import examine, lines_of, main
from duo.doctor.finding import Finding
from duo.doctor.launch import NUMBERS, WORDS, contradictions, processes
from duo.routing import registry


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """One process on a disk with room, with the cache elsewhere."""
    for name in (*NUMBERS, *WORDS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places, "LEAST", 0)


def test_all_is_well_here_and_nothing_is_left_and_no_secret_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_show")
    monkeypatch.setenv("DUO_LEADERBOARD_STORE", "sftp://me:hidden@host/board")
    assert main([]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert said.endswith("all is well\n")
    for word in ("torch", "duo-llm", "softmax_budget", "LightningEnvironment, process 0 of 1", "home/duo", "utf-8"):
        assert word in said.replace("UTF", "utf")
    assert "do_not_show" not in said
    assert "hidden" not in said
    assert not (tmp_path / "home" / "duo").exists()


def test_a_broken_router_is_named_and_hides_no_other(monkeypatch, tmp_path, capsys):
    (tmp_path / "leaves_at_once.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("gone", "no_such_module:Router", registry.GROUP),
        EntryPoint("leaves", "leaves_at_once:Router", registry.GROUP),
        EntryPoint("random", "routers.random:Random", registry.GROUP),
        EntryPoint("twice", "routers.random:Random", registry.GROUP),
        EntryPoint("twice", "routers.fixed:Fixed", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert main([]) == 1
    report, _, wrong = capsys.readouterr().out.partition("\n3 wrong:\n")
    assert "1 load: random" in report
    gone, leaves, twice = wrong.splitlines()
    assert "router 'gone' of package unknown unknown cannot be imported: ModuleNotFoundError" in gone
    assert "SystemExit: 3" in leaves
    assert "router 'twice' is registered twice" in twice


@pytest.mark.parametrize("place", ["{tmp}/file", "{tmp}/file/deeper", "/proc/nowhere"])
def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path, capsys, place):
    (tmp_path / "file").write_text("in the way")
    folder = place.replace("{tmp}", str(tmp_path))
    assert main([f"cache={folder}"]) == 1
    (sentence,) = capsys.readouterr().out.partition("\n1 wrong:\n")[2].splitlines()
    assert f"cache: {folder} cannot be written" in sentence
    assert sentence.endswith("give cache=DIR")


def test_a_home_that_nobody_knows_is_a_finding(monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert [finding.name for finding in places.folders(None) if finding.wrong] == ["cache"]


def test_a_disk_that_is_almost_full_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "LEAST", 1 << 60)
    assert "GiB free: make room, or give cache=DIR" in places.examine("cache", tmp_path, "give cache=DIR").wrong


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "duo"}
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "duo"}
SHELL = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash"}


@pytest.mark.parametrize("environment", [{}, TORCHRUN, SRUN, BATCH, SHELL, TORCHRUN | SRUN])
def test_what_launchers_set_is_no_contradiction(environment):
    assert [*contradictions(environment)] == []


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"RANK": "0"}, ["RANK=0 is set without WORLD_SIZE"]),
        ({"LOCAL_RANK": "1"}, ["LOCAL_RANK=1 is set without WORLD_SIZE"]),
        ({"WORLD_SIZE": "4"}, ["WORLD_SIZE=4, but no torchrun"]),
        (TORCHRUN | {"RANK": "4"}, ["RANK=4 is none of the WORLD_SIZE=4"]),
        (TORCHRUN | {"RANK": "first"}, ["RANK=first is no whole number: unset RANK"]),
        (TORCHRUN | {"WORLD_SIZE": "-1"}, ["WORLD_SIZE=-1 is no whole number"]),
        ({"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "duo"}, ["SLURM_NTASKS=2, but no srun"]),
        ({"SLURM_PROCID": "0"}, ["SLURM_PROCID=0 is set without SLURM_NTASKS"]),
        (SRUN | {"RANK": "0", "WORLD_SIZE": "1"}, ["RANK=0 and SLURM_PROCID=1 are not the same"]),
    ],
)
def test_variables_that_contradict_one_another_are_named(environment, names):
    found = [*contradictions(environment)]
    assert len(found) == len(names)
    assert all(sentence.startswith(name) for sentence, name in zip(found, names, strict=True))
    assert {finding.wrong for finding in processes(environment)} >= {*found}


def test_a_terminal_that_knows_ascii_alone_is_told_so_and_breaks_nothing(monkeypatch, tmp_path):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert main([f"cache={tmp_path}/Größe"]) == 1
    output.flush()
    said = output.buffer.getvalue().decode("ascii")
    assert r"Gr\xf6\xdfe" in said
    assert said.endswith(
        "1 wrong:\n  the output is in ascii, which lacks signs of the tables: set PYTHONIOENCODING=utf-8\n"
    )


def test_on_a_terminal_a_long_finding_goes_on_below_its_beginning(monkeypatch):
    finding = Finding("duo-llm 0.1.0", "12 load: " + ", ".join(f"router_{number}" for number in range(12)))
    assert "\n" not in lines_of(finding)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    first, *more = lines_of(finding).splitlines()
    assert max(map(len, (first, *more))) < 80
    assert all(line.startswith(" " * 20 + "router_") for line in more)
    assert " ".join(" ".join((first, *more)).split()) == f"{finding.name} {finding.found}"


def test_a_probe_that_fails_ends_no_other():
    def probe():
        yield Finding("first", "is kept")
        raise RuntimeError("odd machine\nvery odd")

    first, second = examine("devices", probe)
    assert first.found == "is kept"
    assert second.wrong == "devices cannot be told: RuntimeError: odd machine; please report it"


def test_the_self_test_finds_a_replay_that_differs_and_weights_that_change(monkeypatch):
    assert [finding.wrong for finding in trial.self_test()] == [""] * 3
    replay = trial.replay
    monkeypatch.setattr(trial, "replay", lambda route_BTL: replay(route_BTL.flip(1)))
    monkeypatch.setattr(trial, "load_weights", lambda *_: None)
    wrong = [finding.wrong for finding in trial.self_test()]
    assert "its replay and the search differ by" in wrong[0]
    assert "weights were saved as" in wrong[2]
