"""What version 0.1 wrote stays readable: opening it needs no inference and no new measurement."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import plan_files
import pytest
from click.testing import CliRunner
from tiny_distillation import contents

from fgdd_engines.bundle.bundle import load_bundle
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.cli import main
from fgdd_fast.labels.stored import open_labels
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.manifest_reading import read_manifest

onnxruntime = pytest.importorskip("onnxruntime")

WRITTEN = Path(__file__).parents[1] / "written_by_0_1"
IMAGES = 15
RUNTIME = ["--device", "cpu", "--precision", "fp32", "--batch", "1", "--threads", "1"]
MEASURED = [
    *("--size", "64", "--crops", "3", "--resize", "pil", "--store", "store"),
    *("--teacher", "models/teacher.onnx", *RUNTIME),
]
# As in make.sh: how foregrounds were measured and views shown, and what was decided then.
FOREGROUND = {
    "out": ["--foreground", "models/tiny-foreground.onnx", "--score-view", "pad"],
    "asked": [
        *("--foreground", "models/tiny-grounded.onnx"),
        *("--prompts", "prompts.txt", "--box-threshold", "0.3"),
    ],
}
DECIDED = {
    "out": ["--ranking", "stratified-kmeans", "--near-duplicates", "2", "--rule", "median"],
    "asked": [],
}
LABELLED = {"out": ["--epochs", "2"], "asked": ["--epochs", "1", "--compress", "top:2"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of everything, which is the cache folder as well, for the plan's sake."""
    copy = Path(shutil.copytree(WRITTEN, tmp_path / "written"))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("FGDD_FAST_CACHE", str(copy))
    monkeypatch.setenv("COLUMNS", "200")
    return copy


@pytest.fixture
def as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime under the version that measured, which the keys of store and labels name.

    What another version measures would rightly be measured anew; this is about the formats.
    """
    tool = json.loads((WRITTEN / "out" / "manifest.json").read_bytes())["tool"]
    (version,) = set(re.findall(r"ONNX Runtime ([\w.+-]+)", tool["runtime"]))
    monkeypatch.setattr(onnxruntime, "__version__", version)


@pytest.fixture
def nothing_runs(as_measured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may see an image; one may still read prompts, which it does when it is opened."""
    run = onnxruntime.InferenceSession.run

    def run_on_prompts(session: Any, outputs: Any, feeds: Any, *rest: Any) -> Any:
        assert "input_ids" in feeds, "an image is measured or labelled"
        return run(session, outputs, feeds, *rest)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an image is measured or labelled")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run_on_prompts)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", refuse)


@pytest.fixture(params=["out", "asked"])
def name(request: pytest.FixtureRequest) -> str:
    """A distilled data set; one of them needs the tokenizers for its prompts."""
    if request.param == "asked":
        pytest.importorskip("tokenizers")
    return str(request.param)


def run(*words: str) -> str:
    """What a command prints that succeeds."""
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, (result.output, result.exception)
    return str(result.output)


def manifest(out: str) -> dict[str, Any]:
    """A manifest without the versions of programs."""
    data = json.loads(Path(out, "manifest.json").read_bytes())
    return {key: value for key, value in data.items() if key not in ("format", "tool")}


def same_images(one: str, other: str) -> bool:
    """Whether two sets have the same mosaics: the same files, where the same OpenCV encoded them."""
    tool = json.loads(Path(one, "manifest.json").read_bytes())["tool"]
    if tool["opencv"] == cv2.__version__:
        return contents(Path(one, "images")) == contents(Path(other, "images"))
    files = [sorted(path.relative_to(out) for path in Path(out).rglob("*.png")) for out in (one, other)]
    return files[0] == files[1] and all(
        np.array_equal(cv2.imread(str(Path(one, file))), cv2.imread(str(Path(other, file))))
        for file in files[0]
    )


@pytest.mark.usefixtures("nothing_runs")
def test_the_store_holds_every_measurement(name: str) -> None:
    output = run("measure", "data", *FOREGROUND[name], *MEASURED)
    assert "0 images measured" in output
    assert f"{IMAGES} were known; 0 skipped" in output


@pytest.mark.usefixtures("nothing_runs")
def test_distilling_from_the_store_gives_the_same_bytes(name: str) -> None:
    run("distill", "data", "again", "--ipc", "1", *FOREGROUND[name], *DECIDED[name], *MEASURED)
    assert manifest("again") == manifest(name)
    assert same_images(name, "again")


