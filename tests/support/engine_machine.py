"""A machine whose GPU and TensorRT are not there: engines are built of nothing, and compared by decree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import onnx
import plan_files
import pytest

from fgdd_engines.bundle.bundle import Bundle, Variant, write_bundle
from fgdd_engines.tensorrt_backend.api import Flavour, TensorRt
from fgdd_engines.tensorrt_backend.build import Built, Profile
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_engines.tensorrt_backend.plans import usability as plan_usability
from fgdd_engines.tensorrt_backend.plans.key import Platform
from fgdd_fast.errors import MissingExtraError
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime import engine_building, engine_checking
from fgdd_fast.runtime.parity import ComparisonResult
from fgdd_fast.runtime.tolerances import ParityReport

ORIN = CudaDevice("Orin", (8, 7), 8 << 30, "13.2", "13.2")
TENSORRT = TensorRt(ModuleType("tensorrt"), "tensorrt", "10.16.2")
THOR = CudaDevice("Thor", (11, 0), 128 << 30, "13.2", "13.2", index=1)
HERE: plan_usability.Here = {"tensorrt": (Platform.of(TENSORRT, ORIN),)}
GOOD = ParityReport({"mean_occupancy_error": 1e-5, "same_path": 1.0}, "lower precision", 2)
BAD = ParityReport({"mean_occupancy_error": 0.2, "same_path": 0.5}, "lower precision", 2)


class Machine:
    """What is there, how comparisons end, and what was built and compared.

    Attributes:
        device: the first GPU.
        second: another one.
        version: of TensorRT, the only one that is installed; None where none is.
        parity: the outcome of every comparison.
        while_comparing: what happens meanwhile.
        built: file and batches of each build.
        options: how each was built.
        compared: the arguments of each comparison.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device: CudaDevice | None = ORIN
        self.second: CudaDevice | None = None
        self.version: str | None = TENSORRT.version
        self.parity = GOOD
        self.while_comparing: Callable[[], object] = lambda: None
        self.built: list[tuple[str, str]] = []
        self.options: list[dict[str, Any]] = []
        self.compared: list[dict[str, Any]] = []
        for module in (engine_building, engine_checking):
            monkeypatch.setattr(module, "find_cuda_device", self._find)
        monkeypatch.setattr(engine_building, "why_no_cuda", lambda index: f"There is no GPU {index}")
        monkeypatch.setattr(plan_usability, "find_cuda_devices", lambda: tuple(filter(None, self._gpus())))
        for module in (engine_building, plan_usability):
            monkeypatch.setattr(module, "import_tensorrt", self._import_tensorrt)
        monkeypatch.setattr(engine_building, "build_plan", self._build_plan)
        monkeypatch.setattr(engine_checking, "Comparison", partial(_Comparison, self))

    def _gpus(self) -> tuple[CudaDevice | None, ...]:
        return self.device, self.second

    def _find(self, index: int = 0) -> CudaDevice | None:
        return self._gpus()[index] if index < 2 else None

    def _import_tensorrt(self, flavour: Flavour) -> TensorRt:
        if flavour != "tensorrt" or self.version is None:
            raise MissingExtraError(flavour, "tensorrt")
        return replace(TENSORRT, version=self.version)

    def _build_plan(self, tensorrt: TensorRt, bundle: Bundle, profile: Profile, **options: Any) -> Built:
        self.built.append((bundle.onnx.name, str(profile)))
        self.options.append(options)
        return plan_files.builder(f"{len(self.built)} {bundle.onnx.name}".encode())(b"")


class _Comparison:
    """Ends as the machine decrees."""

    def __init__(self, machine: Machine, bundle: Bundle, images: Sequence[Any]) -> None:
        self._machine, self._images = machine, images

    def compare(self, candidate: Runtime, **batches: int) -> ComparisonResult:
        self._machine.compared.append({"candidate": candidate, "images": self._images, **batches})
        self._machine.while_comparing()
        return ComparisonResult(self._machine.parity, 1.0, "")


def add_variant(bundle: Bundle, variant: Variant) -> Bundle:
    """The same graph under another hash, in the place of a variant."""
    model = onnx.load_from_string(bundle.onnx.read_bytes())
    model.doc_string = variant
    path = bundle.beside(f"{variant}.onnx")
    described = replace(bundle, onnx=path, variant=variant, variant_of=bundle.sha256, parts={}, files={})
    return write_bundle(described, model.SerializeToString())
