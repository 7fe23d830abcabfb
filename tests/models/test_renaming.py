"""Teachers that call the classes otherwise, or in another order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from tiny_distillation import distill

import fgdd_fast
from fgdd_engines.bundle.bundle import load_bundle
from fgdd_fast.class_names import order_of_numbers
from fgdd_fast.cli import main
from fgdd_fast.errors import SettingsError, TeacherError
from fgdd_fast.runtime.choose import RuntimeOptions

CPU = RuntimeOptions(device="cpu", threads=2)


def rename(folder: Path, *options: str) -> Result:
    words = ["teacher", "rename", folder / "tiny-teacher.onnx", "-o", folder / "renamed", "--device", "cpu"]
    return CliRunner().invoke(main, [*map(str, words), *options])


@pytest.mark.parametrize(
    ("classes", "by"),
    [
        (("Blue", "GREEN", "Red "), "spelling"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), "answers"),
        (("green", "red", "blue"), "answers"),  # the right names at the wrong outputs
    ],
)
def test_outputs_take_the_names_of_the_folders(workplace: Path, classes: tuple[str, ...], by: str) -> None:
    old = tiny.teacher_bundle(workplace, classes)
    result = rename(workplace, "--from", str(workplace / "data"))
    assert result.exit_code == 0, result.output
    assert f"3 names are others, by {by}" in result.output
    bundle = load_bundle(workplace / "renamed.onnx", "teacher")
    assert bundle.classes == tiny.CLASSES
    assert bundle.sha256 == old.sha256
    assert load_bundle(workplace / "tiny-teacher.onnx").classes == classes
    assert distill(workplace, teacher=workplace / "renamed.onnx").exit_code == 0


def test_a_refused_teacher_names_the_way_out(workplace: Path) -> None:
    tiny.teacher_bundle(workplace, ("Blue", "GREEN", "red"))
    result = distill(workplace)
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "error teacher-names" in said
    assert said.count("fgdd-fast teacher rename") == 2


def test_a_list_of_names_is_taken_as_it_is(workplace: Path) -> None:
    file = workplace / "names.txt"
    file.write_text("azure\nlime\n\ncrimson\n")
    assert rename(workplace, "--names", str(file)).exit_code == 0
    assert load_bundle(workplace / "renamed.onnx").classes == ("azure", "lime", "crimson")
    file.write_text(json.dumps(["a", "b"]))
    result = rename(workplace, "--names", str(file))
    assert result.exit_code == 1
    assert "2 different names, and the teacher 3 outputs" in result.output
    for text in ("[[[", "[" * 100_000):
        file.write_text(text)
        assert "cannot be read" in rename(workplace, "--names", str(file)).output
    for given in ({}, {"data": workplace / "data", "names": file}):
        with pytest.raises(SettingsError, match="by the folders of its images, or by a list"):
            fgdd_fast.rename_teacher(workplace / "tiny-teacher.onnx", workplace / "new", **given)


def test_answers_that_tell_nothing_are_refused(workplace: Path) -> None:
    tiny.teacher_bundle(workplace, ("LABEL_0", "LABEL_1", "LABEL_2"))
    files = sorted((workplace / "data").rglob("*.png"))
    contents = [file.read_bytes() for file in files]
    for file, place in zip(files, np.random.default_rng(3).permutation(len(files)), strict=True):
        file.write_bytes(contents[place])
    teacher, new = workplace / "tiny-teacher.onnx", workplace / "new.onnx"
    with pytest.raises(TeacherError, match="do not tell which output is which folder: 'blue' is"):
        fgdd_fast.rename_teacher(teacher, new, data=workplace / "data", runtime=CPU)
    with pytest.raises(TeacherError, match="spelling"):
        fgdd_fast.rename_teacher(teacher, new, data=workplace / "data", by="spelling")
    assert not new.exists()


def test_theorder_of_numbers_is_recognised() -> None:
    strings, natural = ["1", "10", "2"], ["1", "2", "10"]
    said = "order of strings, and the outputs in that of numbers"
    assert said in order_of_numbers([("2", "10"), ("10", "2")], strings)
    assert "order of numbers, and" in order_of_numbers([("2", "10"), ("10", "2")], natural)
    assert order_of_numbers([("1", "2"), ("2", "1")], strings) == ""
    assert order_of_numbers([("a", "b"), ("b", "a")], ["a", "b"]) == ""


def test_teacher_check_says_that_numbers_were_sorted_otherwise(workplace: Path) -> None:
    for name, number in (("blue", "1"), ("green", "2"), ("red", "10")):  # as the outputs are
        (workplace / "data" / name).rename(workplace / "data" / number)
    tiny.teacher_bundle(workplace, ("1", "10", "2"))  # as a listing of folders would name them
    words = ["teacher", "check", workplace / "tiny-teacher.onnx", workplace / "data", "--device", "cpu"]
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "names are in the order of strings, and the outputs in that of numbers" in said
    assert rename(workplace, "--from", str(workplace / "data")).exit_code == 0
    assert load_bundle(workplace / "renamed.onnx").classes == ("1", "2", "10")
