"""python -m duo.generate: what it prints, where, and what it says of mistakes."""

import io
import re
import shutil
import sys

import pytest
import torch

from duo.generate import main
from duo.inference import Sampling, Written, generate
from duo.recipe import load
from duo.report.written import COLOURS, Screen, Totals, colour_of
from duo.stages.writer import writer_of_recipe

ESCAPES = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture
def write(small, finished, tmp_path, monkeypatch):
    """The command, on the finished run's recipe and cache; its exit status."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main([*small, f"cache={finished}/cache", *map(str, arguments)])


@pytest.fixture
def from_run(finished, tmp_path, monkeypatch):
    """The command, on the finished run's folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main([f"{finished}/run", f"cache={finished}/cache", *map(str, arguments)])


@pytest.fixture(scope="session")
def writer(small, finished):
    """What the command writes with."""
    return writer_of_recipe(load("tiny", small[1:]), finished / "cache", torch.device("cpu"))


def library(writer, prompt, most, **about):
    """What the library writes where the command says nothing."""
    about = {"sampling": Sampling(temperature=0.8, top_p=0.95), "stop_tokens": [0]} | about
    return generate(writer.backbone, writer.router, [prompt], most, tokenizer=writer.tokenizer, **about)[0]


def test_the_command_prints_the_text_of_the_library_and_one_line_apart_from_it(write, writer, capsys):
    expected = library(writer, "Document word1\t", 12)
    assert write("prompt=Document word1\t", "tokens=12") == 0
    out, err = capsys.readouterr()
    assert out == f"Document word1\t{expected.text}\n"
    last = err.splitlines()[-1]
    assert re.match(r"12 tokens, [\d.]+ tokens a second, [\d.]+ MFLOPs a token, skip 0.0 %, small ", last)
    flops = sum(expected.flops_T) / 12 / 1e6
    share = float((expected.weight_TLM[..., 2] != 0).double().mean())
    assert f"{flops:.4g} MFLOPs a token" in last
    assert f"big {100 * share:.1f} %" in last


def test_a_runs_folder_writes_what_its_recipe_does(write, from_run, capsys):
    assert write("prompt=word", "tokens=9", "sampling_seed=3") == 0
    by_recipe = capsys.readouterr().out
    assert from_run("prompt=word", "tokens=9", "sampling_seed=3") == 0
    assert capsys.readouterr().out == by_recipe
    assert from_run("prompt=word", "tokens=9", "sampling_seed=4") == 0
    assert capsys.readouterr().out != by_recipe


def test_options_reach_the_library(write, writer, capsys):
    sampling = Sampling(temperature=1.3, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2)
    free = library(writer, "word", 12, sampling=sampling, seed=5, stop_tokens=[])
    options = ["temperature=1.3", "top_k=40", "top_p=0.9", "min_p=0.01", "repetition_penalty=1.2", "sampling_seed=5"]
    assert write("prompt=word", "tokens=12", *options, "stop_tokens=") == 0
    assert capsys.readouterr().out == f"word{free.text}\n"
    stop = free.text[5:7]
    assert write("prompt=word", "tokens=12", *options, "stop_tokens=", "stop=never", f"stop={stop}") == 0
    out, err = capsys.readouterr()
    assert out == f"word{free.text[: free.text.index(stop)]}\n"
    assert err.endswith("a stop string ended it\n")
    assert write("prompt=word", "tokens=12", *options, f"stop_tokens=1,{free.tokens[4]}") == 0
    assert capsys.readouterr().err.endswith("a stop token ended it\n")


def test_the_prompt_may_come_from_the_standard_input_as_it_is(write, writer, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Für\r\n".encode())))
    assert write("tokens=3") == 0
    assert capsys.readouterr().out.startswith("Für\r\n")
    monkeypatch.setattr(sys, "stdin", None)  # closed, as by <&-
    assert write("tokens=3") == 1
    assert "error: there is no prompt: give prompt=TEXT" in capsys.readouterr().err
    assert write("prompt=", "tokens=3") == 0  # an empty one begins a document
    assert capsys.readouterr().out == f"{library(writer, '', 3).text}\n"


def test_a_check_counts_the_decisions_that_fall_otherwise_in_one_pass(write, capsys):
    assert write("prompt=word", "tokens=6", "check=true") == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"one whole pass: \d+ of \d+ decisions fall otherwise, 0 of them with a margin", last)


