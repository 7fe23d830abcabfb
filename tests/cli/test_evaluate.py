from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from tiny_distillation import arguments, assert_refused
from watched_progress import Watched

import fgdd_fast
from fgdd_fast.cli import main

torch = pytest.importorskip("torch")


@pytest.fixture
def place(workplace: Path) -> Path:
    """A workplace with a distilled set `out`, and `val`."""
    result = CliRunner().invoke(main, arguments(workplace, ipc=2, threads=1))
    assert result.exit_code == 0, result.output
    tiny.write_squares(workplace / "val", 4)
    for file in (workplace / "val").rglob("*.png"):  # other images than those of `data`
        cv2.imwrite(str(file), cv2.flip(cv2.imread(str(file)), 1))
    return workplace


def evaluate(place: Path, *words: str, data: str = "out", **options: Any) -> Result:
    chosen = {
        "validation": place / "val",
        "teacher": place / "tiny-teacher.onnx",
        "architectures": "convnet2-w8",
        "seeds": 2,
        "epochs": 5,
        "threads": 1,
        "device": "cpu",
        "teacher_device": "cpu",
        **options,
    }
    pairs = (
        (f"--{name.replace('_', '-')}", str(value)) for name, value in chosen.items() if value is not None
    )
    return CliRunner().invoke(
        main, ["evaluate", str(place / data), *(word for pair in pairs for word in pair), *words]
    )


