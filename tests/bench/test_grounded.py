"""The implementations with Grounded SAM 2 do the same work: trained miniatures, on drawn scenes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from miniature_grounded import DETECTOR, SEGMENTER, joint_bundle
from tiny_grounded import write_grounded_bundle

from fgdd_bench.harness.implementation import Answer, Implementation, Name
from fgdd_bench.harness.opening import open_reference
from fgdd_bench.harness.subject import Subject, Task
from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_fast.errors import BundleError, DataError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.factory import choose_as_exported
from fgdd_fast.models.grounded_tensors import (
    DETECTOR_INPUTS,
    DETECTOR_OUTPUTS,
    SEGMENTER_INPUTS,
    SEGMENTER_OUTPUTS,
)
from fgdd_fast.models.network import Runtime
from fgdd_fast.synthetic.scenes import draw_scene

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")

import torch
from safetensors.torch import load_file, save_file

from fgdd_bench.ours.grounded_parts import cut_parts
from fgdd_bench.ours.pipeline import OurPipeline
from fgdd_bench.references.grounded import fair as grounded_fair
from fgdd_bench.references.grounded.networks import EncodedPrompts, Prompts
from fgdd_export.graphs.graph import tensor_specs
from fgdd_export.graphs.parity import mask_iou, match_boxes
from fgdd_export.grounding_dino.network import GroundingDino, load_grounding_dino

TASK = Task(threads=1, batch=4)
SIZES = ((240, 320), (320, 240), (256, 256), (200, 320))
NAMES = ("red disc", "blue square", "green cross")
SCENES = 10
STAGES = ("read", "decode", "preprocess", "text encoder", "detector", "mask encoder", "mask decoder")


def split_form(joint: Bundle, folder: Path) -> Bundle:
    """The same nodes as two graphs; exporting them would take long."""
    extractor = onnx.utils.Extractor(onnx.load(joint.onnx))
    shutil.copy(joint.beside("tokenizer.json"), folder / "split.tokenizer.json")
    text = joint.part("text")
    parts = {"text": write_bundle(replace(text, onnx=folder / "split.text.onnx"), text.graph())}
    made_from = {
        "segmenter": (SEGMENTER_INPUTS, SEGMENTER_OUTPUTS),
        "foreground": (DETECTOR_INPUTS, DETECTOR_OUTPUTS),
    }
    for role, tensors in made_from.items():
        names = [[spec.name for spec in specs] for specs in tensors]
        model = extractor.extract_model(*names)
        main = role == "foreground"
        bundle = replace(
            joint,
            onnx=folder / ("split.onnx" if main else f"split.{role}.onnx"),
            role=role,
            inputs=tensor_specs(model.graph.input),
            outputs=tensor_specs(model.graph.output),
            prompting=joint.prompting if main else None,
            parts={name: part.sha256 for name, part in parts.items()} if main else {},
            files=joint.files if main else {},
        )
        parts[role] = write_bundle(bundle, model.SerializeToString())
    return parts["foreground"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[SourceImage]:
    """Scenes that were not trained on, in a folder named after something in each, or, the last, not in it."""
    data = tmp_path_factory.mktemp("data")
    images = []
    seed = 9_000_000
    while len(images) < SCENES:
        scene = draw_scene(seed, SIZES[seed % len(SIZES)])
        last = len(images) == SCENES - 1
        names = [name for name in NAMES if (scene.occupancy(name) == 0) == last]
        seed += 1
        if names:
            image = SourceImage(f"{names[0].replace(' ', '_')}/{seed}.png", names[0].replace(" ", "_"), data)
            image.path.parent.mkdir(exist_ok=True)
            assert cv2.imwrite(str(image.path), cv2.cvtColor(scene.pixels, cv2.COLOR_RGB2BGR))
            images.append(image)
    return images


@pytest.fixture(scope="module")
def subject(images: list[SourceImage], tmp_path_factory: pytest.TempPathFactory) -> Subject:
    classes = tuple(sorted({image.class_name for image in images}))
    return Subject(
        classes=classes,
        runtime=lambda _: Runtime("cpu", "fp32", 1),
        foreground=choose_as_exported(joint_bundle(tmp_path_factory), classes),
        checkpoints=(DETECTOR, SEGMENTER),
    )


def open_grounded(name: Name, subject: Subject) -> Implementation:
    if name == "ours":
        return OurPipeline("foreground", TASK, subject)
    return open_reference("foreground", name, TASK, subject)


@pytest.fixture(scope="module")
def everyone(subject: Subject) -> Iterator[dict[Name, Implementation]]:
    """Every implementation; what is compiled runs as it is, for compiling it takes minutes."""
    with ExitStack() as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda network, **_: network)
        names: tuple[Name, ...] = ("ours", "published", "fair", "compiled")
        yield {name: opened.enter_context(open_grounded(name, subject)) for name in names}


@pytest.fixture(scope="module")
def answers(everyone: Mapping[Name, Implementation], images: list[SourceImage]) -> dict[Name, Answer]:
    return {name: one.run(images) for name, one in everyone.items()}


def differences(expected: Answer, found: Answer) -> dict[str, float]:
    """Of occupancies, of boxes (shares of the image) and their scores, and of masks."""
    figures = {
        "occupancy": float(np.abs(expected["occupancy"] - found["occupancy"]).max()),
        "corner": 0.0,
        "score": 0.0,
        "unmatched": 0.0,
        "mask": 0.0,
    }
    for one, other in zip(expected["boxes"], found["boxes"], strict=True):
        ones, others = one[one[:, 4] > 0], other[other[:, 4] > 0]
        match = match_boxes(ones[:, :4], ones[:, 4], others[:, :4], others[:, 4])
        figures["unmatched"] += match.unmatched
        figures["corner"] = max(figures["corner"], *match.corner_difference, 0.0)
        figures["score"] = max(figures["score"], *match.score_difference, 0.0)
    for one, other in zip(expected["masks"], found["masks"], strict=True):
        figures["mask"] = max(figures["mask"], 1 - mask_iou(one >= 128, other >= 128))
    return figures


def test_answers_have_the_declared_form(answers: Mapping[Name, Answer]) -> None:
    for answer in answers.values():
        assert (answer["occupancy"].dtype, answer["occupancy"].shape) == (np.float32, (SCENES,))
        assert (answer["masks"].dtype, answer["masks"].shape) == (np.uint8, (SCENES, 32, 32))
        assert (answer["boxes"].dtype, answer["boxes"].shape) == (np.float32, (SCENES, 6, 5))
        scores = answer["boxes"][..., 4]
        assert (np.diff(scores, axis=1) <= 0).all()
        assert (answer["boxes"][scores == 0] == 0).all()
        assert answer["occupancy"][-1] == 0  # what is not there is not found
        assert not answer["masks"][-1].any()
        assert answer["occupancy"][:-1].min() > 0


@pytest.mark.parametrize("name", ["fair", "compiled"])
def test_references_on_the_same_canvas_find_the_same(answers: Mapping[Name, Answer], name: Name) -> None:
    """In bf16, where the processor has it."""
    figures = differences(answers["ours"], answers[name])
    assert figures["unmatched"] == 0
    assert figures["occupancy"] < 5e-3
    assert figures["corner"] < 0.02
    assert figures["score"] < 0.05
    assert figures["mask"] < 0.05


def test_fair_in_fp32_finds_the_very_same(
    subject: Subject,
    images: list[SourceImage],
    answers: Mapping[Name, Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grounded_fair, "lower_precision", lambda _: torch.float32)
    with open_grounded("fair", subject) as way:
        assert way.arithmetic.endswith("fp32")
        figures = differences(answers["ours"], way.run(images))
    assert figures["unmatched"] == 0
    assert max(figures[name] for name in ("occupancy", "corner", "score")) < 1e-4
    assert figures["mask"] < 1e-3


def test_the_published_style_finds_nearly_the_same(answers: Mapping[Name, Answer]) -> None:
    """It sees images at the detector's own size instead of on a canvas, and masks at full resolution."""
    figures = differences(answers["ours"], answers["published"])
    assert figures["unmatched"] <= 1
    assert figures["occupancy"] < 0.03
    assert figures["corner"] < 0.05
    assert figures["mask"] < 0.2


