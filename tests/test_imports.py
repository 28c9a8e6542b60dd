"""Imports point down."""

import ast
import re

from conftest import ROOT

import duo

ORDER = [  # a folder imports from its own line or from lines below, a command from all that stand below it
    {
        "run",
        "plan",
        "cache",
        "compare",
        "convert",
        "difficulty",
        "generate",
        "leaderboard",
        "lm_eval",
        "plugins",
        "doctor",
        "sweep",
        "kept",
    },
    {"report"},
    {"stages"},
    {"recipe", "testing"},
    {"training", "evaluation", "inference"},
    {"routing"},
    {"search"},
    {"backbone", "data", "storage", "progress"},
]


def imported(path):
    """Parts of duo that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("duo", "routers"):
            rest = node.module.split(".")[1:2]
            yield from rest or [alias.name for alias in node.names]
            if node.module.startswith("routers"):
                yield "routers"
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("routers"))


def test_imports_point_down():
    level = {name: index for index, names in enumerate(ORDER) for name in names}
    files = {path: path.relative_to(ROOT / "duo").parts[0].removesuffix(".py") for path in (ROOT / "duo").rglob("*.py")}
    assert {*files.values()} - {"__init__"} == {*level}
    for path, part in files.items():
        for other in imported(path):
            if part != "__init__" and other in level and other != part:
                assert level[other] >= level[part], f"{path.name} imports {other}, which stands above it"


def test_no_two_parts_import_one_another():
    arrows = set()
    for path in (ROOT / "duo").rglob("*.py"):
        part = path.relative_to(ROOT / "duo").parts[0].removesuffix(".py")
        arrows |= {(part, other) for other in imported(path) if other != part}
    assert not {(one, other) for one, other in arrows if (other, one) in arrows and one != "__init__"}


def test_a_file_at_the_root_is_a_command():
    for path in (ROOT / "duo").glob("*.py"):
        assert path.name == "__init__.py" or '__name__ == "__main__"' in path.read_text(), path


def test_every_folder_says_what_its_files_are():
    for folder in {path.parent for path in (ROOT / "duo").rglob("*.py")} - {ROOT / "duo"}:
        words = (folder / "__init__.py").read_text()
        for path in folder.glob("*.py"):
            assert path.name.startswith("__") or path.stem in words.partition('"""\n\n')[0], path


def test_duo_never_imports_the_routers_nor_names_one_in_a_branch():
    for path in (ROOT / "duo").rglob("*.py"):
        assert "routers" not in {*imported(path)}, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not constants & {"random", "fixed", "softmax_budget"}, f"{path}:{node.lineno}"


def test_files_stay_small():
    for path in [*(ROOT / "duo").rglob("*.py"), *(ROOT / "routers").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 250, path


def test_the_legend_holds_every_letter_that_tensors_end_in():
    legend = set(re.findall(r"(?:^|  )([A-Z])  ", duo.__doc__, re.MULTILINE))
    for path in [*(ROOT / "duo").rglob("*.py"), *(ROOT / "routers").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""
            shape = re.fullmatch(r"[a-z_]+_([A-Z0-9]+)", name)
            letters = {letter for letter in shape[1] if letter.isalpha()} if shape else set()
            assert letters <= legend | {"X"}, f"{path.name}: {name}"
