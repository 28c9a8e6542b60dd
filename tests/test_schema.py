"""The documented form of a run's folder is the form that runs have."""

import json
import re

import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator
from msgspec import structs
from safetensors import safe_open
from test_figures import toy_comparison

from duo.evaluation.comparison import Comparison
from duo.evaluation.downstream import Accuracy, Downstream, TaskRow
from duo.evaluation.format import SCHEMA, save_struct
from duo.evaluation.result import Result
from duo.evaluation.row import Beside, Row
from duo.evaluation.score import Score
from duo.report.schema import KINDS, result_schema, schema_text, structs_in

PAGE = (ROOT / "docs" / "results.md").read_text()
CHECK = Draft202012Validator(result_schema())


def test_the_schema_that_is_shipped_is_that_of_what_is_written():
    assert (ROOT / "docs" / "result.schema.json").read_text() == schema_text(), "type: make schema"
    Draft202012Validator.check_schema(json.loads(schema_text()))


def test_every_field_has_a_sentence():
    for name, part in result_schema()["$defs"].items():
        assert all("description" in field for field in part["properties"].values()), name


def test_results_of_each_kind_have_the_form(finished, tmp_path):
    told = {"run": json.loads((finished / "run" / "result.json").read_text())}
    accuracy = {"arc": {"acc": Accuracy(0.5, None)}}
    row = TaskRow("oracle", {}, {"skip": 0.0, "small": 1.0, "big": 1.0}, accuracy, accuracy)
    made = {
        "rows": toy_comparison(["a", "b"], ("x=1", "x=2")),
        "tasks": Downstream("d", "0" * 64, {"digest": "0" * 64}, {"arc": {"questions": 2}}, {"all_big": row}, {}),
    }
    for name, result in made.items():
        save_struct(result, tmp_path, f"{name}.json")
        told[name] = json.loads((tmp_path / f"{name}.json").read_text())
    for name, result in told.items():
        assert not [*CHECK.iter_errors(result)], name


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.pop("schema"), lambda told: told.update(schema=SCHEMA - 1), lambda told: told.pop("scores"),
        lambda told: told["scores"]["held"].update(loss="4.5"), lambda told: told["scores"]["held"].pop("share"),
        lambda told: told["scores"]["held"].update(los=4.5), lambda told: told["scores"]["held"].update(documents=0),
        lambda told: told["gap_closed"]["held"].update(interval=[0.1]), lambda told: told.update(foreign="held"),
    ],
)  # fmt: skip
def test_what_has_another_form_is_noticed(finished, change):
    told = json.loads((finished / "run" / "result.json").read_text())
    change(told)
    assert [*CHECK.iter_errors(told)]


def test_the_page_names_every_field_and_nothing_else():
    fields = {field.name for kind in {*structs_in(KINDS)} for field in structs.fields(kind)}
    assert not {name for name in fields if f"`{name}`" not in PAGE}
    for kind, title in (
        (Result, "A run of one router"),
        (Comparison, "A comparison"),
        (Row, "A row"),
        (Score, "A score"),
    ):
        table = PAGE.partition(f"**{title}** (`{kind.__name__}`)")[2].partition("|---|---|")[2].partition("\n\n")[0]
        named = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}
        assert named == {field.name for field in structs.fields(kind)}, title
    assert all(f"`{field.name}`" in PAGE for field in structs.fields(Beside))
    assert f"`this one writes {SCHEMA}`" in PAGE


def test_the_page_names_every_file_of_a_run(finished):
    named = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## A run's folder")[2].partition("## ")[0], re.MULTILINE)
    named = [re.escape(name).replace("version_N", r"version_\d+").replace(r"\*", "[^/]+") for name in named]
    for path in (finished / "run").rglob("*"):
        place = path.relative_to(finished / "run").as_posix()
        assert path.is_dir() or any(re.match(f"{name}$" if name[-1] != "/" else name, place) for name in named), place


def test_the_page_names_every_array(finished):
    named = {*re.findall(r"`(\w+)`", PAGE.partition("| array | shape")[2].partition("\n\n")[0])}
    with safe_open(finished / "run" / "sequences.safetensors", "numpy") as file:
        places = [key.split("/") for key in file.keys()]  # noqa: SIM118 # it is no dict
    assert {place[-1] for place in places} <= named
    told = json.loads((finished / "run" / "result.json").read_text())
    for *names, _ in places:
        score = told
        for name in names:
            score = score[name]
        assert "loss_interval" in score


def test_the_page_names_every_weight_of_a_backbone(finished):
    listed = PAGE.partition("| name in `backbone.safetensors`")[2].partition("\n\n")[0]
    named = set()
    for name in re.findall(r"`([\w.{},]+)`", listed):
        head, _, rest = name.partition("{")
        inside, _, tail = rest.partition("}")
        named |= {f"{head}{part}{tail}" for part in inside.split(",")}
    with safe_open(finished / "run" / "backbone.safetensors", "numpy") as file:
        assert {re.sub(r"blocks\.\d+", "blocks.L", key) for key in file.keys()} <= named  # noqa: SIM118


def test_the_pages_example_runs(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(re.sub(r'"outputs/router_budget6-\w+"', '"run"', script), {})
    assert "softmax_budget" in capsys.readouterr().out
