"""TensorRT builds the catalogue's bundles and fitted teachers, and what they are converted to."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_builds import built_share

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_export.classifier.teacher import build_teacher
from fgdd_export.graphs.graph import read_model, serialise
from fgdd_export.precision.conversion import convert_to_int8
from fgdd_export.precision.graph import LowPrecision
from fgdd_export.precision.mixed_precision import lower_precision
from fgdd_fast.models.catalogue.catalogue import bundle_path, load_catalogue
from fgdd_fast.runtime.sample_images import drawn_sample_images

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")


def of_catalogue(model: str, folder: Path) -> Bundle:
    onnx = bundle_path(load_catalogue()[model])
    if not onnx.exists():
        pytest.skip(f"run: fgdd-fast models pull {model}")
    for suffix in (".onnx", ".json"):
        shutil.copy(onnx.with_suffix(suffix), folder)
    return load_bundle(folder / onnx.name)


def write_half(bundle: Bundle, precision: LowPrecision) -> None:
    lowered = lower_precision(read_model(bundle.graph(), bundle.name), precision)
    onnx = bundle.beside(f"{precision}.onnx")
    variant = replace(bundle, onnx=onnx, variant=precision, variant_of=bundle.sha256)
    write_bundle(variant, serialise(lowered.model))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    """The default saliency model, and the default backbone with a random head; with variants in 16 bits."""
    folder = tmp_path_factory.mktemp("bundles")
    backbone = of_catalogue("imagenet-efficientnet-lite0", folder)
    channels = backbone.outputs[0].shape[1]
    assert isinstance(channels, int)
    weight = np.random.default_rng(0).normal(0, 0.3, (3, channels)).astype(np.float32)
    head = weight, np.zeros(3, np.float32), ("a", "b", "c")
    found = {
        "saliency": of_catalogue("saliency-u2netp", folder),
        "teacher": build_teacher(backbone, *head, folder / "teacher.onnx", source={}, accuracy={}),
    }
    for bundle in found.values():
        write_half(bundle, "fp16")
        write_half(bundle, "bf16")
    return found


@pytest.mark.parametrize("name", ["saliency", "teacher"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_it_builds_in_the_precision_that_is_asked(
    bundles: Mapping[str, Bundle], name: str, precision: Precision, tmp_path: Path
) -> None:
    assert built_share(bundles[name], precision, tmp_path) > (0.99 if precision == "fp32" else 0.9)


def test_a_teacher_builds_in_int8(bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    pictures = drawn_sample_images(4, named=False)
    convert_to_int8(bundles["teacher"], pictures, pictures, force=True)
    assert built_share(bundles["teacher"], "int8", tmp_path) > 0.9
