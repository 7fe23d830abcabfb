"""A PyTorch classifier as a candidate for a teacher: its input is settled, and its graph made."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Preprocessing
from fgdd_export.classifier.candidate import Candidate, Images
from fgdd_export.classifier.sources import load_classifier
from fgdd_export.classifier.weights import IMAGENET_MEAN, IMAGENET_STD, Classifier, first_line, logits_of
from fgdd_export.graphs.late_onnx import onnx
from fgdd_export.graphs.network_bundle import normalisation as in_words
from fgdd_export.graphs.parity import UNKNOWN_LICENCE
from fgdd_export.graphs.torch_export import Network, export_network
from fgdd_fast.errors import BundleError, FgddError, SettingsError

EXAMPLES = 2  # images in a trial: with one, a fixed batch could go unnoticed
CHANNELS = 3
LEAST_CLASSES = 2


def network_candidate(
    checkpoint: str,
    *,
    size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    trust_code: bool,
) -> Candidate:
    """Load a PyTorch classifier and settle its input; see `export_teacher`.

    Raises SettingsError where the size or the normalisation is missing or impossible, or where the checkpoint
    is a program that is not trusted; BundleError where the checkpoint cannot be loaded, or is no classifier
    of RGB images of that size.
    """
    classifier = load_classifier(checkpoint, trust_code=trust_code)
    side = size or classifier.size
    if side is None:
        raise SettingsError(
            f"The checkpoint {checkpoint} does not say the size of its input",
            "Give the pixels of each side at which it was trained: --size",
        )
    outputs = _count_outputs(checkpoint, classifier, side)
    normalisation = Normalisation(
        _three("mean", mean, classifier.mean, checkpoint), _three("std", std, classifier.std, checkpoint)
    )
    module = classifier.module
    return Candidate(
        outputs=outputs,
        classes=classifier.classes,
        preprocessing=Preprocessing(
            side, side, in_words(normalisation.mean, normalisation.std), normalisation.pad_value
        ),
        source=classifier.source,
        licence=UNKNOWN_LICENCE,
        reference=lambda images: _reference(checkpoint, module, normalisation, images),
        export=lambda: _export(checkpoint, module, normalisation, side, outputs),
    )


@dataclass(frozen=True)
class Normalisation:
    """Subtract a mean, divide by a standard deviation: of red, green and blue, for values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def pad_value(self) -> tuple[int, int, int]:
        """The RGB value that becomes zero, or comes nearest to it."""
        red, green, blue = (min(max(round(255 * value), 0), 255) for value in self.mean)
        return red, green, blue


def _three(
    what: str, given: Sequence[float] | None, known: Sequence[float] | None, checkpoint: str
) -> tuple[float, ...]:
    """Mean or std of the three channels: the user's own, or else the checkpoint's."""
    values = known if given is None else given
    if values is None:
        raise SettingsError(
            f"The checkpoint {checkpoint} does not say how its input is normalised",
            f"Give mean and std for values in [0, 1]. ImageNet's are {IMAGENET_MEAN} and {IMAGENET_STD}; a "
            "network that normalises by itself has 0 and 1.",
        )
    positive = what == "mean" or all(value > 0 for value in values)
    if len(values) != CHANNELS or not all(map(math.isfinite, values)) or not positive:
        raise SettingsError(
            f"The {what} of {checkpoint} is {list(values)}, not one number for each of red, green and blue",
            f"Give three{'' if what == 'mean' else ' positive'} numbers, for values in [0, 1].",
        )
    if given is not None and max(given) > 1:
        raise SettingsError(f"The {what} {list(given)} is not for values in [0, 1]", "Divide it by 255.")
    return tuple(float(value) for value in values)