def test_prompts_are_encoded_once_a_class_but_in_the_published_style(
    everyone: Mapping[Name, Implementation], answers: Mapping[Name, Answer], images: list[SourceImage]
) -> None:
    classes = len({image.class_name for image in images})
    assert len(images) > classes > 1
    for name in ("ours", "fair", "compiled"):
        assert everyone[name].text_encodings == classes
    assert everyone["published"].text_encodings == len(images)
    everyone["ours"].run(images)
    assert everyone["ours"].text_encodings == classes
    everyone["published"].run(images[:2])
    assert everyone["published"].text_encodings == len(images) + 2


@pytest.mark.parametrize("name", ["ours", "published", "fair", "compiled"])
def test_every_stage_runs_alone(
    everyone: Mapping[Name, Implementation], images: list[SourceImage], name: Name
) -> None:
    way = everyone[name]
    before = way.text_encodings
    stages = way.stages(images)
    assert tuple(stage.name for stage in stages) == STAGES
    for stage in stages:
        assert stage.calls * stage.images >= len(images)
        for index in range(stage.calls):
            stage.run(index)
    assert way.text_encodings == before


@pytest.mark.parametrize("form", ["joint", "split"])
def test_the_parts_of_the_graph_together_give_its_answer(
    subject: Subject, images: list[SourceImage], answers: Mapping[Name, Answer], tmp_path: Path, form: str
) -> None:
    if form == "split":
        bundle = split_form(subject.foreground_bundle(grounded=True), tmp_path)
        subject = replace(subject, foreground=choose_as_exported(bundle, subject.classes))
    with open_grounded("ours", subject) as way:
        *_, decoder = way.stages(images)
        found = [decoder.run(index) for index in range(decoder.calls)]
    for name in ("occupancy", "mask", "scores"):
        assert all(len(tensors[name]) == 1 for tensors in found)
    occupancies = np.concatenate([tensors["occupancy"] for tensors in found])
    assert occupancies == pytest.approx(answers["ours"]["occupancy"], abs=1e-5)
    masks = np.concatenate([tensors["mask"] for tensors in found])
    assert (masks == answers["ours"]["masks"]).mean() > 0.9999


