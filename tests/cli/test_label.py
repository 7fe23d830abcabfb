"""`fgdd-fast label`: repeats, goes on where it was stopped, and refuses what would mix."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import tiny_pipeline as tiny
from tiny_distillation import assert_refused, contents, distill
from tiny_labels import IMAGES, SIZE, arguments, label, make_out, wide_teacher_bundle
from watched_progress import Watched

import fgdd_fast
from fgdd_engines.bundle.bundle import load_bundle, write_bundle
from fgdd_engines.file_lock import exclusive_lock
from fgdd_fast.labels.stored import StoredLabels, open_labels
from fgdd_fast.labels.training_views import ViewRecipe
from fgdd_fast.labels.writing import LabelWriter
from fgdd_fast.output.distilled import open_distilled


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_out(tmp_path_factory.mktemp("distilled"))


@pytest.fixture
def out(distilled: Path, tmp_path: Path) -> Path:
    for file in distilled.parent.glob("tiny-*"):
        shutil.copy(file, tmp_path)
    return Path(shutil.copytree(distilled, tmp_path / "out"))


def stored(out: Path) -> StoredLabels:
    return open_labels(open_distilled(out))


def done(out: Path, teacher: str = "tiny-teacher", **options: Any) -> str:
    result = label(out, teacher, **options)
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_the_same_command_gives_the_same_bytes(out: Path, distilled: Path, tmp_path: Path) -> None:
    done(out)
    other = Path(shutil.copytree(distilled, tmp_path / "other"))
    done(other, threads=1)
    assert contents(out) == contents(other)
    assert set(contents(out / "labels")) == {
        "labels.json",
        "images.safetensors",
        *(f"epoch-0000{epoch}.safetensors" for epoch in range(3)),
    }


def test_epochs_are_added_and_never_dropped(out: Path, distilled: Path, tmp_path: Path) -> None:
    assert "6 images and their tiles" in done(out, epochs=0)
    assert (stored(out).epochs, stored(out).recipe) == (0, None)
    images = (out / "labels/images.safetensors").stat()
    assert f"2 epochs of {IMAGES} views" in done(out, epochs=2)
    output = done(out, epochs=5)
    assert f"{3 * IMAGES} images, tiles and views labelled" in output
    assert "float16: 100.00% of the top classes" in output
    size = sum(path.stat().st_size for path in (out / "labels").glob("*.safetensors"))
    assert f"{size:,} bytes in all" in output
    other = Path(shutil.copytree(distilled, tmp_path / "other"))
    done(other, epochs=5)
    assert contents(out) == contents(other)
    assert "0 images, tiles and views labelled" in done(out, epochs=4)
    assert (out / "labels/images.safetensors").stat().st_ino == images.st_ino, "they are not made again"
    (out / "labels/epoch-00001.safetensors").write_bytes(b"damaged")
    for name in ("epoch-00003", "images"):
        (out / f"labels/{name}.safetensors").unlink()
    done(out, epochs=0)
    assert contents(out) == contents(other), "what is missing or damaged is made again, and no other dropped"


def test_the_library_does_what_the_command_does(
    out: Path, distilled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done(out)
    other = Path(shutil.copytree(distilled, tmp_path / "other"))
    capfd.readouterr()
    watched, threads = Watched(), cv2.getNumThreads()
    runtime = fgdd_fast.RuntimeOptions(device="cpu", threads=2)
    options: dict[str, Any] = {"epochs": 3, "student_batch": 4, "runtime": runtime, "progress": watched}
    index = fgdd_fast.make_labels(other, tmp_path / "tiny-teacher.onnx", **options)
    assert capfd.readouterr() == ("", "")
    assert cv2.getNumThreads() == threads, "the process is left as it was"
    assert index.epochs == 3
    assert watched.steps[-1] == ("Labelling", 8 * IMAGES)
    assert contents(out) == contents(other)


@pytest.mark.parametrize("compress", ["int8", "top:1"])
def test_compressions(out: Path, distilled: Path, tmp_path: Path, compress: str) -> None:
    assert compress in done(out, compress=compress)
    other = Path(shutil.copytree(distilled, tmp_path / "other"))
    done(other)
    one, whole = stored(out).epoch(1)[1], stored(other).epoch(1)[1]
    assert one.shape == whole.shape
    assert (one.argmax(axis=1) == whole.argmax(axis=1)).all()
    assert not (one == whole).all()


def test_views_at_the_students_size_without_mixing(out: Path) -> None:
    done(out, size=8, no_cutmix=True, seed=4)
    assert stored(out).recipe == ViewRecipe(size=8, factor=2, batch=4, seed=4, cutmix=False)
    assert not stored(out).epoch(0)[0].patch.any()


STOPPED = """
import os, signal, sys
from fgdd_fast.labels import writing as label_writing
from fgdd_fast.cli import main
label_writing.SECONDS = 0
put = label_writing.LabelWriter._put
def put_until(writer, name, *parts):
    if name == "epoch-00003.safetensors" and sys.argv[1] == "before":
        (writer._staging / ".half.part").write_bytes(b"".join(parts)[:50])
        os.kill(os.getpid(), signal.SIGKILL)
    put(writer, name, *parts)
    if name == "epoch-00003.safetensors":
        os.kill(os.getpid(), signal.SIGKILL)
