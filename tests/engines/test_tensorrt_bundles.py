"""TensorRT builds the catalogue's bundles and fitted teachers, and what they are converted to."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_export.classifier.teacher import build_teacher
from fgdd_export.graphs.graph import read_model, serialise
from fgdd_export.precision.conversion import convert_to_int8
from fgdd_export.precision.graph import LowPrecision
from fgdd_export.precision.mixed_precision import lower_precision
from fgdd_fast.models.catalogue.catalogue import bundle_path, load_catalogue
from fgdd_fast.runtime.engine_building import BuildSettings, build_engines
from fgdd_fast.runtime.sample_images import drawn_sample_images

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
NETWORKS = ("saliency", "backbone", "teacher")
MODELS = {"saliency": "saliency-u2netp", "backbone": "imagenet-efficientnet-lite0"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    """Copies of the catalogue's bundles, and a teacher with a random head, all with their variants beside."""
    folder = tmp_path_factory.mktemp("bundles")
    found: dict[str, Bundle] = {}
    for name, model in MODELS.items():
        onnx = bundle_path(load_catalogue()[model])
        if not onnx.exists():
            pytest.skip(f"run: fgdd-fast models pull {model}")
        for suffix in (".onnx", ".json"):
            shutil.copy(onnx.with_suffix(suffix), folder / f"{model}{suffix}")
        found[name] = load_bundle(folder / f"{model}.onnx")
    channels = found["backbone"].outputs[0].shape[1]
    assert isinstance(channels, int)
    found["teacher"] = build_teacher(
        found["backbone"],
        np.random.default_rng(0).normal(0, 0.3, (3, channels)).astype(np.float32),
        np.zeros(3, np.float32),
        ("a", "b", "c"),
        folder / "teacher.onnx",
        source={},
        accuracy={},
    )
    for bundle in found.values():
        write_half(bundle, "fp16")
        write_half(bundle, "bf16")
    pictures = drawn_sample_images(4, named=False)
    convert_to_int8(found["teacher"], pictures, pictures, force=True)
    return found


def write_half(bundle: Bundle, precision: LowPrecision) -> None:
    lowered = lower_precision(read_model(bundle.graph(), bundle.name), precision)
    onnx = bundle.beside(f"{precision}.onnx")
    variant = replace(bundle, onnx=onnx, variant=precision, variant_of=bundle.sha256)
    write_bundle(variant, serialise(lowered.model))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_it_builds_in_the_precision_that_is_asked(
    bundles: Mapping[str, Bundle], name: str, precision: Precision, tmp_path: Path
) -> None:
    assert share_in(precision, bundles[name], tmp_path) > (0.99 if precision == "fp32" else 0.9)


def test_a_teacher_builds_in_int8(bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    assert share_in("int8", bundles["teacher"], tmp_path) > 0.9


def share_in(precision: Precision, bundle: Bundle, folder: Path) -> float:
    """Build an engine; the share of the layers read back that compute in a precision."""
    settings = BuildSettings(device="tensorrt-rtx", precision=precision, batch=Profile(1, 2, 4))
    pictures = drawn_sample_images(4, named=False)
    (plan,) = build_engines(bundle, settings, lambda _: pictures, store=PlanStore(folder)).plans
    assert plan.state in ("unchecked", "passed")  # only where there is a GPU can it be compared
    assert plan.layers
    return sum(layer.precision == precision for layer in plan.layers) / len(plan.layers)