def without_times(file: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(file.read_text())
    del result["environment"]
    for student in result["students"]:
        del student["seconds"]
    return result


def test_students_are_trained_judged_and_reported(place: Path) -> None:
    pytest.importorskip("matplotlib")
    architectures = "convnet2-w8,resnet18-small-w2"
    json_file, plot = place / "result.json", place / "curves.png"
    result = evaluate(place, architectures=architectures, seed=7, json=json_file, plot=plot)
    assert result.exit_code == 0, result.output
    found = json.loads(json_file.read_text())
    students = found["students"]
    assert [(one["architecture"], one["seed"]) for one in students] == [
        (name, seed) for name in architectures.split(",") for seed in (7, 8)
    ]
    for one in students:
        right = np.array(one["predictions"]) == np.array(found["validation"]["labels"])
        assert one["top1"] == pytest.approx(right.mean())
        assert one["curve"] == {"5": one["top1"]}
        assert len(one["losses"]) == 5
    summary = found["architectures"]["convnet2-w8"]["top1"]
    values = [one["top1"] for one in students[:2]]
    assert summary == {
        "mean": pytest.approx(statistics.mean(values)),
        "deviation": pytest.approx(statistics.stdev(values)),
        "values": values,
    }
    told = f"{100 * summary['mean']:.1f} ± {100 * summary['deviation']:.1f} % right"
    assert f"convnet2-w8: {told}" in result.output
    assert found["validation"]["chance"] == pytest.approx(1 / 3)
    assert found["teacher"]["photographs"]["top1"] == 1.0
    assert found["training"]["labels"] == "online"
    assert found["recipe"]["arithmetic"] == "fp32"
    assert found["environment"]["device"] == "cpu"
    assert str(place) not in json_file.read_text()
    assert cv2.imread(str(plot)) is not None


def test_the_library_does_what_the_command_does(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    json_file, again = place / "result.json", place / "again.json"
    assert evaluate(place, json=json_file).exit_code == 0
    capfd.readouterr()
    watched = Watched()
    found = fgdd_fast.evaluate(
        place / "out",
        validation=place / "val",
        teacher=place / "tiny-teacher.onnx",
        architectures=["convnet2-w8"],
        students=2,
        epochs=5,
        device="cpu",
        threads=1,
        teacher_runtime=fgdd_fast.RuntimeOptions(device="cpu", threads=1),
        progress=watched,
    )
    assert capfd.readouterr() == ("", "")
    assert watched.steps[-1] == ("convnet2-w8", 10)
    found.write_json(again)
    assert without_times(again) == without_times(json_file)


def test_what_is_kept_is_not_trained_again(place: Path) -> None:
    first, second, more = (place / f"{name}.json" for name in ("first", "second", "more"))
    kept = place / "kept"
    assert evaluate(place, json=first, checkpoints=kept).exit_code == 0
    files = {file: file.read_bytes() for file in kept.iterdir()}
    assert evaluate(place, json=second, checkpoints=kept).exit_code == 0
    assert without_times(first) == without_times(second)
    assert {file: file.read_bytes() for file in kept.iterdir()} == files
    assert evaluate(place, json=more, checkpoints=kept, seeds=3).exit_code == 0
    assert without_times(more)["students"][:2] == without_times(first)["students"]


def test_stored_labels_are_used_where_no_teacher_is_named(place: Path) -> None:
    words = ["label", str(place / "out"), "--teacher", str(place / "tiny-teacher.onnx"), "--epochs", "3"]
    assert CliRunner().invoke(main, [*words, "--device", "cpu"]).exit_code == 0
    json_file = place / "result.json"
    result = evaluate(place, teacher=None, epochs=None, json=json_file)
    assert result.exit_code == 0, result.output
    found = json.loads(json_file.read_text())
    assert (found["training"]["labels"], found["recipe"]["epochs"], found["teacher"]) == ("stored", 3, None)
    assert found["training"]["teacher"].keys() == {"name", "sha256"}
    assert found["training"]["teacher"]["name"] == "tiny-teacher"
    judged = evaluate(place, labels="stored", epochs=3, json=json_file)
    assert judged.exit_code == 0, judged.output
    assert json.loads(json_file.read_text())["teacher"]["photographs"]["top1"] == 1.0
    other = tiny.teacher_bundle(place, name="other", features=True)
    refused = evaluate(place, teacher=other.onnx, labels="stored", epochs=3)
    assert_refused(refused, "those of tiny-teacher", "not of other")


def test_a_folder_of_images_is_the_ceiling(place: Path) -> None:
    """Its images judge here as well, which is noticed."""
    json_file = place / "result.json"
    options = {"teacher": None, "size": 12, "seeds": 1, "epochs": 1, "json": json_file}
    result = evaluate(place, data="data", validation=place / "data", **options)
    assert result.exit_code == 0, result.output
    assert "24 of 24 validation images are among those" in result.output
    found = json.loads(json_file.read_text())
    assert (found["training"]["labels"], found["training"]["images"]) == ("hard", 24)
    assert found["architectures"]["convnet2-w8"]["top1"]["deviation"] is None


def test_unreadable_validation_images_are_listed(place: Path) -> None:
    (place / "val" / "red" / "00.png").write_bytes(b"no image")
    result = evaluate(place, json=place / "result.json", epochs=1)
    assert result.exit_code == 0, result.output
    assert "red/00.png" in result.output
    assert "among those" not in result.output
    found = json.loads((place / "result.json").read_text())["validation"]
    assert (found["images"], [item["source"] for item in found["skipped"]]) == (11, ["red/00.png"])


def test_older_spellings_are_taken_with_a_warning(place: Path) -> None:
    words = ["--val", str(place / "val"), "--batch", "4", "--arithmetic=bf16"]
    result = evaluate(place, *words, validation=None, epochs=1, json=place / "result.json")
    assert result.exit_code == 0, result.output
    for new in ("--validation", "--student-batch", "--precision"):
        assert f"is called {new} now" in result.output
    found = json.loads((place / "result.json").read_text())
    assert (found["recipe"]["arithmetic"], found["training"]["views"]["batch"]) == ("bf16", 4)


def test_the_teacher_s_device_is_chosen_by_itself(place: Path) -> None:
    """Its runtime is no affair of the students' device."""
    assert_refused(evaluate(place, teacher_device="cpu", teacher_precision="bf16"), "bf16")
    if not torch.cuda.is_available():
        assert_refused(evaluate(place, device="cuda"), "PyTorch finds no CUDA device")


def test_teachers_that_do_not_fit_are_refused(place: Path) -> None:
    lacking = tiny.teacher_bundle(place, ("blue", "green", "pink"), name="lacking")
    assert_refused(evaluate(place, teacher=lacking.onnx), "does not know 'red'")
    tiny.write_squares(place / "val", 8)
    swapped = tiny.teacher_bundle(place, ("green", "blue", "red"), name="swapped")
    assert_refused(evaluate(place, teacher=swapped.onnx), "of 'blue' are taken for 'green'")
    (place / "val" / "red").rename(place / "val" / "crimson")
    assert_refused(evaluate(place), "it has 'crimson', and it lacks 'red'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teacher": None}, ["no teacher is named"]),
        ({"architectures": "resnet9000"}, ["There is no student 'resnet9000'", "convnet3"]),
        ({"architectures": "convnet5"}, ["16 pixels are too few"]),
        ({"architectures": ","}, ["or none is"]),
        ({"validation": "nowhere"}, ["There is no folder nowhere"]),
        ({"json": "."}, ["it is a folder"]),
    ],
)
def test_what_cannot_work_is_refused(place: Path, options: dict[str, Any], words: list[str]) -> None:
    assert_refused(evaluate(place, **options), *words)


@pytest.mark.parametrize(("checkpoints", "says"), [(None, "Nothing is kept"), ("kept", "work is kept")])
def test_ctrl_c_says_what_is_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: str | None, says: str
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fgdd_fast.students.training.loop.train_students", stop)
    result = evaluate(place, checkpoints=None if checkpoints is None else place / checkpoints)
    assert result.exit_code == 130
    assert says in result.output


@pytest.mark.parametrize(("package", "options"), [("torch", {}), ("matplotlib", {"plot": "curves.png"})])
def test_a_missing_package_gives_the_install_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, package: str, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert_refused(evaluate(place, **options), "pip install 'fgdd-fast[evaluate]'")