def _count_outputs(checkpoint: str, classifier: Classifier, side: int) -> int:
    """Try the network on blank images, and count its logits."""
    try:
        logits = _logits(classifier.module, torch.zeros(EXAMPLES, CHANNELS, side, side))
    except FgddError:
        raise
    except Exception as error:  # anything that a network's own code raises
        if _takes(classifier.module, torch.zeros(EXAMPLES, 1, side, side)):
            raise BundleError(
                f"The network {checkpoint} takes grey images, and teachers are shown RGB"
            ) from error
        own = classifier.size
        raise BundleError(
            f"The network {checkpoint} cannot take images of {side} x {side} pixels: {first_line(error)}",
            f"It was made for {own}: leave out --size." if own not in (None, side) else "Try another --size.",
        ) from error
    if logits.ndim != 2 or len(logits) != EXAMPLES or logits.shape[1] < LEAST_CLASSES:
        raise BundleError(
            f"The network {checkpoint} gives {list(logits.shape)} for {EXAMPLES} images, "
            "not [batch, classes]",
            "A teacher gives one logit for each of at least two classes.",
        )
    return int(logits.shape[1])


def _takes(module: torch.nn.Module, planes: torch.Tensor) -> bool:
    try:
        _logits(module, planes)
    except Exception:  # anything that a network's own code raises
        return False
    return True


@torch.inference_mode()
def _logits(module: torch.nn.Module, planes: torch.Tensor) -> torch.Tensor:
    return logits_of(module(planes))


def _reference(
    checkpoint: str, module: torch.nn.Module, normalisation: Normalisation, images: Images
) -> NDArray[Any]:
    """The network as published, with the normalisation as it is published: divide, subtract, divide."""
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalisation.mean, normalisation.std))
    try:
        logits = _logits(module, (planes - mean) / std)
    except Exception as error:  # anything that a network's own code raises
        raise BundleError(
            f"The network {checkpoint} cannot take {len(images)} images at once: {first_line(error)}",
            "It has to take a batch of any length.",
        ) from error
    return logits.numpy()


class FromImages(torch.nn.Module):
    """Takes uint8 NHWC images: one multiplication and one addition a channel, then the network."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, module: torch.nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.module = module
        pair = (normalisation.mean, normalisation.std)
        mean, std = (np.reshape(values, (1, CHANNELS, 1, 1)) for values in pair)
        self.register_buffer("scale", torch.tensor(1 / (255 * std), dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(-mean / std, dtype=torch.float32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # TensorRT takes uint8 only as a network input whose one reader is a Cast: so the Cast comes first.
        planes = images.to(torch.float32).permute(0, 3, 1, 2)
        return logits_of(self.module(planes * self.scale + self.shift))


def _export(
    checkpoint: str, module: torch.nn.Module, normalisation: Normalisation, side: int, outputs: int
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    example = torch.zeros(EXAMPLES, side, side, CHANNELS, dtype=torch.uint8)
    wrapped: Any = FromImages(module, normalisation).eval()
    try:
        with torch.inference_mode(), _exportable():
            if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
                trace: Any = torch.jit.trace  # without types
                wrapped = trace(wrapped, example)  # the exporter traces no TorchScript by itself
            exported = export_network(
                Network(
                    type(module).__name__.lower(),
                    wrapped,
                    (TensorSpec("images", "uint8", ("batch", side, side, CHANNELS)),),
                    (TensorSpec("logits", "float32", ("batch", outputs)),),
                ),
                [example],
            )
    except FgddError:
        raise
    except Exception as error:  # of the exporter, or of the network's own code
        raise BundleError(
            f"The network {checkpoint} cannot be exported to ONNX: {first_line(error)}",
            "Give a network without that operator as MODULE:FUNCTION, or try another --size where pooling is "
            "uneven.",
        ) from error
    return exported.model, {"export": exported.making}


@contextmanager
def _exportable() -> Iterator[None]:
    """Compute attention with plain operators, hide the tracer's warnings, and print no graph that fails.

    PyTorch's exporter has no translation of the fused attention that `nn.MultiheadAttention` takes for
    inference, and where it lacks any operator it prints the whole graph.
    """
    printing, fused = torch._C._jit_onnx_log, torch.backends.mha.get_fastpath_enabled()
    torch._C._jit_onnx_log = lambda *_: None
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_onnx_log = printing
        torch.backends.mha.set_fastpath_enabled(fused)
