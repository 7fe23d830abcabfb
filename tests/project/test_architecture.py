"""Imports run one way, and the base install is enough for every --help."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from heavy_packages import HEAVY
from installed_commands import EVERY_HELP

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "fgdd_engines": ROOT / "engines/fgdd_engines",
    "fgdd_fast": ROOT / "fgdd_fast",
    "fgdd_export": ROOT / "export/fgdd_export",
    "fgdd_bench": ROOT / "benchmarks/fgdd_bench",
}
# What each package may import of the others when it is imported, and what within its functions.
AT_ONCE = {
    "fgdd_engines": set[str](),
    "fgdd_fast": {"fgdd_engines"},
    "fgdd_export": {"fgdd_engines", "fgdd_fast"},
    "fgdd_bench": {"fgdd_engines", "fgdd_fast", "fgdd_export"},
}
LATE = {**AT_ONCE, "fgdd_fast": {"fgdd_engines", "fgdd_export", "fgdd_bench"}}
# Rooms of fgdd_fast that know nothing of these rooms.
APART = {
    "images": {
        "cli",
        "checking",
        "students",
        "labels",
        "packing",
        "output",
        "measurement",
        "runtime",
        "selection",
    },
    "selection": {"cli", "checking", "students", "labels", "packing", "models", "runtime"},
    "measurement": {"cli", "checking", "students", "labels", "packing"},
    "models": {"cli", "checking", "students", "labels", "packing"},
    "output": {"cli", "checking", "students", "labels", "packing", "report_page"},
    "report_page": {"cli", "checking", "students", "labels", "packing", "models", "measurement"},
    "checking": {"cli", "students", "labels", "packing", "output"},
    "runtime": {"cli", "students", "labels", "packing"},
    "synthetic": {"cli", "students", "labels", "packing", "models", "runtime", "measurement"},
    "labels": {"cli", "students", "packing"},
    "packing": {"cli", "students"},
    "students": {"cli"},
    "nn": {"cli", "students", "models"},
}
WITH_TORCH = {"data.py", "nn", "students"}


@dataclass(frozen=True)
class Import:
    """A module that a file imports; `late` within a function, or for type checkers alone."""

    file: Path
    module: str
    late: bool

    @property
    def package(self) -> str:
        return self.module.split(".")[0]

    @property
    def room(self) -> str:
        """The room of fgdd_fast that it names."""
        return ([*self.module.split("."), ""])[1] if self.package == "fgdd_fast" else ""

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)} imports {self.module}"


@cache
def imports(file: Path) -> tuple[Import, ...]:
    """Every module that a file imports."""

    def walk(node: ast.AST, late: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(file, alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield Import(file, node.module or "", late)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        inner = late or typing or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    return tuple(walk(ast.parse(file.read_text(encoding="utf-8")), False))


def imports_within(folder: Path) -> list[Import]:
    found = [found for file in sorted(folder.rglob("*.py")) for found in imports(file)]
    assert found
    return found


def is_command(found: Import) -> bool:
    """Whether a file is part of the command line, whose modules are imported when a command is named."""
    return ROOT / "fgdd_fast/cli" in found.file.parents


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_one_way(package: str) -> None:
    wrong = [
        str(found)
        for found in imports_within(PACKAGES[package])
        if found.package in PACKAGES
        and found.package not in {package, *(LATE if found.late or is_command(found) else AT_ONCE)[package]}
    ]
    assert wrong == []


@pytest.mark.parametrize("room", APART)
def test_rooms_of_the_pipeline_import_one_way(room: str) -> None:
    found = imports_within(ROOT / "fgdd_fast" / room)
    assert [str(each) for each in found if each.room in APART[room]] == []


def rooms_entered(found: Import) -> Iterator[tuple[Path, str]]:
    """The rooms that an import enters from outside, each with what it takes there."""
    parts = found.module.split(".")
    if found.package not in PACKAGES:
        return
    for depth in range(1, len(parts)):
        room = PACKAGES[found.package].joinpath(*parts[1:depth])
        if room.is_dir() and room.name != "fgdd_fast" and room not in found.file.parents:
            yield room, parts[depth]


def test_only_what_a_room_names_is_used_from_outside() -> None:
    """A room's `__all__` names its modules and rooms that others may import; the rest is its own business."""
    wrong = [
        f"{found}, which {room.relative_to(ROOT)} does not name"
        for folder in (*PACKAGES.values(), ROOT / "benchmarks/studies", ROOT / "benchmarks/accuracy")
        for found in imports_within(folder)
        for room, name in rooms_entered(found)
        if name not in named(room)
    ]
    assert wrong == []


@cache
def named(room: Path) -> set[str]:
    """What the `__all__` of a room's `__init__` names."""
    for node in ast.parse((room / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_nothing_but_the_command_line_imports_the_command_line() -> None:
    for package, folder in PACKAGES.items():
        for found in imports_within(folder):
            inside = (folder / "cli") in found.file.parents or found.file == folder / "__main__.py"
            assert inside or found.room != "cli", f"{package}: {found}"


@pytest.mark.parametrize("package", ["fgdd_engines", "fgdd_fast"])
def test_heavy_packages_are_imported_late(package: str) -> None:
    wrong = [
        str(found)
        for found in imports_within(PACKAGES[package])
        if found.package in HEAVY
        and not found.late
        and found.file.relative_to(PACKAGES[package]).parts[0] not in WITH_TORCH
    ]
    assert wrong == []


def test_the_pipeline_needs_nothing_of_what_trains_students() -> None:
    training = {"data", "nn", "students"}
    wrong = [
        str(found)
        for found in imports_within(ROOT / "fgdd_fast")
        if found.room in training
        and not found.late
        and found.file.relative_to(ROOT / "fgdd_fast").parts[0] not in {*WITH_TORCH, "cli"}
    ]
    assert wrong == []


def test_help_needs_the_base_install_only() -> None:
    absent = f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\n"  # importing them fails
    command = [sys.executable, "-c", absent + EVERY_HELP]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["grounded-sam2", "--detector", "a/b", "--segmenter", "a/b", "-o", "x"], "export"),
        (["grounding-dino", "a/b", "-o", "x"], "export"),
        (["sam2", "a/b", "-o", "x"], "export"),
        (["teacher", "a/b", "-o", "x"], "export"),
    ],
)
def test_an_export_without_its_packages_gives_the_install_line(
    tmp_path: Path, arguments: list[str], extra: str
) -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from fgdd_fast.cli import main\n"
        "main(['export', *sys.argv[1:]])\n"
    )
    command = [sys.executable, "-c", script, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"pip install 'fgdd-fast[{extra}]'" in result.stderr
    assert list(tmp_path.iterdir()) == []
