"""Two ways to run a bundle are compared by what would be decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
from tiny_grounded import write_grounded_bundle

from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_fast.errors import SettingsError
from fgdd_fast.models.network import BatchedNetwork
from fgdd_fast.runtime.parity import REFERENCE, Comparison
from fgdd_fast.runtime.sample_images import drawn_sample_images

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

IMAGES = drawn_sample_images(8, named=False)


@pytest.fixture(params=[tiny.foreground_bundle, tiny.teacher_bundle, tiny.backbone_bundle])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    """A bundle of each role."""
    made: Bundle = request.param(tmp_path)
    return made


def patch_results(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[int, dict[str, Array]], Mapping[str, Array]]
) -> None:
    """Change what every network gives; `change` is told the batch."""
    run = BatchedNetwork.run

    def changed(
        self: BatchedNetwork, feeds: Mapping[str, Array], outputs: Sequence[str]
    ) -> Mapping[str, Array]:
        return change(self.batch, run(self, feeds, outputs))

    monkeypatch.setattr(BatchedNetwork, "run", changed)


def test_the_reference_agrees_with_itself(bundle: Bundle) -> None:
    held = Comparison(bundle, IMAGES).compare(REFERENCE, batch=2)
    assert held.parity.accepted
    assert held.parity.images == len(IMAGES)
    assert held.parity.level == "same arithmetic"
    assert held.parity.excess < 0.01
    assert held.images_per_second > 0
    assert "ONNX Runtime" in held.arithmetic


def test_the_batch_is_compared_unless_it_is_the_only_one(bundle: Bundle) -> None:
    comparison = Comparison(bundle, IMAGES)
    figures = comparison.compare(REFERENCE, batch=2).parity.figures
    alone = comparison.compare(REFERENCE, batch=1).parity.figures
    assert figures.keys() - alone.keys() == {next(name for name in figures if name.startswith("batch_"))}


def test_other_decisions_are_not_accepted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = Comparison(bundle, IMAGES)
    patch_results(monkeypatch, lambda _, found: {name: array[::-1] for name, array in found.items()})
    parity = comparison.compare(REFERENCE, batch=len(IMAGES), single=len(IMAGES)).parity
    assert not parity.accepted
    assert parity.excess > 1


def test_what_is_wrong_in_batches_only_is_noticed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = Comparison(bundle, IMAGES)
    first = {"foreground": 1, "teacher": 6, "backbone": 1}[bundle.role]
    patch_results(
        monkeypatch,
        lambda batch, found: (
            found if batch == first else {name: np.roll(array, 1, 0) for name, array in found.items()}
        ),
    )
    assert comparison.compare(REFERENCE, batch=1).parity.accepted
    parity = comparison.compare(REFERENCE, batch=4).parity
    assert any(shortfall.startswith("batch") for shortfall in parity.shortfalls)


def test_a_small_change_passes_in_lower_precision_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny.foreground_bundle(tmp_path)
    comparison = Comparison(bundle, IMAGES)
    patch_results(monkeypatch, lambda _, found: {"occupancy": found["occupancy"] * np.float32(0.99)})
    assert not comparison.compare(REFERENCE, batch=1).parity.accepted
    lower = replace(REFERENCE, variants={bundle.sha256: bundle})
    assert comparison.compare(lower, batch=1).parity.accepted


def test_a_model_that_is_asked_by_name_is_compared_too(tmp_path: Path) -> None:
    bundle = write_grounded_bundle(tmp_path)
    images = [replace(image, image=replace(image.image, class_name="red")) for image in IMAGES[:3]]
    parity = Comparison(bundle, images).compare(REFERENCE, batch=2).parity
    assert parity.accepted
    assert parity.figures["mean_occupancy_error"] < 1e-6


def test_a_part_alone_decides_nothing(tmp_path: Path) -> None:
    write_grounded_bundle(tmp_path)
    part = load_bundle(next(tmp_path.glob("*.text.onnx")))
    with pytest.raises(SettingsError, match="no decision of the pipeline depends on it"):
        Comparison(part, IMAGES)
