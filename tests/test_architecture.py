"""Imports run one way, and the base install is enough for every --help."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_pipeline as tiny

ROOT = Path(__file__).resolve().parent.parent
HEAVY = [
    "PIL",
    "cuda",
    "datasets",
    "jinja2",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxslim",
    "openvino",
    "pandas",
    "pyarrow",
    "safetensors",
    "sklearn",
    "tensorrt",
    "tensorrt_rtx",
    "tokenizers",
    "torch",
    "transformers",
    "webdataset",
]
COMMANDS = [
    [],
    ["bench"],
    ["convert"],
    ["demo"],
    ["distill"],
    ["doctor"],
    ["engine"],
    ["engine", "build"],
    ["engine", "inspect"],
    ["engine", "list"],
    ["engine", "remove"],
    ["engine", "verify"],
    ["evaluate"],
    ["export"],
    ["export", "grounded-sam2"],
    ["export", "grounding-dino"],
    ["export", "sam2"],
    ["export", "teacher"],
    ["label"],
    ["measure"],
    ["models"],
    ["models", "pull"],
    ["pack"],
    ["sheet"],
    ["teacher"],
    ["teacher", "fit"],
    ["teacher", "check"],
    ["teacher", "tile"],
]


def imported(folder: Path, pattern: str = "*.py") -> Iterator[tuple[Path, str]]:
    """Every module that the files of a package import anywhere, also inside functions."""
    for file in sorted(set(folder.glob(pattern)) - {folder / "__main__.py"}):  # that one is the command line
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file.name} imports relatively"
                yield file, node.module or ""


def part(module: str) -> str:
    """The part of the project that a module belongs to; '' for other projects."""
    names = module.split(".")
    if names[0] in ("fgdd_export", "fgdd_bench"):
        return {"fgdd_export": "export", "fgdd_bench": "benchmarks"}[names[0]]
    return "" if names[0] != "fgdd_fast" else names[1] if len(names) > 1 else "fgdd_fast"


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("fgdd_fast", {"cli", "export", "benchmarks"}),
        ("fgdd_fast/drawing", {"cli", "export", "benchmarks"}),
        ("fgdd_fast/labels", {"cli", "export", "benchmarks", "students"}),
        ("fgdd_fast/packing", {"cli", "export", "benchmarks", "students"}),
        ("fgdd_fast/students", {"cli", "export", "benchmarks"}),
        ("export/fgdd_export", {"cli", "benchmarks"}),
        ("benchmarks/fgdd_bench", {"cli"}),
        ("benchmarks/accuracy", {"cli"}),
    ],
)
def test_imports_run_one_way(folder: str, forbidden: set[str]) -> None:
    found = list(imported(ROOT / folder, "**/*.py" if "/fgdd_" in folder else "*.py"))
    assert found
    assert [(file.name, module) for file, module in found if part(module) in forbidden] == []


def test_engines_import_nothing_of_the_project() -> None:
    found = [
        (file.name, module)
        for file, module in imported(ROOT / "engines/fgdd_engines", "**/*.py")
        if module.split(".")[0].startswith("fgdd_") and module.split(".")[0] != "fgdd_engines"
    ]
    assert found == []


@pytest.mark.parametrize(
    "folder",
    ["fgdd_fast", "fgdd_fast/cli", "fgdd_fast/drawing", "fgdd_fast/labels", "fgdd_fast/packing"],
)
def test_no_heavy_package_is_imported_directly(folder: str) -> None:
    found = [
        (file.name, module)
        for file, module in imported(ROOT / folder)
        if module.split(".")[0] in HEAVY and file.name != "data.py"  # which is for PyTorch's users alone
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["fgdd_fast"])
def test_the_pipeline_needs_nothing_of_what_trains_students(folder: str) -> None:
    training = {"fgdd_fast.data", "fgdd_fast.students"}
    found = {
        file.name for file, module in imported(ROOT / folder) if ".".join(module.split(".")[:2]) in training
    }
    assert found <= {"data.py"}


def test_help_needs_the_base_install_only() -> None:
    script = (
        "import sys\n"
        f"for name in {HEAVY}: sys.modules[name] = None\n"  # importing them fails, as if they were absent
        "from click.testing import CliRunner\n"
        "from fgdd_fast.cli import main\n"
        f"for command in {COMMANDS}:\n"
        "    result = CliRunner().invoke(main, [*command, '--help'])\n"
        "    assert result.exit_code == 0, (command, result.output, result.exception)\n"
        "    assert 'Usage' in result.output\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
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


def test_a_missing_extra_gives_the_install_line(tmp_path: Path) -> None:
    tiny.write_squares(tmp_path / "data", 2)
    tiny.foreground_bundle(tmp_path)
    tiny.teacher_bundle(tmp_path)
    script = (
        "import sys\n"
        "sys.modules['onnxruntime'] = sys.modules['openvino'] = None\n"
        "from fgdd_fast.cli import main\n"
        "main(['measure', 'data', '--foreground', 'tiny-foreground.onnx', '--teacher', 'tiny-teacher.onnx',"
        " '--store', 'store', *sys.argv[1:]])\n"
    )
    for options in ([], ["--device", "cpu"], ["--device", "openvino"]):
        command = [sys.executable, "-c", script, *options]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "pip install 'fgdd-fast[cpu]'" in result.stderr
