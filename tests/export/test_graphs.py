"""What exports share: a bundle of several files appears whole or not at all, and boxes are compared."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, load_bundle, write_bundle
from fgdd_engines.bundle.files import write_file
from fgdd_export.graphs.network_bundle import publish, staging_folder
from fgdd_export.graphs.parity import mask_iou, match_boxes
from fgdd_fast.errors import BundleError


def model(name: bytes) -> bytes:
    """An ONNX file without a graph: the field `producer_name` alone."""
    return bytes([0x12, len(name)]) + name


def staged_bundle(onnx: Path, name: bytes) -> Bundle:
    """A bundle with one part and one attached file; nothing here looks at a graph."""
    bundle = Bundle(
        onnx=onnx,
        name=onnx.stem,
        role="foreground",
        sha256="",
        inputs=(TensorSpec("images", "uint8", ("batch", 8, 8, 3)),),
        outputs=(TensorSpec("mask", "uint8", ("batch", 8, 8)),),
        preprocessing=Preprocessing(8, 8, "none"),
        classes=None,
        source={},
        licence="MIT",
    )
    part = replace(bundle, onnx=bundle.beside("text.onnx"), role="text-encoder")
    part = write_bundle(part, model(name + b" text"))
    write_file(bundle.beside("tokenizer.json"), b"{}")
    hashes = {"tokenizer.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    return write_bundle(replace(bundle, parts={"text": part.sha256}, files=hashes), model(name))


def test_everything_is_moved_into_place_with_its_parity(tmp_path: Path) -> None:
    onnx = tmp_path / "new" / "model.onnx"
    with staging_folder(onnx) as place:
        publish(staged_bundle(place, b"one"), onnx, {"measure": 0.5})
    bundle = load_bundle(onnx, "foreground")
    assert bundle.parity == {"measure": 0.5}
    assert bundle.part("text").role == "text-encoder"
    assert bundle.file("tokenizer.json").read_bytes() == b"{}"
    assert sorted(file.name for file in onnx.parent.iterdir()) == [
        "model.json",
        "model.onnx",
        "model.text.json",
        "model.text.onnx",
        "model.tokenizer.json",
    ]


def test_a_failure_leaves_the_older_bundle_as_it_was(tmp_path: Path) -> None:
    onnx = tmp_path / "model.onnx"
    with staging_folder(onnx) as place:
        publish(staged_bundle(place, b"one"), onnx, {})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail() -> None:
        with staging_folder(onnx) as place:
            staged_bundle(place, b"two")
            raise BundleError("it differs")

    with pytest.raises(BundleError, match="differs"):
        fail()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BundleError, match="cannot be written"), staging_folder(tmp_path / "file" / "x.onnx"):
        pass


def test_what_a_killed_export_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    onnx = tmp_path / "model.onnx"
    export = "with staging_folder(Path(sys.argv[1])) as place: place.touch(); os.kill(os.getpid(), 9)"
    imports = "import os, sys; from pathlib import Path; from fgdd_export.graphs.network_bundle import *"
    killed = subprocess.run([sys.executable, "-c", f"{imports}\n{export}", onnx], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [*tmp_path.glob(".*/model.onnx")]
    with staging_folder(onnx) as place:
        assert not place.exists()
    assert not [*tmp_path.iterdir()]


def test_two_exports_of_one_bundle_do_not_meet(tmp_path: Path) -> None:
    onnx = tmp_path / "model.onnx"
    with staging_folder(onnx) as place:
        place.touch()
        with pytest.raises(BundleError, match="Another process is writing"), staging_folder(onnx):
            pass
        with staging_folder(tmp_path / "other.onnx"):
            pass
        assert place.exists()


# Boxes are paired whatever their order, and what differs is measured


SHARES = st.floats(0, 1, width=32)


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    """Up to six boxes of at least a tenth of each side, as corners, float64."""
    count = draw(st.integers(0, 6))
    near = draw(arrays(np.float64, (count, 2), elements=st.floats(0, 0.8)))
    size = draw(arrays(np.float64, (count, 2), elements=st.floats(0.1, 0.2)))
    return np.concatenate([near, near + size], axis=1)


@settings(max_examples=40)
@given(boxes(), st.randoms(use_true_random=False))
def test_a_shuffled_list_matches_itself(corners: np.ndarray, random: object) -> None:
    order = list(range(len(corners)))
    random.shuffle(order)  # type: ignore[attr-defined]
    scores = np.linspace(0.9, 0.5, len(corners))
    match = match_boxes(corners, scores, corners[order], scores[order])
    assert match.unmatched == 0
    assert match.iou == pytest.approx(np.ones(len(corners)))
    assert match.score_difference == pytest.approx(np.zeros(len(corners)))


@settings(max_examples=40)
@given(boxes(), boxes())
def test_every_box_is_paired_once_or_counted(corners: np.ndarray, others: np.ndarray) -> None:
    match = match_boxes(corners, np.ones(len(corners)), others, np.ones(len(others)))
    assert match.unmatched + 2 * len(match.iou) == len(corners) + len(others)
    assert (match.iou >= 0.5).all()


def test_a_missing_and_a_moved_box_are_seen() -> None:
    corners = np.array([[0, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]])
    match = match_boxes(corners, np.array([0.9, 0.8]), corners[:1] + 0.01, np.array([0.88]))
    assert match.unmatched == 1
    assert match.corner_difference == pytest.approx([0.01])
    assert match.score_difference == pytest.approx([0.02])


def test_mask_iou() -> None:
    left, top = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :2] = top[:2] = True
    assert mask_iou(left, top) == pytest.approx(4 / 12)
    assert mask_iou(left, left) == 1
    assert mask_iou(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 1
