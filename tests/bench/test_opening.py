"""Who runs what: the ways of every path, what holds the product's decisions, and the references' batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipeline
import tiny_references as tiny
from fake_ways import FakeWay, answer
from tiny_convolutions import CLASSES, SIDE, inverted_residuals

from fgdd_bench.harness import opening
from fgdd_bench.harness.opening import WayOpener, model_facts
from fgdd_bench.harness.originals import (
    Original,
    choose_originals,
    compose_plan,
    mosaic_settings,
    record_of,
)
from fgdd_bench.harness.subject import Composition, Subject
from fgdd_bench.harness.ways import Answer, PathName, Stage, Task, Way
from fgdd_bench.ours.whole import PARTS, WholeReference
from fgdd_bench.references.grounded.subject import GroundedSubject
from fgdd_export.tile.bundle import make_cropped_graph
from fgdd_fast.images.dataset import SourceImage, scan
from fgdd_fast.models.network import Runtime

SIZE = 48


def originals_of(folder: Path) -> list[Original]:
    return choose_originals(scan(tiny_pipeline.write_squares(folder / "data", 4)), 12, seed=0)[0]


def opener(folder: Path, **changes: Any) -> WayOpener:
    parts = {"task": tiny.TASK, "subject": tiny.subject(folder), "grounded": None, "size": SIZE, **changes}
    return WayOpener(originals=originals_of(folder), **parts)


def grounded_subject(folder: Path) -> GroundedSubject:
    from tiny_grounded import write_grounded_bundle

    return GroundedSubject(
        bundle=write_grounded_bundle(folder),
        runtime=Runtime("openvino", "bf16", 2),
        detector="a detector",
        segmenter="a segmenter",
        classes=tiny_pipeline.CLASSES,
    )


def test_the_work_of_a_path_is_that_of_its_networks(tmp_path: Path) -> None:
    found = opener(tmp_path)
    way = FakeWay("product", {})
    assert found.networks("decode", way) == {}
    assert found.networks("compose", way) == {}
    whole = found.networks("all", way)
    assert whole == {**found.networks("foreground", way), **found.networks("teacher", way)}
    assert (whole["saliency"].samples, whole["teacher"].samples) == (1, 1 + tiny.TASK.crops)
    half = tiny.SIDE // 2
    layers = half**2 * tiny.CHANNELS * (27 + tiny.CHANNELS)
    assert whole["teacher"].work.multiply_adds == layers + tiny.CHANNELS * 3
    assert whole["saliency"].work.multiply_adds == layers + half**2 * tiny.CHANNELS


def test_a_tile_form_is_held_against_less_work(tmp_path: Path) -> None:
    teacher = inverted_residuals(tmp_path)
    form = make_cropped_graph(teacher, SIDE // 2)
    assert form is not None
    subject = Subject(classes=CLASSES, runtime=lambda _: Runtime("cpu", "fp32", 1), teacher=teacher)
    found = opener(tmp_path, subject=subject, task=replace(tiny.TASK, tile_size=SIDE // 2))
    product = found.open("teacher", "product")
    assert product.arithmetic.endswith(", tiles")
    plain = found.networks("teacher", FakeWay("fair", {}))["teacher"]
    tiled = found.networks("teacher", product)["teacher"]
    assert tiled.name == f"{plain.name}.tile{SIDE // 2}"
    assert tiled.work.multiply_adds < plain.work.multiply_adds
    reference = found.open_fp32("teacher")  # the teacher itself
    assert not reference.arithmetic.endswith("tiles")
    assert "fp32" in reference.arithmetic
    for way in (product, reference):
        way.close()


def test_each_network_of_a_grounded_model_has_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "grounded_operations", lambda bundle: {"detector": 1, "mask encoder": 2})
    found = opener(tmp_path, grounded=grounded_subject(tmp_path))
    networks = found.networks("foreground", FakeWay("product", {}))
    assert {stage: (network.work, network.samples) for stage, network in networks.items()} == {
        "detector": (1, 1),
        "mask encoder": (2, 1),
    }


def test_the_ways_of_a_grounded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int, Runtime]] = []

    class Batched(FakeWay):
        def run(self, images: Sequence[SourceImage]) -> Answer:
            time.sleep(0.05 if self.arithmetic == "1" else 0.01)
            return {}

    def open_grounded(column: Any, task: Task, subject: GroundedSubject) -> Way:
        opened.append((column, task.batch, subject.runtime))
        return Batched(column, {}, arithmetic=str(task.batch))

    monkeypatch.setattr(opening, "open_grounded", open_grounded)
    found = opener(tmp_path, grounded=grounded_subject(tmp_path))
    found.open("foreground", "product")
    found.open_fp32("foreground")
    assert [runtime.device for _, _, runtime in opened] == ["openvino", "cpu"]
    assert opened[1][2].precision == "fp32"
    found.open("foreground", "fair")
    found.open("foreground", "compiled")  # with the same batch, for compiling takes minutes
    assert opened[-1][:2] == ("compiled", 2)
    assert [found.batch("foreground", column) for column in ("product", "published", "fair")] == [1, 1, 2]
    assert found.batch("decode", "fair") is None


def test_references_take_the_batch_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("PIL", reason="Pillow is not installed")
    monkeypatch.setattr(opening, "CANDIDATES", {"cpu": (1, 3)})
    found, told = opener(tmp_path), list[str]()
    with found.open("teacher", "fair", told.append) as way:
        assert found.batch("teacher", "fair") in (1, 3)
        assert way.column == "fair"
    assert told[0] == "trying batches of 1"


def test_the_whole_with_a_grounded_model(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    grounded = replace(grounded_subject(tmp_path), runtime=Runtime("cpu", "fp32", 2))
    subject = replace(tiny.subject(tmp_path), foreground=None)
    found = opener(tmp_path, subject=subject, grounded=grounded)
    images = [original.image for original in found.originals]
    with found.open("all", "product") as way, found.open("foreground", "product") as foreground:
        whole = way.run(images)
        assert np.array_equal(whole["occupancy"], foreground.run(images)["occupancy"])
    with found.open("teacher", "product") as teacher:
        assert np.array_equal(whole["losses"], teacher.run(images)["losses"])
    assert whole["mosaics"].shape == (3, SIZE, SIZE, 3)


def test_a_reference_composes_what_follows_from_its_own_answers(tmp_path: Path) -> None:
    originals = originals_of(tmp_path)
    settings = mosaic_settings(originals, tiny.TASK, SIZE)
    parts: list[tuple[PathName, Composition | None]] = []
    ways = {path: answer(path, 12) for path in PARTS}

    class Part(FakeWay):
        def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
            return [Stage("read", lambda _: None, 1, 1, 1)]

    made: list[Part] = []

    def open_part(path: PathName, composition: Composition | None) -> Way:
        parts.append((path, composition))
        made.append(Part("fair", ways[path], arithmetic="the same"))
        return made[-1]

    images = [original.image for original in originals]
    with WholeReference("fair", tiny.TASK, originals, settings, open_part) as way:
        found = way.run(images)
        way.run(images)
        assert [path for path, _ in parts] == ["foreground", "teacher", "compose"]  # the composer is kept
        records = [
            record_of(original, float(occupancy), losses, tiny.TASK)
            for original, occupancy, losses in zip(
                originals, ways["foreground"]["occupancy"], ways["teacher"]["losses"], strict=True
            )
        ]
        assert parts[2][1] == compose_plan(records, settings)
        ways["teacher"]["losses"][:] = ways["teacher"]["losses"][::-1].copy()
        way.run(images)
        assert [path for path, _ in parts[3:]] == ["compose"]  # of another plan another one
        assert len(way.stages(images)) == 3
        assert way.arithmetic == "the same"
    assert set(found) == {"occupancy", "losses", "mosaics"}
    assert all(part.closed for part in made)


def test_what_a_result_says_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    bundle = tiny.teacher(tmp_path)
    variant = replace(bundle, variant="int8", sha256="ab" * 32)
    plain = model_facts(bundle, Runtime("cpu", "fp32", 1))
    assert (plain["sha256"], plain["variant"], plain["engines"]) == (bundle.sha256, None, [])
    facts = model_facts(bundle, Runtime("cpu", "int8", 1, {bundle.sha256: variant}))
    assert (facts["variant"], facts["variant_sha256"], facts["asked"]) == ("int8", "ab" * 32, "cpu int8")
    assert str(tmp_path) not in str(facts)
