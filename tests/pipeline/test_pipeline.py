"""The front door: a few lines of Python do what `fgdd-fast distill` does, byte for byte."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import pytest
from tiny_distillation import contents
from tiny_distillation import distill as command
from watched_progress import Watched

import fgdd_fast
from fgdd_fast.errors import DataError, OutputError, SettingsError, TeacherError
from fgdd_fast.runtime.choose import RuntimeOptions

RUNTIME = RuntimeOptions(device="cpu", threads=2)


@pytest.fixture
def measuring(workplace: Path) -> dict[str, Any]:
    """What `open_pipeline` is told, as the tests' command line says it."""
    return {
        "teacher": workplace / "tiny-teacher.onnx",
        "foreground": workplace / "tiny-foreground.onnx",
        "crops": 3,
        "size": 16,
        "store": str(workplace / "store"),
        "runtime": RUNTIME,
    }


def test_measure_plan_and_write_is_the_command(workplace: Path, measuring: dict[str, Any]) -> None:
    assert command(workplace, ipc=1, store=workplace / "another").exit_code == 0
    with fgdd_fast.open_pipeline(workplace / "data", **measuring) as pipeline:
        measured = pipeline.measure()
        assert (measured.measured, measured.reused) == (24, 0)
        plan = pipeline.plan(ipc=1)
        assert not (workplace / "python").exists()  # a plan is only looked at
        assert [part.name for part in plan.classes] == ["blue", "green", "red"]
        assert all(len(part.selection.tiles) == 4 for part in plan.classes)
        manifest = pipeline.write(plan, workplace / "python")
    assert len(manifest.images) == 3
    assert contents(workplace / "python") == contents(workplace / "out")


def test_distill_does_it_at_once(workplace: Path, measuring: dict[str, Any]) -> None:
    assert command(workplace, ipc=1, rule="mean", ranking="stratified").exit_code == 0
    plan, _ = fgdd_fast.distill(
        workplace / "data", workplace / "python", ipc=1, rule="mean", ranking="stratified", **measuring
    )
    assert plan.settings.ipc == 1
    assert contents(workplace / "python") == contents(workplace / "out")


def test_another_plan_measures_nothing_again(workplace: Path, measuring: dict[str, Any]) -> None:
    with fgdd_fast.open_pipeline(workplace / "data", **measuring) as pipeline:
        first = pipeline.plan(ipc=1)
        assert pipeline.measure().measured == 0
        second = pipeline.plan(ipc=1, rule="always-full")
    assert {tile.kind for part in second.classes for tile in part.selection.tiles} == {"full"}
    assert first.classes[0].occupancies == second.classes[0].occupancies


def test_progress_is_told_in_numbers(workplace: Path, measuring: dict[str, Any]) -> None:
    watched = Watched()
    fgdd_fast.distill(workplace / "data", workplace / "python", ipc=2, progress=watched, **measuring)
    steps = [*(("Measuring", done) for done in range(1, 25)), *(("Writing", done) for done in range(1, 7))]
    assert watched.steps == steps
    assert watched.totals == {"Opening the models": None, "Measuring": 24, "Features": 0, "Writing": 6}


def test_nothing_is_left_changed_in_the_process(
    workplace: Path, measuring: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    threads, handlers = cv2.getNumThreads(), list(logging.getLogger().handlers)
    fgdd_fast.distill(workplace / "data", workplace / "python", ipc=1, **measuring)
    assert cv2.getNumThreads() == threads
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger("fgdd_fast").handlers == []
    assert capfd.readouterr() == ("", "")


def test_which_runtime_runs_a_model_is_logged(
    workplace: Path, measuring: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fgdd_fast")
    with fgdd_fast.open_pipeline(workplace / "data", **measuring):
        pass
    assert "tiny-teacher: cpu (asked for)" in caplog.text


def test_what_cannot_work_is_refused_before_the_long_work(workplace: Path, measuring: dict[str, Any]) -> None:
    data, out = workplace / "data", workplace / "python"
    with pytest.raises(DataError, match="too small"):
        fgdd_fast.distill(data, out, ipc=1000, **measuring)
    with pytest.raises(SettingsError, match="rule"):
        fgdd_fast.distill(data, out, ipc=1, rule="no-such-rule", **measuring)
    with pytest.raises(SettingsError, match="no ranking 'best'"):
        fgdd_fast.distill(data, out, ipc=1, ranking="best", **measuring)
    with pytest.raises(OutputError):
        fgdd_fast.distill(data, data, ipc=1, **measuring)
    with pytest.raises(TeacherError, match="No teacher"):
        fgdd_fast.distill(data, out, ipc=1, **{**measuring, "teacher": None})
    assert not out.exists()
    assert not (workplace / "store").exists()


def test_public_names_are_there_and_nothing_else_is_promised() -> None:
    for name in fgdd_fast.PUBLIC:
        assert getattr(fgdd_fast, name) is not None
    assert set(fgdd_fast.PUBLIC) < set(dir(fgdd_fast))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fgdd_fast.no_such_name
