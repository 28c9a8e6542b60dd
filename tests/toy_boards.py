"""Boards to draw: one with a track that hostile strangers wrote, and a large one."""

from msgspec.structs import replace

from duo.evaluation.intervals import Estimate
from duo.evaluation.score import Score
from duo.leaderboard.board.board import Board, Line, Standing, Track

HOSTILE = (
    "<script>window.hacked = 1</script></script><img src=x onerror='window.hacked = 1'><!--<script> & \u2028 ' \" `"
    "<b>b</b><a href='javascript:window.hacked=1'>a</a> $plotly %{x} \ud800 " + "long" * 60
)


def toy_standing(loss, passes=0.0, budget_flops=2e6):
    score = Score(
        loss=loss, loss_interval=(loss - 0.01, loss + 0.02), perplexity=2.0, bits_per_byte=1.0, tokens=4096,
        documents=48, share={"skip": 0.25, "small": 0.25, "big": 0.5}, flops_per_token=2e6 - 1e5 * loss,
        budget_flops_per_token=budget_flops, router_flops_per_token=1e4, within_budget=True, passes=passes,
        labels_consulted=False, seconds_per_token=1e-4, time_ratio=1.1, unexplained_time=passes > 0,
        router_parameters=1000, router_bytes=4000, promised_loss=None,
    )  # fmt: skip
    heat = [[0.0, 0.5], [1.0, 0.25], [0.1, 0.2]]
    return Standing(
        score,
        Estimate(0.02, (0.01, 0.03)),
        True,
        Estimate(loss - 3.4, (loss - 3.41, loss - 3.39)),
        Estimate(0.5, None),
        heat,
    )


def toy_line(name, loss, kind="deployable", rank=None, passes=0.0, budget=2e6, **changes):
    values = {
        "router": name, "options": {"alpha": 10.0, "odd": float("nan")}, "package": "duo-llm 0.1.0",
        "status": "claimed", "seeds": [0, 1], "entries": [f"{name} 0", f"{name} 1"], "note": f"a note on {name}",
        "recipe": f"router: {name}\n",
        "provenance": {"commit": "5b187d3", "command": f"python -m duo.run recipe=of_{name}"},
        "parts": {
            hold: toy_standing(loss + add, passes, budget_flops=budget) for hold, add in (("held", 0), ("other", 1))
        },
    }  # fmt: skip
    return Line(name=name, kind=kind, rank=rank, **values | changes)


def toy_track(title, lines):
    named = {line.name: line.entries[0] for line in lines}
    baselines = {name: named[name] for name in ("fixed_best", "oracle") if name in named}
    backbone, budget = {"digest": "b", "layers": 3}, {"skip": 0.0, "small": 1.0, "big": 2.0}
    return Track(title, title, backbone, budget, ["held", "other"], baselines, lines)


def toy_lines(budget):
    """Four deployable lines, one of them with extra passes, a reference and a bound; losses fall with the budget."""
    shift = 0.2 - budget / 1e7
    losses = {"first": 3.1, "second": 3.2, "costly": 3.3, "fixed_best": 3.4}
    return [
        *(
            toy_line(name, loss + shift, rank=rank, passes=1.5 if name == "costly" else 0.0, budget=budget)
            for rank, (name, loss) in enumerate(losses.items(), 1)
        ),
        toy_line("all big", 2.9 + shift, "reference", budget=budget),
        toy_line("oracle", 2.8 + shift, "bound", budget=budget),
    ]


def toy_board():
    """Two budgets of one backbone, and a track of another with one hostile line."""
    fields = ("router", "package", "note", "recipe", "status")
    hostile = toy_line(
        HOSTILE, 3.0, rank=1, **dict.fromkeys(fields, HOSTILE), options={HOSTILE: HOSTILE}, entries=[HOSTILE],
        provenance={HOSTILE: {HOSTILE: [HOSTILE]}}, parts={HOSTILE: toy_standing(3.0)},
    )  # fmt: skip
    strange = Track(
        "strange",
        HOSTILE,
        {"digest": HOSTILE, HOSTILE: HOSTILE},
        {HOSTILE: 1.0},
        [HOSTILE],
        {HOSTILE: HOSTILE},
        [hostile],
    )
    return Board([toy_track("one", toy_lines(2e6)), toy_track("two", toy_lines(3e6)), strange], [HOSTILE], "run ENTRY")


def large_board(count=2000):
    lines = [toy_line(f"line {place}", 3 + place / 1e4, rank=place + 1) for place in range(count)]
    heat = [[place / 192 for place in range(start, start + 16)] for start in range(0, 192, 16)]
    for line in lines:
        line.parts.update({name: replace(standing, heat=heat) for name, standing in line.parts.items()})
    return Board([toy_track("large", [replace(line, recipe="key: value\n" * 300) for line in lines])], [], "run ENTRY")
