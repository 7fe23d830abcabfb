"""Growth is measured on images that are really measured, in processes that hide nothing from each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from image_files import clothing_photographs, needs_clothing

from benchmarks.studies.scale import scale
from benchmarks.studies.scale.growth import COMMANDS, FIGURES, Command, Run, fit_line, growth
from benchmarks.studies.scale.many_images import distinct_photographs, make_data_set, numbered_copy
from benchmarks.studies.scale.projection import UNITS
from fgdd_bench.machine.child import Usage, run_alone
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import scan
from fgdd_fast.images.decode import decode_image

OF_A_CLASS = 4
DISTINCT = OF_A_CLASS * len(tiny.CLASSES)


def write_photographs(folder: Path) -> Path:
    """A data set of coloured squares as JPEG files."""
    for class_name in tiny.CLASSES:
        (folder / class_name).mkdir(parents=True)
        for index in range(OF_A_CLASS):
            pixels = tiny.square(class_name, 0.2 + 0.2 * index, seed=index)
            file = folder / class_name / f"{index}.jpg"
            assert cv2.imwrite(str(file), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return folder


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go, of other processes too."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def workplace(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    write_photographs(tmp_path / "data")
    tiny.foreground_bundle(tmp_path)
    tiny.teacher_bundle(tmp_path)
    return tmp_path


def arguments(folder: Path, *options: str) -> list[str]:
    foreground = str(folder / "tiny-foreground.onnx")
    models = ["--teacher", str(folder / "tiny-teacher.onnx"), "--foreground", foreground]
    projected = ["--project-foreground", foreground, "--score-view", "pad", "--device", "cpu"]
    sizes = ["--counts", "8,24", "--size", "16", "--crops", "3", "--ipc", "1", "--sample", "9"]
    return [str(folder / "data"), *models, *projected, *sizes, *options]


def run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(scale.main, arguments(folder, *options))


def test_the_result_adds_up(workplace: Path, scratch: Path) -> None:
    output = workplace / "result.json"
    result = run(workplace, "--json", str(output))
    assert result.exit_code == 0, result.output
    data = json.loads(output.read_text())
    assert str(workplace) not in json.dumps(data)
    assert data["command"].startswith(
        "python -m benchmarks.studies.scale.scale data --teacher tiny-teacher.onnx --counts 8,24"
    )
    assert data["images"]["photographs"] == DISTINCT
    assert data["models"]["growth"]["foreground"]["name"] == "tiny-foreground"
    assert len(data["models"]["projection"]["teacher"]["sha256"]) == 64
    assert [(size["links"], size["copies"]) for size in data["sizes"]] == [(8, 0), (DISTINCT, 24 - DISTINCT)]
    for size in data["sizes"]:
        assert [run["command"] for run in size["runs"]] == list(COMMANDS)
        assert all(run["usage"]["peak_memory"] > 20e6 for run in size["runs"])
        assert size["store_bytes"] > 4096
    per_image, verdict = data["growth"]["per_image"], data["verdicts"]["time"]
    assert verdict["compared"] == per_image["compared"] == [8, 24]
    assert verdict["ratio"] == pytest.approx(per_image["seconds"]["24"] / per_image["seconds"]["8"])
    first, again, _ = (run["usage"]["seconds"] for run in data["sizes"][1]["runs"])
    assert data["check"]["images"] == 24
    assert data["check"]["measured"]["seconds"] == pytest.approx(first - again)
    assert data["check"]["projected"]["processor_seconds"] > 0
    for rates in (data["rates"], data["projection"]["rates"]):
        assert rates["seconds"].keys() == UNITS.keys()
        assert all(each >= 0 for each in rates["seconds"].values())
    assert data["projection"]["left_out"] == []
    assert data["projection"]["seconds"] > 0
    assert "ImageNet-1K: 1,000 classes of 300 images" in result.output
    assert list(scratch.iterdir()) == []


def test_a_failure_is_explained_and_leaves_nothing(workplace: Path, scratch: Path) -> None:
    broken = workplace / "data" / "red" / "broken.jpg"
    broken.write_bytes((workplace / "data" / "red" / "0.jpg").read_bytes()[:-200])
    result = run(workplace, "--counts", f"{DISTINCT + 1},{DISTINCT + 2}")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert f"was to measure {DISTINCT + 1} images" in result.output
    result = run(workplace, "--ipc", "9")
    assert "'fgdd-fast distill' failed on 8 images" in result.output
    assert "Traceback" not in result.output
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("counts", ["10", "10,10", "0,10", "ten,20", ""])
def test_a_line_needs_two_numbers(workplace: Path, counts: str) -> None:
    result = run(workplace, "--counts", counts)
    assert result.exit_code == 2
    assert "two or more" in result.output


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_neither_folders_nor_processes(
    workplace: Path, scratch: Path, stop: signal.Signals
) -> None:
    command = [sys.executable, "-m", "benchmarks.studies.scale.scale", *arguments(workplace)]
    # Tests that a shell runs in the background ignore SIGINT, and would hand that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not any(scratch.glob("fgdd-fast-scale-*/store")):  # until a command runs
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(stop)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert list(scratch.iterdir()) == []
    assert list(processes_naming(str(scratch))) == []


def processes_naming(text: str) -> Iterator[str]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(text) in command:
                yield folder.name


def test_a_command_is_measured_alone() -> None:
    ballast = np.ones(400_000_000, np.uint8)  # which Linux would count as the command's
    idle = run_alone([sys.executable, "-c", "import time; time.sleep(0.3); print('done')"])
    assert ballast[-1] == 1
    assert idle.output == "done\n"
    assert idle.usage.status == 0
    assert idle.usage.seconds >= 0.3
    assert idle.usage.processor_seconds < idle.usage.seconds
    assert 1e6 < idle.usage.peak_memory < 100e6
    busy = "import time; kept = bytearray(200_000_000)\nwhile time.process_time() < 0.3: pass\nexit(3)"
    used = run_alone([sys.executable, "-c", busy]).usage
    assert used.status == 3
    assert used.processor_seconds >= 0.3
    assert used.peak_memory > 200e6


def test_a_command_that_is_killed_is_told_from_others() -> None:
    killed = run_alone([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert killed.usage.status == -signal.SIGKILL


@needs_clothing
def test_a_copy_of_a_photograph_has_other_bytes_and_the_same_pixels() -> None:
    for path in clothing_photographs(10):
        content = path.read_bytes()
        copies = [numbered_copy(content, number) for number in (1, 2, 30)]
        assert len({content, *copies}) == 4
        for copy in copies:
            assert np.array_equal(decode_image(copy), decode_image(content))
            assert len(copy) <= len(content) + 8


def test_a_data_set_of_any_size_holds_no_bytes_twice(tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "data")
    (root / "red" / "again.jpg").write_bytes((root / "red" / "0.jpg").read_bytes())
    tiny.write_squares(root, 1)  # PNG files: no photographs
    photographs = distinct_photographs(scan(root))
    assert len(photographs) == DISTINCT
    assert {image.class_name for image in photographs[:3]} == set(tiny.CLASSES)
    assert photographs == distinct_photographs(scan(root))
    made = make_data_set(photographs, 2 * DISTINCT + 5, tmp_path / "made")
    assert (made.links, made.copies) == (DISTINCT, DISTINCT + 5)
    images = scan(tmp_path / "made").images
    contents = [image.path.read_bytes() for image in images]
    assert len(set(contents)) == len(images) == 2 * DISTINCT + 5
    pictures = {decode_image(content).tobytes() for content in contents}
    assert pictures == {decode_image(image.path.read_bytes()).tobytes() for image in photographs}


def test_a_data_set_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a JPEG file"):
        distinct_photographs(scan(tiny.write_squares(tmp_path, 1)))


COUNTS = st.lists(st.integers(1, 10_000), min_size=2, max_size=6, unique=True)


@given(COUNTS, st.floats(0.1, 100), st.floats(0.001, 1))
def test_a_line_is_found(images: list[int], start: float, slope: float) -> None:
    line = fit_line(images, [start + slope * count for count in images])
    assert line.start == pytest.approx(start, rel=1e-5)
    assert line.slope == pytest.approx(slope, rel=1e-5)
    assert line.residuals == pytest.approx([0] * len(images), abs=1e-8)


@given(COUNTS, st.data())
def test_no_other_line_has_less_squares_of_relative_errors(images: list[int], data: Any) -> None:
    times = [data.draw(st.floats(1, 10)) + 0.1 * count for count in images]

    def squares(start: float, slope: float) -> float:
        return sum(
            ((start + slope * count) / time - 1) ** 2 for count, time in zip(images, times, strict=True)
        )

    line = fit_line(images, times)
    least = squares(line.start, line.slope)
    for start, slope in ((0.01, 0), (-0.01, 0), (0, 0.0001), (0, -0.0001)):
        assert squares(line.start + start, line.slope + slope) >= least
    shares = [time / (line.start + line.slope * n) - 1 for n, time in zip(images, times, strict=True)]
    assert line.residuals == pytest.approx(shares)


def made_up(command: Command, images: int, seconds: float, processor: float, memory: float) -> Run:
    return Run(images, command, Usage(seconds, processor, round(memory), 0))


def runs(counts: tuple[int, ...], *, bend: float = 0.0, memory: float = 0.0) -> list[Run]:
    """5 s to start and 20 ms an image, more by `bend` for each 10,000 images; `memory` bytes an image."""
    found = []
    for images in counts:
        again = 5 + 0.001 * images
        measuring = 0.02 * images * (1 + bend * images / 10_000)
        peak = 300e6 + memory * images
        found += [
            made_up("measure", images, again + measuring, 2 * (again + measuring), peak),
            made_up("measure again", images, again, 2 * again, 200e6),
            made_up("distill", images, again + 0.002 * images, 1, 250e6),
        ]
    return found


SIZES = (100, 300, 1000, 10_000)
STORED = [(images, 4096 + 900 * images) for images in SIZES]


def test_what_is_linear_and_flat_is_called_so() -> None:
    grown = growth(runs(SIZES, memory=1000), STORED)
    assert grown.per_image.compared == (1000, 10_000)
    assert grown.per_image.linear
    assert grown.flat
    assert grown.per_image.seconds == pytest.approx(dict.fromkeys(SIZES, 0.02))
    assert grown.per_image.processor_seconds[100] == pytest.approx(0.04)
    assert grown.store.slope == pytest.approx(900)
    assert grown.lines.keys() == set(COMMANDS)
    assert grown.lines["distill"].keys() == set(FIGURES)
    line = grown.lines["measure"]["seconds"]
    assert (line.start, line.slope) == pytest.approx((5, 0.021))


def test_what_bends_is_not_called_linear() -> None:
    grown = growth(runs(SIZES, bend=0.2), STORED)
    assert grown.per_image.ratio == pytest.approx(1.2 / 1.02)
    assert not grown.per_image.linear
    assert growth(runs(SIZES, bend=0.05), STORED).per_image.linear


def test_memory_that_grows_is_not_called_flat() -> None:
    assert not growth(runs(SIZES, memory=6000), STORED).flat
    assert growth(runs(SIZES, memory=4000), STORED).flat


def test_one_disturbed_run_of_three_does_not_change_the_verdict() -> None:
    disturbed = made_up("measure", 10_000, 900.0, 1800.0, 300e6)
    assert growth([*runs(SIZES), disturbed, *runs(SIZES)], STORED).per_image.linear
