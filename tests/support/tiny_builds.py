"""Builds in TensorRT for RTX: of the tiny classifier, as it is and changed, and of whole bundles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
from tiny_models import tiny_description, tiny_graph

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle, Variant, write_bundle
from fgdd_engines.tensorrt_backend.api import TensorRt
from fgdd_engines.tensorrt_backend.build import Built, Profile, build_plan
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.runtime.engine_building import BuildSettings, build_engines
from fgdd_fast.runtime.sample_images import drawn_sample_images

ONE = Profile(1, 1, 1)


def model() -> onnx.ModelProto:
    return onnx.load_from_string(tiny_graph())


def tiny_variant(folder: Path, changed: onnx.ModelProto, variant: Variant | None = None) -> Bundle:
    description = replace(tiny_description(folder / "changed.onnx"), variant=variant)
    return write_bundle(description, changed.SerializeToString())


def build(rtx: TensorRt, bundle: Bundle, profile: Profile = ONE, **options: Any) -> Built:
    return build_plan(rtx, bundle, profile, axes={}, **options)


def precisions(built: Built) -> dict[str, str]:
    return {layer.kind: layer.precision for layer in built.layers}


def altered(module: ModuleType, **changes: Any) -> ModuleType:
    """A module like this one but for some of its names."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update({**vars(module), **changes})
    return copy


def built_share(bundle: Bundle, precision: Precision, folder: Path) -> float:
    """Build a bundle's engine; the share of the layers read back that compute in a precision."""
    settings = BuildSettings(device="tensorrt-rtx", precision=precision, batch=Profile(1, 2, 4))
    pictures = drawn_sample_images(4, named=False)
    (plan,) = build_engines(bundle, settings, lambda _: pictures, store=PlanStore(folder)).plans
    assert plan.state in ("unchecked", "passed")  # only where there is a GPU can it be compared
    assert plan.layers
    return sum(layer.precision == precision for layer in plan.layers) / len(plan.layers)