label_writing.LabelWriter._put = put_until
main(sys.argv[2:])
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_run_goes_on(out: Path, distilled: Path, tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-c", STOPPED, moment, *arguments(out, epochs=6)]
    killed = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    index = json.loads((out / "labels/labels.json").read_bytes())
    assert len(index["files"]) == 1 + 3, "the images, and three epochs"
    kept = {name: (out / "labels" / name).stat().st_ino for name in index["files"]}
    assert f"{3 * IMAGES} images, tiles and views labelled" in done(out, epochs=6)
    assert all((out / "labels" / name).stat().st_ino == inode for name, inode in kept.items())
    other = Path(shutil.copytree(distilled, tmp_path / "other"))
    done(other, epochs=6)
    assert contents(out) == contents(other)
    assert not [path for path in (out / "labels").iterdir() if path.name.startswith(".")]


def test_what_stopped_runs_and_others_leave_is_replaced(out: Path) -> None:
    (out / "labels/.labels.staging").mkdir(parents=True)
    (out / "labels/.labels.lock").touch()
    done(out, epochs=5)
    with exclusive_lock(out / "labels", "labels", lambda: None):
        assert_refused(label(out, epochs=6), "Another process is writing the labels")
    done(out, epochs=2, seed=9, overwrite=True)
    assert len(list((out / "labels").glob("epoch-*"))) == 2
    (out / "labels/labels.json").write_text("{")
    assert_refused(label(out), "no description of labels", "--overwrite")
    done(out, overwrite=True)
    assert stored(out).epochs == 3


def test_ctrl_c_says_what_is_kept(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = LabelWriter.add

    def add_two(writer: LabelWriter, name: str, *rest: Any) -> None:
        if name == "epoch-00002.safetensors":
            raise KeyboardInterrupt
        add(writer, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(LabelWriter, "add", add_two)
        result = label(out, epochs=5)
    assert result.exit_code == 130
    assert "2 of 5 epochs are labelled and kept" in result.output
    assert "the same command goes on" in result.output
    assert len(json.loads((out / "labels/labels.json").read_bytes())["files"]) == 3
    done(out, epochs=5)
    assert stored(out).epochs == 5


def test_another_teacher_only_where_it_is_asked_for(out: Path) -> None:
    bundle = load_bundle(out.parent / "tiny-teacher.onnx")
    graph = bundle.onnx.read_bytes() + b"\x72\x00"  # an empty field more: the same network by another hash
    write_bundle(replace(bundle, onnx=out.parent / "stranger.onnx", name="stranger"), graph)
    assert_refused(label(out, "stranger"), "stranger", "distilled with: tiny-teacher", "--other-teacher")
    assert "stranger is not the teacher" in done(out, "stranger", other_teacher=True)
    assert stored(out).teacher.name == "stranger"
    assert_refused(label(out), "made otherwise", "teacher stranger")


def test_columns_are_chosen_by_name(out: Path) -> None:
    """A teacher with more classes, in another order: the columns are those of the manifest, in its order."""
    done(out)
    plain = stored(out).mosaics()
    done(out, wide_teacher_bundle(out.parent).name, other_teacher=True, overwrite=True)
    assert stored(out).classes == ("blue", "green", "red")
    assert abs(stored(out).mosaics() - plain).max() < 1e-3


def test_a_teacher_with_its_class_names_in_another_order(out: Path) -> None:
    """The graph is the same to the byte, so only its predictions tell."""
    bundle = load_bundle(out.parent / "tiny-teacher.onnx")
    write_bundle(replace(bundle, classes=("green", "blue", "red")), bundle.onnx.read_bytes())
    words = ("not in the order of its outputs", "images of 'blue' are taken for 'green'")
    assert_refused(label(out), *words)
    assert_refused(label(out), *words)
    write_bundle(bundle, bundle.onnx.read_bytes())
    done(out)
    stored(out)


def test_what_cannot_label_is_refused(out: Path, tmp_path: Path) -> None:
    assert_refused(label(out, teacher=None), "Missing option '--teacher'")
    tiny.teacher_bundle(out.parent, ("blue", "green", "yellow"), "lacking")
    assert_refused(label(out, "lacking", other_teacher=True), "does not know 'red'")
    bundle = load_bundle(out.parent / "tiny-teacher.onnx")
    form = replace(bundle, onnx=out.parent / "form.onnx", tile_of=bundle.sha256)
    write_bundle(form, bundle.onnx.read_bytes())
    assert_refused(label(out, "form"), "takes tiles of 16 pixels", "Name the teacher itself")
    assert_refused(label(out, view="native", size=8), "takes views of 16 x 16 pixels, not of 8")
    assert_refused(label(out, compress="zip"), "no compression 'zip'")
    assert_refused(label(tmp_path / "nothing"), "no manifest")
    done(out, view="native")
    (out / "images/red/red_00001.png").unlink()
    assert_refused(label(out), "lacks 1 of its 6 images")


def test_a_variant_stands_for_its_teacher(out: Path) -> None:
    bundle = load_bundle(out.parent / "tiny-teacher.onnx")
    variant = replace(
        bundle,
        onnx=out.parent / "tiny-teacher.int8-u8.onnx",
        variant="int8-u8",
        variant_of=bundle.sha256,
    )
    write_bundle(variant, bundle.onnx.read_bytes() + b"\x72\x00")
    done(out, precision="int8")
    assert stored(out).teacher.sha256 == bundle.sha256
    assert_refused(label(out, precision="fp32"), "made otherwise", "inference model")


def test_a_folder_labels_of_something_else_is_left_alone(out: Path) -> None:
    (out / "labels").mkdir()
    (out / "labels/thesis.tex").write_text("mine")
    for flags in ({}, {"overwrite": True}):
        assert_refused(label(out, **flags), "something other than labels", "thesis.tex")
    assert [path.name for path in (out / "labels").iterdir()] == ["thesis.tex"]


def test_distilling_over_labels_replaces_ours_alone(distilled: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(distilled.parent, tmp_path / "place"))
    (place / "out/labels").mkdir()
    (place / "out/labels/labels.json").write_text('{"cat": 1}')
    before = contents(place / "out")
    assert_refused(distill(place, "out", "--overwrite"), "something other than a distilled data set")
    assert contents(place / "out") == before
    (place / "out/labels/labels.json").unlink()
    (place / "out/labels/.labels.lock").touch()  # what a run stopped at once leaves
    assert distill(place, "out", "--overwrite", ipc=2, size=SIZE).exit_code == 0
    done(place / "out")
    assert distill(place, "out", "--overwrite", ipc=2, size=SIZE).exit_code == 0
    assert not (place / "out/labels").exists(), "they were of the older images"


def test_labels_need_no_torch(out: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from fgdd_fast.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", script, *arguments(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_distilling_and_labelling_in_one_go(out: Path, distilled: Path, tmp_path: Path) -> None:
    done(out, epochs=2, student_batch=None)
    shutil.copytree(distilled.parent / "data", tmp_path / "data")
    result = distill(tmp_path, "both", ipc=2, size=SIZE, label_epochs=2)
    assert result.exit_code == 0, result.output
    assert "2 epochs of 6 views" in result.output
    assert contents(tmp_path / "both") == contents(out)