def test_a_bound_is_told_before_anything_is_trained(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for router in ("oracle", "best_of_random"):
        assert main([*small, f"cache={tmp_path}/cache", f"router.name={router}", "prompt=word"]) == 1
        assert "consults the labels of the tokens it routes" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_more_than_the_backbone_was_trained_on_is_said(write, capsys):
    assert write("prompt=word", "tokens=40") == 0
    assert "data.tokens=32, and behind that it may write worse" in capsys.readouterr().err
    assert write("prompt=word", "tokens=4") == 0
    assert "write worse" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["temperature=-1"], "temperature=-1.0 must be 0 (greedy) or more"), (["top_p=0"], "top_p=0.0 must be more"),
        (["temperature=hot"], "temperature=hot must be of type float"), (["top_k=0"], "top_k=0 must be 1 or more"),
        (["min_p=2"], "min_p=2.0 must be from 0 to 1"), (["repetition_penalty=0"], "repetition_penalty=0.0"),
        (["tokens=0"], "tokens=0 must be 1 or more"), (["stop="], "stop= is empty"), (["sampling_seed=-1"], "or more"),
        (["stop_tokens=1,x"], "stop_tokens=1,x must be of type int"), (["check=maybe"], "check=maybe"),
        (["prompt=a\udcff"], "prompt 0 is no text in Unicode: '\\udcff' at 1"),
        (["stop_tokens=9999"], "stop_tokens holds the unknown token 9999 at place 0"), (["roter.name=random"], "roter"),
        (["cache=none"], "cache=none would train anew"), (["recipe=compare_budget6"], "compares rows"),
        (["recipe=reproduce"], "compares rows"), (["router.name=oracle"], "consults the labels"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_status_1(write, capsys, arguments, said):
    if arguments[0].startswith("recipe="):  # settings of the small one are not theirs
        assert main([*arguments, "prompt=word"]) == 1
    else:
        assert write("prompt=word", *arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    *before, error = err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert not any("Traceback" in line for line in before)


def test_a_prompt_longer_than_learned_positions_is_one_line(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["backbone.family=opt", "backbone.positions=32", "stage1.steps=2", "stage3.steps=1"]
    assert main([*small, *settings, f"cache={tmp_path}/cache", f"prompt={'word ' * 60}", "tokens=4"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"error: prompt 0 has \d+ tokens, and 4 more .*backbone.positions=32", err.splitlines()[-1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["budget.big=2"], "was calibrated for Budget(big=1, skip=0), not for Budget(big=2, skip=0)"),
        (["router.name=random"], "router cannot differ from what"), (["seed=1"], "seed cannot differ"),
    ],
)  # fmt: skip
def test_a_run_is_not_used_for_what_it_was_not_made_for(from_run, capsys, settings, said):
    assert from_run("prompt=word", *settings) == 1
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_finished_run_is_named(finished, tmp_path, capsys):
    assert main([str(tmp_path), "prompt=word"]) == 1
    assert "holds no recipe.yaml: give a run's folder" in capsys.readouterr().err
    shutil.copytree(finished / "run", tmp_path / "run")
    (tmp_path / "run" / "router.safetensors").unlink()
    assert main([f"{tmp_path}/run", f"cache={finished}/cache", "prompt=word"]) == 1
    assert "lacks router.safetensors: python -m duo.run recipe=" in capsys.readouterr().err


def test_a_runs_folder_writes_where_there_is_no_cache(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([f"{finished}/run", f"cache={tmp_path}/cache", "prompt=word", "tokens=3"]) == 0
    assert capsys.readouterr().out.startswith("word")
    assert not (tmp_path / "cache" / "data").exists()


def test_no_run_or_two_ways_to_name_one_is_exit_status_2(capsys):
    for arguments in ([], ["prompt=x"], ["a", "b"], ["a", "recipe=tiny"]):
        assert main(arguments) == 2
        assert "Which run, or which recipe?" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "leaderboard.backbone=DIGEST" in capsys.readouterr().out


# The screen


class Terminal(io.StringIO):
    """A terminal that knows all colours."""

    def isatty(self):
        return True


def written(text, big, layers=4):
    weight_LM = torch.eye(3)[[2] * big + [1] * (layers - big)]
    return Written(0, 1, text, weight_LM, 10.0, "length")


def test_a_terminal_shows_shares_as_colours_and_obeys_no_control_character(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    screen = Screen()
    screen.show_prompt("[red]é\n")
    screen.show(written("small\x1b[31m\x07", 0))
    screen.show(written(":smile: big", 4))
    screen.end()
    shown = terminal.getvalue()
    for share, text in ((0, "small"), (1, ":smile: big")):
        colour = ";".join(map(str, colour_of(share).color.triplet))
        assert f"\x1b[38;2;{colour}m{text}" in shown
    plain = ESCAPES.sub("", shown)
    assert "\x1b" not in plain
    assert plain.startswith("[red]é\nsmall\ufffd[31m\ufffd:smile: big\nbig modules:  0% ")


def test_a_terminal_shows_wide_and_firm_spaces_and_no_key_to_colours_that_it_does_not_show(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    screen = Screen()
    for text in ("漢\u3000字\xa0é", "\u2009a\x85\u2028\r"):
        screen.show(written(text, 2))
    screen.end()
    assert terminal.getvalue() == "漢\u3000字\xa0é\u2009a\ufffd\ufffd\ufffd\n"


def test_elsewhere_the_text_is_plain_to_the_last_byte(capsys):
    screen = Screen()
    for text in ("a\tb\r\n", "\x1b[31m", "\x0c[bold]é"):
        screen.show(written(text, 2))
    screen.end()
    assert capsys.readouterr().out == "a\tb\r\n\x1b[31m\x0c[bold]é\n"


def test_totals_are_means_over_the_tokens():
    totals = Totals.of([written("a", 1), written("b", 4)._replace(flops=30.0)], 0.5)
    assert (totals.tokens, totals.flops_per_token) == (2, 20.0)
    assert totals.share == {"skip": 0.0, "small": 3 / 8, "big": 5 / 8}
    assert str(totals).startswith("2 tokens, 4.0 tokens a second, 2e-05 MFLOPs a token, skip 0.0 %")
    assert [tuple(colour_of(share).color.triplet) for share in (0, 0.5, 1)] == [COLOURS[0], COLOURS[2], COLOURS[4]]
