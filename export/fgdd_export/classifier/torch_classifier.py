"""A PyTorch classifier as it was loaded, and how a file of tensors fills one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fgdd_export.checkpoints.pretrained import check_loading, read_tensors
from fgdd_fast.errors import BundleError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Classifier:
    """A network, and what its checkpoint says of it.

    Attributes:
        module: takes normalised images, float32 [batch, 3, height, width], and gives logits, or something
            that holds them (see `logits_of`).
        source: kind, checkpoint, architecture and the hashes of weights, for the bundle.
        size: pixels of each side of its input; None where the checkpoint does not say.
        mean, std: of each channel, for values in [0, 1]; None where the checkpoint does not say.
        classes: the names of its outputs; None where the checkpoint does not say.
    """

    module: torch.nn.Module
    source: Mapping[str, Any]
    size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: tuple[str, ...] | None = None


def logits_of(output: Any) -> torch.Tensor:
    """The logits among what a network returns: the tensor itself, its `logits`, or the first of several.

    Raises:
        BundleError: there is no such tensor.
    """
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor):
        raise BundleError(
            f"The network returns {type(output).__name__}, not logits",
            "It has to return a tensor [batch, classes], or something whose field 'logits' is one.",
        )
    return output


def first_line(error: Exception) -> str:
    """What an error of other people's code says, short enough for one sentence."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.split(r"\. Please feel free|\s+\[Caused by", line)[0].rstrip(".")


def read_state(path: Path) -> Tensors:
    """Read a network's tensors from a file, without executing anything that it holds.

    Args:
        path: safetensors, or what `torch.save` writes of a `state_dict`, on its own or under the key `model`
            (as RDED does) or `state_dict`. The prefix that `DataParallel` gives all names is taken off.

    Raises:
        BundleError: the file is missing, damaged, would execute code, or holds something else.
    """
    content = read_tensors(path)
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not content or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise BundleError(
            f"The checkpoint {path} holds no dictionary of tensors", "Save the network's state_dict()."
        )
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in content.items()}


def fill_network(module: torch.nn.Module, tensors: Tensors, path: Path) -> None:
    """Give a network its weights; those are refused that do not fit it exactly.

    Raises:
        BundleError: tensors are missing, have another shape, or have no place in the network.
    """
    wanted = module.state_dict()
    check_loading(
        path,
        # PyTorch before 0.4.1 did not count batches.
        missing=[name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")],
        mismatched=[name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape],
    )
    unused = sorted(set(tensors) - set(wanted))
    if unused:
        raise BundleError(
            f"The checkpoint {path} holds {len(unused)} tensors for which the network has no place: "
            f"{', '.join(unused[:3])}",
            "It belongs to another architecture.",
        )
    module.load_state_dict(tensors, strict=False)
