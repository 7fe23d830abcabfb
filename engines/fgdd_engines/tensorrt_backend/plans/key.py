"""Everything on which a TensorRT plan depends: the graph, the machine, and the shapes that it takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.tensorrt_backend.api import Flavour, TensorRt
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice

NONE = "none"
_LONGEST_NAME = 100  # characters of a model's name that go into a file's name


@dataclass(frozen=True)
class Platform:
    """What of a machine a plan depends on; a plan runs on no other.

    Attributes:
        flavour: which TensorRT.
        version: of TensorRT.
        cuda: major version of the CUDA runtime, such as `13`, for within one a plan runs on; `none` without a
            GPU. Plans of version 0.1 also have the minor one, which counts for nothing.
        device: the GPU's name; `none` without one, where `tensorrt-rtx` can build all the same.
        compute_capability: such as `8.7`; `none` without a GPU.
    """

    flavour: Flavour
    version: str
    cuda: str
    device: str
    compute_capability: str

    @classmethod
    def of(cls, tensorrt: TensorRt, device: CudaDevice | None) -> Platform:
        """Return the platform of a TensorRT and a GPU, which may be absent."""
        if device is None:
            return cls(tensorrt.flavour, tensorrt.version, NONE, NONE, NONE)
        capability = ".".join(map(str, device.compute_capability))
        return cls(tensorrt.flavour, tensorrt.version, _major(device.runtime), device.name, capability)

    def differences(self, here: Platform) -> tuple[str, ...]:
        """Return why a plan of this platform does not run there, as `was built on ...`; empty if it does."""
        if self.flavour != here.flavour:
            return (f"was built by {self.flavour}, not by {here.flavour}",)
        reasons: list[str] = []
        if (self.device, self.compute_capability) != (here.device, here.compute_capability):
            reasons.append(f"was built {_place(self)}, not {_place(here)}")
        elif _major(self.cuda) != _major(here.cuda):
            reasons.append(f"was built with CUDA {self.cuda}, not {here.cuda}")
        if self.version != here.version:
            reasons.append(f"was built by {self.flavour} {self.version}, not {here.version}")
        return tuple(reasons)

    def __str__(self) -> str:
        what = f"{self.flavour} {self.version}"
        if self.device == NONE:
            return f"{what} without a GPU"
        return f"{what}, CUDA {self.cuda}, {self.device} ({self.compute_capability})"


@dataclass(frozen=True)
class PlanKey:
    """Everything on which a plan depends. Two plans with equal keys may stand for each other.

    Attributes:
        model: the bundle's name.
        model_sha256: hash of the graph with its external weights.
        precision: in which the graph is, of a mixed one the lower; or `tf32`.
        flavour, version, cuda, device, compute_capability: see `Platform`.
        profile: the batches that the plan takes.
        axes: the lengths of the inputs' other named axes, such as `height`.
    """

    model: str
    model_sha256: str
    precision: Precision
    flavour: Flavour
    version: str
    cuda: str
    device: str
    compute_capability: str
    profile: Profile
    axes: Mapping[str, int]

    @classmethod
    def of(
        cls,
        graph: Bundle,
        platform: Platform,
        profile: Profile,
        axes: Mapping[str, int],
        precision: Precision | None = None,
    ) -> PlanKey:
        """Return the key of a bundle's graph on a platform.

        Args:
            graph: the bundle, or the variant that runs in its place; its precision is that of the key.
            platform: where the plan is built, and runs.
            profile: the batches; `batch` itself is not among the axes.
            axes: lengths of named axes; `batch` among them is left out.
            precision: `tf32` for an fp32 graph whose products are computed so; by default the graph's own.

        Raises:
            BundleError: the graph's file cannot be read.
        """
        return cls(
            model=graph.name,
            model_sha256=graph.fingerprint,
            precision=precision or graph.precision,
            **asdict(platform),
            profile=profile,
            axes={axis: length for axis, length in sorted(axes.items()) if axis != "batch"},
        )

    @property
    def platform(self) -> Platform:
        """The machine's part of the key."""
        return Platform(self.flavour, self.version, self.cuda, self.device, self.compute_capability)

    def is_like(self, other: PlanKey) -> bool:
        """Return whether a plan of one key is a plan of the other, whatever the minor CUDA version."""
        return replace(self, cuda=_major(self.cuda)) == replace(other, cuda=_major(other.cuda))

    @property
    def stem(self) -> str:
        """The plan's file name without its suffix: model, precision, and a digest of the whole key."""
        digest = hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()
        return f"{file_name(self.model)}-{self.precision}-{digest[:16]}"

    def as_json(self) -> dict[str, Any]:
        """For the sidecar."""
        return {**asdict(self), "profile": str(self.profile), "axes": dict(self.axes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlanKey:
        """Read what `as_json` gave; KeyError, TypeError, ValueError or FgddError where a field is garbled."""
        texts = ("model", "model_sha256", "version", "cuda", "device", "compute_capability")
        return cls(
            **{name: str(data[name]) for name in texts},
            precision=_one_of(get_args(Precision), data["precision"]),
            flavour=_one_of(get_args(Flavour), data["flavour"]),
            profile=Profile.parse(data["profile"]),
            axes={str(axis): int(length) for axis, length in data["axes"].items()},
        )

    def differences(self, wanted: PlanKey) -> tuple[str, ...]:
        """Return why a plan with this key cannot stand for another, as `is in fp16, ...`; empty if it can.

        It can where its profile covers the one wanted and all else is equal.
        """
        reasons: list[str] = []
        if self.precision != wanted.precision:
            reasons.append(f"is in {self.precision}, not in {wanted.precision}")
        elif self.model_sha256 != wanted.model_sha256:
            reasons.append("was built of another version of the model")
        reasons += self.platform.differences(wanted.platform)
        if self.axes != wanted.axes:
            reasons.append(f"takes {_sizes(self.axes)}, not {_sizes(wanted.axes)}")
        own, other = self.profile, wanted.profile
        if not own.minimum <= other.minimum <= other.maximum <= own.maximum:
            reasons.append(f"takes batches of {_batches(own)}, not of {_batches(other)}")
        return tuple(reasons)


def file_name(model: str) -> str:
    """Return a model's name as a part of a file's name: what is unusual there becomes `_`."""
    return re.sub(r"[^\w.-]", "_", model, flags=re.ASCII)[:_LONGEST_NAME]


def _major(version: str) -> str:
    return version.partition(".")[0]


def _place(platform: Platform) -> str:
    if platform.device == NONE:
        return "without a GPU"
    return f"on {platform.device} ({platform.compute_capability})"


def _sizes(axes: Mapping[str, int]) -> str:
    return " and ".join(f"{axis} {length}" for axis, length in axes.items()) or "no size of its own"


def _batches(profile: Profile) -> str:
    if profile.minimum == profile.maximum:
        return str(profile.minimum)
    return f"{profile.minimum} to {profile.maximum}"


def _one_of(choices: tuple[Any, ...], value: object) -> Any:
    if value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return value
