"""Every dotted name of this project that stands in a string or a docstring leads somewhere.

Modules are named in strings where a linter does not follow: what commands import late, what children run,
what the server of worker processes preloads (which ignores an import that fails), what tests replace.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdd_engines.plugins import BACKENDS, FOREGROUNDS, STUDENTS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("fgdd_fast", "engines", "export", "benchmarks", "tests")
NAME = re.compile(r"\b(?:fgdd_(?:fast|engines|export|bench)|benchmarks\.(?:studies|accuracy))(?:\.\w+)+")
IMPORT = re.compile(r"\bfrom (fgdd_\w+(?:\.\w+)*) import (\w+)")  # in a script that a child runs
FILE_ENDINGS = {"cfg", "egg", "html", "json", "md", "onnx", "py", "toml", "txt"}


ENTRY_POINTS = {BACKENDS, FOREGROUNDS, STUDENTS}  # groups, which only look like modules


def named(file: Path) -> Iterator[str]:
    """The dotted names in the strings of a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from NAME.findall(node.value)
            yield from (f"{package}.{name}" for package, name in IMPORT.findall(node.value))


def leads_somewhere(name: str) -> bool:
    """Whether a name is a module, or something in one that can be imported."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.util.find_spec(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        if found is None:
            continue
        if length == len(parts):
            return True
        thing = importlib.import_module(".".join(parts[:length]))
        for part in parts[length:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


def test_names_in_strings_lead_somewhere() -> None:
    pytest.importorskip("torch", reason="modules that train students and export networks import torch")
    lost = sorted(
        f"{file.relative_to(ROOT)}: {name}"
        for folder in FOLDERS
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in sorted(set(named(file)))
        if name.rpartition(".")[2] not in FILE_ENDINGS
        and not leads_somewhere(name)
        and name not in ENTRY_POINTS
    )
    assert lost == []


def test_a_lost_name_is_found() -> None:
    assert leads_somewhere("fgdd_fast.cli.main.COMMANDS")
    assert not leads_somewhere("fgdd_fast.cli.main" + ".NO_SUCH_THING")
    assert not leads_somewhere("fgdd_fast" + ".no_such_module")
