"""The studies that compare two versions see what differs, and forgive what may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.studies import same_bytes, same_speed
from benchmarks.studies.same_cases import draw_shapes

MANIFEST = {
    "format": 1,
    "tool": {"fgdd-fast": "0.1.0", "runtime": "ONNX Runtime 1.32.0, CPU, fp32"},
    "settings": {"score_view": "pad", "ipc": 2},
    "seconds": 1.5,
}


def written(folder: Path, name: str, data: dict[str, Any]) -> Path:
    path = folder / name / "manifest.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def test_versions_times_and_names_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = {
        **MANIFEST,
        "format": 2,
        "tool": {"fgdd-fast": "0.2.0", "runtime": "ONNX Runtime 1.33.0, CPU, fp32"},
        "settings": {"view": "pad", "ipc": 2},
        "seconds": 2.5,
    }
    before, after = written(tmp_path, "before", MANIFEST), written(tmp_path, "after", later)
    assert "score_view" in same_bytes.difference(before, after)
    monkeypatch.setattr(same_bytes, "RENAMED_KEYS", {"score_view": "view"})
    assert same_bytes.difference(before, after) == "versions"
    assert same_bytes.compare(before.parent, after.parent) == (1, 1, [])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"settings": {"score_view": "pad", "ipc": 3}}, ".settings.ipc: 2 became 3"),
        ({"settings": {"score_view": "pad", "ipc": 2.0}}, ".settings.ipc: 2 became 2.0"),
        ({"settings": {"ipc": 2, "score_view": "pad"}}, ".settings"),
        ({"tool": {"fgdd-fast": "0.1.0", "runtime": "ONNX Runtime 1.32.0, CPU, int8"}}, ".tool.runtime"),
    ],
)
def test_any_other_value_is_told(tmp_path: Path, change: Any, told: str) -> None:
    before, after = written(tmp_path, "before", MANIFEST), written(tmp_path, "after", {**MANIFEST, **change})
    (wrong,) = same_bytes.compare(before.parent, after.parent)[2]
    assert told in wrong


def test_bytes_and_absent_files_are_told(tmp_path: Path) -> None:
    for name, content in (("before", b"abc"), ("after", b"abd")):
        written(tmp_path, name, MANIFEST)
        (tmp_path / name / "a.png").write_bytes(content)
        (tmp_path / name / f"{name}.png").touch()
    wrong = same_bytes.compare(tmp_path / "before", tmp_path / "after")[2]
    assert wrong == [
        "before.png: only before",
        "after.png: only after",
        "a.png: byte 2, of 3 and 3 bytes",
    ]


def test_the_record_of_a_run_is_not_compared(tmp_path: Path) -> None:
    for name in ("before", "after"):
        written(tmp_path, name, MANIFEST).with_name("run.json").write_text(f'{{"begun": "{name}"}}')
    (tmp_path / "after" / "report.html").touch()
    assert same_bytes.compare(tmp_path / "before", tmp_path / "after") == (1, 0, [])


def test_drawn_shapes_and_their_masks_agree(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "data", tmp_path / "masks", 1)
    pixels = cv2.imread(str(tmp_path / "data" / "red disc" / "0.png"))
    mask = cv2.imread(str(tmp_path / "masks" / "red disc" / "0.png"), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert mask is not None
    assert np.array_equal((pixels == (45, 35, 215)).all(axis=2), mask == 255)


def test_the_interval_is_student_s() -> None:
    found = [same_speed.students_t(freedom) for freedom in (1, 4, 14)]
    assert found == pytest.approx([12.706, 2.776, 2.145], rel=1e-3)
    ratio = same_speed.ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((2, 2, 2))
