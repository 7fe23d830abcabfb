"""Fitting and checking teachers, with a backbone whose features are mean colours."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from watched_progress import Watched

import fgdd_fast
from fgdd_engines.bundle.bundle import load_bundle
from fgdd_fast.cli import main
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.linear_head import Accuracy, accuracy, fit_head, hold_out, swapped_classes
from fgdd_fast.models.network import Runtime, Teacher
from fgdd_fast.runtime.choose import RuntimeOptions

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    tiny.write_squares(tmp_path / "data", 12)
    tiny.backbone_bundle(tmp_path)
    tiny.teacher_bundle(tmp_path)
    return tmp_path


def fit(folder: Path, *options: str) -> Result:
    words = ["teacher", "fit", folder / "data", "-o", folder / "fitted.onnx"]
    words += ["--backbone", folder / "tiny-backbone.onnx", "--device", "cpu"]
    return CliRunner().invoke(main, [*map(str, words), *options])


def check(folder: Path, bundle: str = "tiny-teacher.onnx") -> Result:
    words = ["teacher", "check", folder / bundle, folder / "data", "--device", "cpu"]
    return CliRunner().invoke(main, [*map(str, words)])


def test_a_fitted_teacher_gives_the_backbone_s_features(workplace: Path) -> None:
    assert fit(workplace).exit_code == 0
    bundle = load_bundle(workplace / "fitted.onnx", "teacher")
    images = np.random.default_rng(0).integers(0, 256, (3, tiny.SIDE, tiny.SIDE, 3), dtype=np.uint8)
    teacher = Teacher(bundle, Runtime("cpu", "fp32", 1), view="native", tile_size=tiny.SIDE, batch=2)
    with closing(teacher):
        features, logits = teacher.features(images), teacher.logits(images)
    assert features == pytest.approx(images.mean(axis=(1, 2)), rel=1e-5)  # as the tiny backbone makes them
    constants = {
        item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(bundle.onnx).graph.initializer
    }
    (weight,) = (array for array in constants.values() if array.shape == (len(tiny.CLASSES), 3))
    (bias,) = (array for array in constants.values() if array.shape == (len(tiny.CLASSES),))
    assert logits == pytest.approx(features @ weight.T + bias, abs=1e-3)


def test_a_fitted_teacher_knows_its_classes_and_says_how_well(workplace: Path) -> None:
    result = fit(workplace)
    assert result.exit_code == 0, result.output
    bundle = load_bundle(workplace / "fitted.onnx", "teacher")
    assert bundle.classes == tiny.CLASSES
    assert bundle.accuracy["top1"] > 0.9
    assert bundle.accuracy["images"] == 6  # a fifth of 12, for 3 classes
    assert "100.0 %" in result.output
    result = check(workplace, "fitted.onnx")
    assert result.exit_code == 0, result.output
    assert "knows these classes" in result.output


def test_a_validation_folder_is_what_is_judged(workplace: Path) -> None:
    tiny.write_squares(workplace / "held", 5)
    assert fit(workplace, "--validation", str(workplace / "held")).exit_code == 0
    assert load_bundle(workplace / "fitted.onnx").accuracy["images"] == 15


def test_a_teacher_at_chance_level_is_refused(workplace: Path) -> None:
    files = sorted((workplace / "data").rglob("*.png"))
    contents = [file.read_bytes() for file in files]
    for file, place in zip(files, np.random.default_rng(3).permutation(len(files)), strict=True):
        file.write_bytes(contents[place])  # labels mean nothing now
    result = fit(workplace)
    assert result.exit_code == 1
    assert "no better than guessing" in result.output.replace("\n", " ")
    assert not (workplace / "fitted.onnx").exists()
    assert fit(workplace, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("one class", "one class"),
        ("one image each", "--validation"),
        ("other classes held out", "'crimson'"),
        ("unreadable images", "'red'"),
    ],
)
def test_what_cannot_be_fitted_is_told(workplace: Path, trouble: str, said: str) -> None:
    data, options = workplace / "data", []
    if trouble == "one class":
        for name in ("blue", "green"):
            shutil.rmtree(data / name)
    elif trouble == "one image each":
        for file in data.rglob("*.png"):
            if file.name != "00.png":
                file.unlink()
    elif trouble == "other classes held out":
        (tiny.write_squares(workplace / "held", 2) / "red").rename(workplace / "held" / "crimson")
        options = ["--validation", str(workplace / "held")]
    else:
        for file in (data / "red").iterdir():
            file.write_bytes(b"")
    result = fit(workplace, *options)
    assert result.exit_code == 1
    assert said in result.output


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("green", "blue", "red"), ["'green' are taken for 'blue'", "'blue' are taken for 'green'"]),
        (("blue", "Green", "red"), ["'green'", "'Green'"]),
        (None, ["classes"]),
    ],
)
def test_check_names_classes_that_are_in_the_wrong_order_or_not_there(
    workplace: Path, classes: tuple[str, ...] | None, said: list[str]
) -> None:
    bundle = tiny.teacher_bundle(workplace, classes or tiny.CLASSES)
    if classes is None:  # a sidecar that was edited into nonsense
        data = json.loads(bundle.sidecar.read_text())
        del data["classes"]
        bundle.sidecar.write_text(json.dumps(data))
    result = check(workplace)
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert all(words in text for words in said)
    assert "'red' are" not in text


@pytest.mark.parametrize("count", [2, 3])
def test_the_head_is_scikit_learns_on_standardised_features(count: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, count, 90)
    features = rng.normal(labels[:, None] * 1.5, 1, (90, 4)) * [1, 100, 0.01, 0] + [0, 5, -3, 7]
    features = features.astype(np.float32)
    head = fit_head(features, labels)
    assert head.weight.shape == (count, 4)
    shares = np.exp(head.logits(features))
    shares /= shares.sum(axis=1, keepdims=True)
    scale = np.where(features.std(axis=0) == 0, 1, features.std(axis=0))
    standardised = (features - features.mean(axis=0)) / scale
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=3 / 90, max_iter=1000).fit(standardised, labels)
    assert shares == pytest.approx(model.predict_proba(standardised), abs=2e-3)


def sources(counts: dict[str, int]) -> list[SourceImage]:
    return [
        SourceImage(f"{name}/{i}.jpg", name, Path()) for name, count in counts.items() for i in range(count)
    ]


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1), st.floats(0.01, 0.99))
def test_holding_out_splits_every_class(counts: dict[str, int], share: float) -> None:
    images = sources(counts)
    fitted, held = hold_out(images, share, 0)
    assert sorted(map(str, (*fitted, *held))) == sorted(map(str, images))
    for name, count in counts.items():
        parts = [sum(image.class_name == name for image in part) for part in (fitted, held)]
        assert parts[0] >= 1
        assert parts[1] >= (count > 1)
        assert abs(parts[1] - share * count) <= 1


def test_holding_out_depends_on_the_seed_alone() -> None:
    images = sources({"a": 20, "b": 20})
    assert hold_out(images, 0.3, 0) == hold_out(images, 0.3, 0)
    assert hold_out(images, 0.3, 0) != hold_out(images, 0.3, 1)
    _, held = hold_out(images, 0.3, 0)
    _, reversed_held = hold_out(images[::-1], 0.3, 0)
    assert set(held) == set(reversed_held)


def test_holding_out_takes_one_pass_over_many_classes() -> None:
    images = sources({f"{place:05}": 2 for place in range(10_000)})
    begin = time.process_time()
    fitted, held = hold_out(images, 0.2, 0)
    assert len(fitted) == len(held) == 10_000
    assert time.process_time() - begin < 5  # one scan a class would take minutes


def test_accuracy_counts_by_class() -> None:
    logits = np.array([[2, 1, 0], [0, 1, 2], [0, 3, 1], [5, 1, 0]], np.float32)
    judged = accuracy(logits, np.array([0, 2, 1, 1]), ["a", "b", "c"])
    assert judged.top1 == 0.75
    assert judged.per_class == {"a": 1.0, "b": 0.5, "c": 1.0}
    assert judged.chance == 0.5


@pytest.mark.parametrize(
    ("right", "total", "expected"),
    [(4, 4, False), (10, 10, True), (60, 100, False), (63, 100, True), (0, 10, False)],
)
def test_chance_is_judged_by_the_exact_binomial_tail(right: int, total: int, expected: bool) -> None:
    """Two classes of equal size: 63 of 100 has a tail of 0.006, and 4 of 4 one of 0.06."""
    half = total // 2
    first = min(right, half)
    confusion = np.array([[first, half - first], [half - (right - first), right - first]])
    assert Accuracy(confusion, ("a", "b")).above_chance() is expected


def test_swapped_classes_are_cycles_of_majorities() -> None:
    order = np.array([[9, 1, 0, 0], [0, 1, 9, 0], [0, 0, 0, 10], [0, 10, 0, 0]])
    assert swapped_classes(order) == ((1, 2), (2, 3), (3, 1))
    confused = np.array([[2, 8, 0], [1, 9, 0], [0, 3, 7]])  # one class is mistaken for another, not swapped
    assert swapped_classes(confused) == ()
    undecided = np.array([[2, 4, 4], [4, 2, 4], [4, 4, 2]])
    assert swapped_classes(undecided) == ()


def test_the_functions_behind_the_commands_say_the_same(workplace: Path) -> None:
    watched, threads = Watched(), cv2.getNumThreads()
    options: dict[str, Any] = {"runtime": RuntimeOptions(device="cpu"), "progress": watched}
    cv2.setNumThreads(3)
    try:
        fitted = fgdd_fast.fit_teacher(
            workplace / "data", workplace / "mine", backbone=str(workplace / "tiny-backbone.onnx"), **options
        )
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(threads)
    assert {name for name, _ in watched.steps} == {"Reading images"}
    assert max(watched.steps)[1] == 30
    assert watched.steps[-1][1] == 6  # held out
    assert fitted.bundle == load_bundle(workplace / "mine.onnx", "teacher")
    assert fitted.accuracy.top1 == fitted.bundle.accuracy["top1"]
    assert fit(workplace).exit_code == 0
    assert (workplace / "mine.onnx").read_bytes() == (workplace / "fitted.onnx").read_bytes()
    (workplace / "data" / "red" / "broken.png").write_bytes(b"")
    checked = fgdd_fast.check_teacher(workplace / "mine", workplace / "data", limit=None, **options)
    assert (checked.accuracy.images, [each.source for each in checked.skipped]) == (36, ["red/broken.png"])
