"""How large a folder, a module and a function may be, what libraries leave to the command line, old names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    "engines",
    "fgdd_fast",
    "export",
    "benchmarks/fgdd_bench",
    "benchmarks/studies",
    "benchmarks/accuracy",
)
EVERYTHING = (*CODE, "tests", "examples")
MODULES, LINES, FUNCTION = 12, 350, 60

# Who talks to the terminal: the command line, bench, and what runs from a checkout as a command.
TERMINAL = (
    "fgdd_fast/cli/",
    "benchmarks/fgdd_bench/reporting/",
    "benchmarks/studies/",
    "benchmarks/accuracy/",
)
OLD_NAMES = re.compile(r"\bfgdd_fast[./](?:engines|export|benchmarks|drawing)\b")


def files(*folders: str) -> list[Path]:
    found = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    assert found
    return found


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def said(file: Path, what: str) -> str:
    return f"{file.relative_to(ROOT)}: {what}"


def crowded_folders() -> Iterator[str]:
    """Folders that hold more modules than one takes in at a glance; `__init__` is not counted."""
    for folder in sorted({file.parent for file in files(*CODE)}):
        modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        if len(modules) > MODULES:
            yield said(folder, f"{len(modules)} modules")


def long_modules() -> Iterator[str]:
    for file in files(*EVERYTHING):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LINES:
            yield said(file, f"{lines} lines")


def long_functions() -> Iterator[str]:
    for file in files(*EVERYTHING):
        for node in ast.walk(parsed(file)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION:
                    yield said(file, f"{node.name} has {lines} lines")


def talkative_libraries() -> Iterator[str]:
    """Libraries that print, or that know of a terminal; they log, and tell a `Progress`."""
    for file in files(*CODE):
        if file.relative_to(ROOT).as_posix().startswith(TERMINAL):
            continue
        for node in ast.walk(parsed(file)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (
                said(file, f"imports {name}") for name in names if name.split(".")[0] in {"click", "rich"}
            )
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                yield said(file, f"line {node.lineno} prints")


def old_names() -> Iterator[str]:
    """Names that modules had before the four packages, in code and in pages."""
    pages = [file for folder in (".", "docs", *EVERYTHING) for file in sorted((ROOT / folder).glob("*.md"))]
    for file in [*files(*EVERYTHING), *pages]:
        if file.name == "CHANGELOG.md" or file == Path(__file__):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if found := OLD_NAMES.search(line):
                yield said(file, f"line {number} names {found[0]}")


def test_a_folder_holds_a_dozen_modules() -> None:
    assert list(crowded_folders()) == []


def test_a_module_is_read_in_one_go() -> None:
    assert list(long_modules()) == []


def test_a_function_fits_on_a_screen() -> None:
    assert list(long_functions()) == []


def test_only_the_command_line_talks_to_the_terminal() -> None:
    assert list(talkative_libraries()) == []


def test_nothing_names_what_has_moved() -> None:
    assert list(old_names()) == []
