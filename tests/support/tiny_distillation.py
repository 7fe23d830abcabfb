"""The command of a small distillation, and what becomes of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from fgdd_fast.cli import main
from fgdd_fast.output.folder import RUN_RECORD

IMAGES = 8  # of each class


def arguments(folder: Path, out: str = "out", **options: Any) -> list[str]:
    """The command line of a small distillation; options are added or replaced, None takes one away."""
    chosen: dict[str, Any] = {
        "ipc": 1,
        "factor": 2,
        "size": 16,
        "crops": 3,
        "device": "cpu",
        "threads": 2,
        "foreground": folder / "tiny-foreground.onnx",
        "teacher": folder / "tiny-teacher.onnx",
        "store": folder / "store",
        **options,
    }
    given = (
        (f"--{name.replace('_', '-')}", str(value)) for name, value in chosen.items() if value is not None
    )
    words = (word for pair in given for word in pair)
    return ["distill", str(folder / "data"), str(folder / out), "--no-report", *words]


def distill(folder: Path, out: str = "out", *flags: str, **options: Any) -> Result:
    return CliRunner().invoke(main, [*arguments(folder, out, **options), *flags])


def contents(out: Path) -> dict[str, str]:
    """The hash of each file below a folder, but for the record of a run, which holds its times."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != RUN_RECORD)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_refused(result: Result, *words: str) -> None:
    """The command failed with a message, and no traceback."""
    assert result.exit_code not in (0, None)
    assert isinstance(result.exception, SystemExit), result.exception
    for word in words:
        assert word in result.output.replace("\n", " "), result.output