def test_a_graph_without_an_image_encoder_cannot_be_cut(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no node with '/image_encoder/'"):
        cut_parts(write_grounded_bundle(tmp_path), Runtime("cpu", "fp32", 1), tmp_path)


@pytest.fixture(scope="module")
def detector() -> GroundingDino:
    return load_grounding_dino(DETECTOR)


@torch.no_grad()
def test_prompts_looked_up_are_as_good_as_encoded(detector: GroundingDino) -> None:
    """Bit for bit, for prompts of different lengths in one batch, in any order."""
    prompts = Prompts.of(
        ("a red disc.", "a blue square. a green cross.", "a disc."), detector, torch.device("cpu")
    )
    places = torch.tensor([2, 0, 1, 0])
    inputs = prompts.inputs(places) | {"pixel_values": torch.randn(4, 3, 96, 128)}
    encodings: list[int] = []
    backbone = detector.model.model.text_backbone
    backbone.register_forward_pre_hook(lambda _, arguments: encodings.append(len(arguments[0])))
    expected = detector.model(**inputs)
    encoded = EncodedPrompts(detector.model, prompts.ids)
    with encoded.in_place(detector.model):
        found = detector.model(**inputs)
    assert encodings == [4, 3]  # none while they are looked up
    assert detector.model.model.text_backbone is backbone
    assert torch.equal(found.pred_boxes, expected.pred_boxes)
    assert torch.equal(found.logits, expected.logits)


def test_other_weights_on_the_two_sides_are_refused(subject: Subject, tmp_path: Path) -> None:
    other = tmp_path / "sam2"
    shutil.copytree(SEGMENTER, other)
    tensors = load_file(other / "model.safetensors")
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1}, other / "model.safetensors", {"format": "pt"})
    for name in ("published", "fair"):
        with pytest.raises(SettingsError, match="was not exported from the segmenter"):
            open_grounded(name, replace(subject, checkpoints=(DETECTOR, str(other))))


@pytest.mark.parametrize("name", ["ours", "published", "fair"])
def test_an_image_that_cannot_be_read_is_named(
    everyone: Mapping[Name, Implementation], images: list[SourceImage], tmp_path: Path, name: Name
) -> None:
    broken = replace(images[0], root=tmp_path)
    broken.path.parent.mkdir()
    broken.path.write_bytes(images[0].path.read_bytes()[:300])
    with pytest.raises(DataError, match=broken.source):
        everyone[name].run([images[1], broken])
    assert len(everyone[name].run(images[:1])["occupancy"]) == 1  # and the way goes on working


def test_the_threshold_is_the_same_for_all(subject: Subject, images: list[SourceImage]) -> None:
    """No score is higher than 1, so nothing is found."""
    assert subject.foreground is not None
    strict = replace(subject, foreground=replace(subject.foreground, box_threshold=1.0))
    for name in ("ours", "published", "fair"):
        with open_grounded(name, strict) as way:
            answer = way.run(images[:2])
        assert not answer["boxes"].any()
        assert not answer["masks"].any()
        assert not answer["occupancy"].any()
