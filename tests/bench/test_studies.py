"""Studies run, what they write adds up, and bad input ends them in one line."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from image_files import clothing_photographs, needs_clothing
from tiny_grounded import write_grounded_bundle

from benchmarks.studies import scale, stamps
from benchmarks.studies.study import Study
from fgdd_fast.cli import terminal
from fgdd_fast.errors import OutputError
from fgdd_fast.images.dataset import scan
from fgdd_fast.images.decode import decode_image

# Each study, what it is given besides DATA, and the fields of a row.
TEACHER = ("--teacher", "tiny-teacher.onnx")
STUDIES: dict[str, tuple[str, ...]] = {
    "effort": (
        *(*TEACHER, "--foreground", "tiny-foreground.onnx", "--quick", "coarse.onnx", "--device", "cpu"),
        *("--store", "store", "--tiles", "2", "--timed", "2"),
    ),
    "host_ceiling": (*TEACHER, "--foreground", "tiny-foreground.onnx", "--images", "12", "--turns", "1"),
    "precisions": ("--network", "tiny-teacher.onnx"),
    "scale": (*TEACHER, "--foreground", "tiny-foreground.onnx", "--device", "cpu"),
    "sizes": ("--model", "tiny-foreground.onnx", "--device", "cpu"),
    "stamps": (
        *("--model", "tiny-foreground.onnx", "--device", "cpu"),
        *("--work", "work", "--stamps", "stamps", "--images", "4"),
    ),
    "streams": (
        *(*TEACHER, "--foreground", "tiny-foreground.onnx", "--device", "cpu"),
        *("--store", "store", "--size", "16", "--ipc", "1"),
    ),
    "views": (*TEACHER, "--device", "cpu"),
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tiny.write_squares(tmp_path / "data", 6)
    tiny.foreground_bundle(tmp_path)
    tiny.foreground_bundle(tmp_path, "coarse", side=8)
    tiny.teacher_bundle(tmp_path)
    write_stamps(tmp_path / "stamps" / "animals")
    return tmp_path


def write_stamps(folder: Path) -> None:
    """Two stamps, a red one and a blue one that is tall, each with a margin that is not seen."""
    folder.mkdir(parents=True)
    for name, colour, height in (
        ("red", (0, 0, 255), 20),
        ("blue", (255, 0, 0), 60),
        ("red_mirror", (0, 0, 255), 9),
    ):
        stamp = np.zeros((height + 20, 40, 4), np.uint8)
        stamp[10:-10, 10:-10] = (*colour, 255)
        assert cv2.imwrite(str(folder / f"{name}.png"), stamp)


def command(name: str) -> click.Command:
    found: click.Command = import_module(f"benchmarks.studies.{name}").main
    return found


def invoke(name: str, *words: str) -> Result:
    return CliRunner().invoke(command(name), list(words))


def run(name: str, *options: str) -> dict[str, Any]:
    result = invoke(name, "data", "--json", "result.json", *STUDIES[name], *options)
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(Path("result.json").read_text())
    assert data["environment"]["cores"] >= 1
    assert str(Path.cwd()) not in json.dumps(data)
    assert data["command"].startswith(f"python -m benchmarks.studies.{name} data --")
    return data


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("wrong", ["no folder", "no images", "no such bundle", "another role", "no result"])
def test_bad_input_ends_a_study_in_one_line(workplace: Path, name: str, wrong: str) -> None:
    data, options = "data", list(STUDIES[name])
    place = max(index for index, word in enumerate(options) if word.endswith(".onnx"))
    if wrong == "no folder":
        data = "nowhere"
    elif wrong == "no images":
        (workplace / "empty" / "red").mkdir(parents=True)
        data = "empty"
    elif wrong == "no such bundle":
        options[place] = "nowhere.onnx"
    elif wrong == "another role":
        (workplace / "damaged.onnx").write_bytes(b"no graph")
        options[place] = "damaged.onnx"
    output = "nowhere/result.json" if wrong == "no result" else "result.json"
    result = invoke(name, data, "--json", output, *options)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert not Path("result.json").exists()


def test_a_bundle_of_another_role_is_refused(workplace: Path) -> None:
    for name, option in (("views", "--teacher"), ("scale", "--teacher"), ("sizes", "--model")):
        other = "tiny-teacher.onnx" if name == "sizes" else "tiny-foreground.onnx"
        result = invoke(name, "data", option, other)
        assert (result.exit_code, "Error: " in result.stderr) == (1, True)
        assert isinstance(result.exception, SystemExit)
    result = invoke("precisions", "data", "--network", "tiny-foreground.onnx", "--validation", "data")
    assert "is no teacher" in result.stderr


def test_an_image_that_cannot_be_read_is_named_or_left_out(workplace: Path) -> None:
    (workplace / "data" / "red" / "broken.png").write_bytes(b"\x89PNG and no more")
    assert "red/broken.png cannot be used" in " ".join(
        invoke("views", "data", *STUDIES["views"]).stderr.split()
    )
    grounded = str(write_grounded_bundle(workplace).onnx)
    rows = run("sizes", "--model", grounded)["rows"]
    assert [row["model"] for row in rows] == ["tiny-foreground", "tiny-foreground", "tiny-grounded"]
    assert rows[2]["occupancy_error"] < 0.05


def test_sizes_compare_with_the_first_model(workplace: Path) -> None:
    data = run("sizes")
    assert [(row["occupancy_error"], row["path_agreement"]) for row in data["rows"]] == [(0, 1), (0, 1)]
    assert data["images"] == 18


def test_stamps_are_pasted_wholly_and_their_masks_are_exact(workplace: Path) -> None:
    found = stamps.read_stamps(workplace / "stamps")
    assert [file.stem for file in found] == ["blue", "red"]
    photographs = scan(workplace / "data").images
    for index in range(12):
        things = 1 + index % 4
        pixels, mask = stamps.paste(index, things, found, photographs)
        assert np.array_equal(stamps.paste(index, things, found, photographs)[0], pixels)
        assert 0 < mask.mean() < 0.55
        pure = (pixels == (255, 0, 0)).all(axis=2) | (pixels == (0, 0, 255)).all(axis=2)
        assert np.array_equal(pure, mask)


def test_stamps_hold_models_to_each_set(workplace: Path) -> None:
    data = run("stamps")
    for name, images in (("scenes", 4), ("stamps", 4), ("pictures", 7)):
        rows = [row for row in data["rows"] if row["set"] == name]
        assert [row["images"] for row in rows] == [1] * images + [images]
    assert data["stamps"] == 2
    assert (
        "There are no stamps in nowhere"
        in invoke("stamps", "data", *STUDIES["stamps"], "--stamps", "nowhere").stderr
    )


def test_views_compare_with_the_first_view(workplace: Path) -> None:
    rows = {row["view"]: row for row in run("views", "--tile", "16")["rows"]}
    assert rows.keys() == {"pad", "resize", "native"}
    for row in rows.values():  # a tile as large as the input looks the same in every view
        assert row["same_as_first"] == 1
        assert row["top1_whole"] == rows["pad"]["top1_whole"] > 0.5
        assert 0 < row["chosen_area"] <= 1


def test_precisions_compare_with_the_reference(workplace: Path) -> None:
    data = run("precisions", "--validation", "data", "--images", "6", "--turns", "2", "--samples", "4")
    first = data["rows"][0]
    assert (first["way"], first["ratio"], first["accepted"]) == ("cpu fp32", 1, True)
    for row in data["rows"]:
        assert len(row["seconds"]) == 2
        assert row["top1"] > 0.5
        assert row["figures"]["same_crop"] > 0.9


def test_exports_compare_with_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    from fgdd_engines.base import TensorSpec
    from fgdd_export.graphs.torch_export import Network

    exports = import_module("benchmarks.studies.exports")

    class Mean(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            return images.float().mean((1, 2))

    shape = ("batch", 8, 8, 3)
    images, means = TensorSpec("images", "uint8", shape), TensorSpec("means", "float32", ("batch", 3))
    row = exports.measure("mean", Network("mean", Mean().eval(), (images,), (means,)), 2)
    assert row["parameters"] == 0
    assert row["largest_difference"] < 1e-3
    assert row["ratio"] > 0
    assert row.keys() >= exports.COLUMNS.keys()


def write_photographs(folder: Path, of_a_class: int = 4) -> Path:
    """A data set of coloured squares as JPEG files."""
    for class_name in tiny.CLASSES:
        (folder / class_name).mkdir(parents=True)
        for index in range(of_a_class):
            pixels = tiny.square(class_name, 0.2 + 0.2 * index, seed=index)
            file = folder / class_name / f"{index}.jpg"
            assert cv2.imwrite(str(file), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return folder


def test_growth_is_measured_on_images_that_are_really_measured(workplace: Path) -> None:
    (workplace / "data").rename(workplace / "squares")
    write_photographs(workplace / "data")
    sizes = ("--counts", "8,16", "--size", "16", "--crops", "3", "--ipc", "1", "--score-view", "pad")
    data = run("scale", *sizes)
    assert data["photographs"] == 12
    assert [row["images"] for row in data["rows"]] == [8, 16]
    for row in data["rows"]:
        assert all(row[command]["peak_memory"] > 20e6 for command in scale.COMMANDS)
        assert row["store_bytes"] > 4096
    assert data["verdicts"]["time"]["compared"] == [8, 16]
    broken = workplace / "data" / "red" / "broken.jpg"
    broken.write_bytes((workplace / "data" / "red" / "0.jpg").read_bytes()[:-200])
    found = invoke("scale", "data", *STUDIES["scale"], *sizes, "--counts", "13,14")
    assert found.exit_code == 1
    assert "was to measure 13 images" in " ".join(found.stderr.split())


def test_the_host_alone_is_measured_and_projected(workplace: Path) -> None:
    data = run("host_ceiling", "--before", sys.executable, "--cores", "4")
    ways = [(row["version"], row["way"]) for row in data["rows"]]
    assert {("now", "whole"), ("now", "interpreter"), ("now", "pixels"), ("before", "whole")} == {*ways}
    assert all(row["processor_ms"] > 0 and len(row["samples"]) == 1 for row in data["rows"])
    bounds = [data["projection"][name] for name in ("4_cores", "interpreter_lock", "driving_thread")]
    assert data["projection"]["projected"] == min(bounds) > 0
    assert data["faster"]["1"]["processor_ms"][0] > 0


@pytest.mark.parametrize("counts", ["10", "10,10", "0,10", "ten,20", ""])
def test_a_line_needs_two_numbers(workplace: Path, counts: str) -> None:
    result = invoke("scale", "data", *STUDIES["scale"], "--counts", counts)
    assert result.exit_code == 2
    assert "two or more" in result.output


@needs_clothing
def test_a_copy_of_a_photograph_has_other_bytes_and_the_same_pixels() -> None:
    for path in clothing_photographs(10):
        content = path.read_bytes()
        copies = [scale.numbered_copy(content, number) for number in (1, 2, 30)]
        assert len({content, *copies}) == 4
        for copy in copies:
            assert np.array_equal(decode_image(copy), decode_image(content))


def test_a_data_set_of_any_size_holds_no_bytes_twice(tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "data")
    (root / "red" / "again.jpg").write_bytes((root / "red" / "0.jpg").read_bytes())
    tiny.write_squares(root, 1)  # PNG files: no photographs
    photographs = scale.distinct_photographs(scan(root))
    assert len(photographs) == 12
    assert {image.class_name for image in photographs[:3]} == set(tiny.CLASSES)
    scale.make_data_set(photographs, 29, tmp_path / "made")
    contents = [image.path.read_bytes() for image in scan(tmp_path / "made").images]
    assert len(set(contents)) == len(contents) == 29


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=6, unique=True), st.floats(0.1, 100))
def test_a_line_is_found(images: list[int], start: float) -> None:
    line = scale.fit_line(images, [start + 0.02 * count for count in images])
    assert line == pytest.approx((start, 0.02), rel=1e-4)


def rows(*, bend: float = 0.0, memory: float = 0.0) -> list[dict[str, Any]]:
    """5 s to start and 20 ms an image, more by `bend` for each 10,000 images; `memory` bytes an image."""
    found = []
    for images in (100, 300, 1000, 10_000):
        again = 5 + 0.001 * images
        first = again + 0.02 * images * (1 + bend * images / 10_000)
        seconds = {"measure": first, "measure again": again, "distill": again + 0.002 * images}
        usage = {
            command: {"seconds": each, "processor_seconds": 2 * each, "peak_memory": 3e8 + memory * images}
            for command, each in seconds.items()
        }
        found.append({"images": images, **usage, "store_bytes": 4096 + 900 * images})
    return found


def test_what_is_linear_and_flat_is_called_so() -> None:
    found = scale.judge(rows(memory=4000), 300_000)
    assert (found["time"]["linear"], found["time"]["compared"]) == (True, [1000, 10_000])
    assert (found["memory"]["flat"], found["store"]["bytes_per_image"]) == (True, 900)
    assert found["300000 images"]["seconds"] == pytest.approx(5 + 0.023 * 300_000, rel=1e-3)
    assert not scale.judge(rows(memory=6000), 1)["memory"]["flat"]
    bent = scale.judge(rows(bend=0.2), 1)["time"]
    assert (bent["linear"], bent["ratio"]) == (False, pytest.approx(1.2 / 1.02, rel=1e-3))


def test_a_study_tells_how_far_it_is_and_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "result.json"
    study = Study([sys.executable, "-m", "x", str(tmp_path)], output)
    monkeypatch.setattr(terminal, "SAID_AFTER", 0.01)
    slow = (time.sleep(0.02) or number for number in range(3))
    assert list(study.track(slow, "Models", 3)) == [0, 1, 2]
    assert "Models: 3 of 3" in capsys.readouterr().err
    study.report(
        [{"name": "[a]", "share": 0.5, "rate": None}], {"name": "", "share": ".0%", "rate": ".1f"}, x=1
    )
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("[a]", "50%", "—"))
    data = json.loads(output.read_text())
    assert (data["x"], data["rows"][0]["share"]) == (1, 0.5)
    assert data["command"].endswith(f"-m x {tmp_path.name}")
    with pytest.raises(OutputError):
        Study([], tmp_path)


def test_effort_compares_quick_looks_with_closer_ones(workplace: Path) -> None:
    data = run("effort")
    ways = [(row["quick"], row["way"]) for row in data["rows"]]
    assert ways[0] == ("", "closely, mirrored")
    margins = [f"within {margin}" for margin in (0.02, 0.05, 0.08)]
    assert ways[1:] == [("coarse", way) for way in ("alone", *margins, "decide")]
    mirrored, alone, *_, decided = data["rows"]
    assert (mirrored["paths"], mirrored["tiles"], mirrored["closer"]) == (1, 1, 1), "its model sees alike"
    assert alone["closer"] == alone["mirrored"] == 0
    assert decided["tiles"] >= alone["tiles"]
    assert decided["closer"] > 0 < decided["mirrored"]
    assert all(row["foreground_time"] > 0 for row in data["rows"])