@pytest.mark.usefixtures("nothing_runs")
def test_an_older_set_is_known_as_one_and_replaced() -> None:
    shutil.copytree("out", "older")
    words = ["--ipc", "1", *FOREGROUND["out"], *DECIDED["out"], *MEASURED]
    run("distill", "data", "out", "--overwrite", *words)
    assert manifest("out") == manifest("older")
    assert not Path("out/labels").exists()


def test_another_version_of_the_runtime_measures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "0.0.0")
    output = run("measure", "data", *FOREGROUND["out"], *MEASURED)
    assert f"{IMAGES} images measured" in output


@pytest.mark.usefixtures("nothing_runs")
def test_nothing_of_the_labels_is_made_anew(name: str) -> None:
    before = contents(Path(name))
    output = run("label", name, "--teacher", "models/teacher.onnx", *LABELLED[name], *RUNTIME)
    assert "0 images, tiles and views labelled" in output
    assert contents(Path(name)) == before


@pytest.mark.usefixtures("as_measured")
def test_labels_go_on_from_there() -> None:
    before = contents(Path("out"))
    run("label", "out", "--teacher", "models/teacher.onnx", "--epochs", "3", *RUNTIME)
    after = contents(Path("out"))
    assert after.keys() - before.keys() == {"labels/epoch-00002.safetensors"}
    assert {file for file in before if after[file] != before[file]} == {"labels/labels.json"}


def test_labels_are_read(name: str) -> None:
    distilled = open_distilled(Path(name))
    labels = open_labels(distilled)
    assert labels.mosaics().argmax(axis=1).tolist() == [0, 1, 2]
    assert labels.tiles().shape == (3, 4, 3)
    for epoch in range(int(LABELLED[name][1])):
        views, logits = labels.epoch(epoch)
        assert len(logits) == 3
        assert np.isfinite(logits).all()
        assert views is not None


def test_the_manifest_is_read(name: str) -> None:
    read = read_manifest(Path(name))
    assert read.classes == ("blue", "green", "red")
    assert read.image_count == IMAGES
    assert read.tool["fgdd-fast"] == "0.1.0"
    assert dict(read.prompts) == (
        {} if name == "out" else {"blue": ("blue",), "green": ("green",), "red": ("red patch", "red")}
    )
    assert read.box_threshold == (None if name == "out" else 0.3)


def test_a_sheet_is_drawn(name: str) -> None:
    foreground = FOREGROUND[name][:2]
    run("sheet", name, "data", "-o", "sheet.png", *foreground, "--device", "cpu", "--threads", "1")
    assert cv2.imread("sheet.png") is not None


def test_the_bundles_open() -> None:
    teacher = load_bundle(Path("models/teacher.onnx"), "teacher")
    (form,) = teacher.cropped_graphs()
    assert form.tile_of == teacher.sha256
    assert form.preprocessing.width == 32
    for bundle in (teacher, form):
        for variant in ("int8", "int8-u8"):
            found = bundle.find_variant(variant)
            assert found is not None
            assert (found.variant, found.variant_of) == (variant, bundle.sha256)
    assert load_bundle(Path("models/backbone.onnx")).role == "backbone"
    assert load_bundle(Path("models/tiny-foreground.onnx")).role == "foreground"
    grounded = load_bundle(Path("models/tiny-grounded.onnx"))
    assert grounded.prompting is not None
    assert grounded.prompting["threshold"] == 0.4
    assert grounded.part("text").role == "text-encoder"
    assert grounded.file("tokenizer.json").exists()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_teacher_knows_its_classes(precision: str) -> None:
    words = ["--device", "cpu", "--precision", precision, "--threads", "1"]
    output = run("teacher", "check", "models/teacher.onnx", "data", *words)
    assert f"100.0% of {IMAGES} images right" in output


def test_the_plan_is_found() -> None:
    store = PlanStore()
    plan = store.load(plan_files.KEY)[0]
    assert (plan.key, plan.layers, plan.state) == (plan_files.KEY, plan_files.LAYERS, "passed")
    assert store.plan_bytes(plan) == b"kernels"
    assert (store.damaged(), len(store.timing_caches())) == ((), 1)
    assert json.loads(run("engine", "inspect", "tiny", "--json")) == json.loads(plan.sidecar.read_bytes())
