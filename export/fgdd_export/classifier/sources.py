"""Where a PyTorch classifier comes from: a checkpoint's name tells its kind, and a file's content its own."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from fgdd_export.checkpoints.image_processor import read_processor
from fgdd_export.checkpoints.pretrained import load_config, load_model, provenance
from fgdd_export.classifier.code import load_function, load_timm, load_torchvision
from fgdd_export.classifier.rded_networks import rded_network
from fgdd_export.classifier.torch_classifier import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Classifier,
    fill_network,
    first_line,
    read_state,
)
from fgdd_fast.errors import BundleError

PACKAGES: Mapping[str, Callable[[str, Path | None], Classifier]] = {
    "timm": load_timm,
    "torchvision": load_torchvision,
}
CODE = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.-]*)(@(?P<weights>.+))?")
FILE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".ts")
UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls a class without a name


def load_classifier(checkpoint: str) -> Classifier:
    """Load a classifier with its weights.

    Args:
        checkpoint: see `fgdd_export.classifier.bundle.export_teacher`; bundles are not taken here.

    Returns:
        The network in float32 and evaluation mode on the CPU.

    Raises:
        BundleError: it is not there, damaged, or not what it should be.
    """
    classifier = _load(checkpoint)
    classifier.module.to("cpu", torch.float32).eval()
    return classifier


def _load(checkpoint: str) -> Classifier:
    path = Path(checkpoint)
    if path.is_file():
        return load_torchscript(path) if _is_torchscript(path) else load_rded(path)
    if code := CODE.fullmatch(checkpoint):
        weights = None if code["weights"] is None else Path(code["weights"])
        if code["module"] in PACKAGES:
            return PACKAGES[code["module"]](code["name"], weights)
        return load_function(code["module"], code["name"], weights)
    if path.suffix in FILE_SUFFIXES:
        raise BundleError(f"There is no file {checkpoint}")
    return load_transformers(checkpoint)


def load_transformers(checkpoint: str) -> Classifier:
    """Load an image classifier of transformers.

    Args:
        checkpoint: a folder, or a name of the hub.
    """
    config = load_config(checkpoint)
    if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise BundleError(f"The checkpoint {checkpoint} is a {config.model_type}, which classifies no images")
    model = load_model(checkpoint, transformers.AutoModelForImageClassification, config).model
    model.set_attn_implementation("eager")  # gives the smaller graph
    names = [str(config.id2label[index]) for index in sorted(config.id2label)]
    processor = read_processor(checkpoint)
    return Classifier(
        model,
        _source("transformers", checkpoint, type(model).__name__),
        size=processor.size or _square(getattr(config, "image_size", None)),
        mean=processor.mean,
        std=processor.std,
        classes=None if any(map(UNNAMED.fullmatch, names)) else tuple(names),
    )


def load_torchscript(path: Path) -> Classifier:
    """Load what `torch.jit.save` wrote. TorchScript computes with tensors and can call no other code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is called outdated
        try:
            load: Any = torch.jit.load  # without types
            module = load(path, map_location="cpu")
        except (RuntimeError, ValueError, OSError) as error:
            raise BundleError(f"The TorchScript file {path} cannot be loaded: {first_line(error)}") from error
    return Classifier(module, _source("torchscript", str(path), module.original_name))


def load_rded(path: Path) -> Classifier:
    """Load a file of weights whose tensors tell their network; RDED normalises all by ImageNet's values."""
    tensors = read_state(path)
    network = rded_network(tensors)
    fill_network(network.module, tensors, path)
    return Classifier(
        network.module,
        _source("rded", str(path), network.architecture),
        size=network.size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _source(kind: str, checkpoint: str, architecture: str) -> dict[str, Any]:
    return {"kind": kind, "architecture": architecture, **provenance(checkpoint)}


def _is_torchscript(path: Path) -> bool:
    """Whether a file is an archive with code beside the tensors."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _square(size: Any) -> int | None:
    """The side of a network's input, which configurations give as a number or as height and width."""
    sides = {size} if isinstance(size, int) else set(size or ())
    return int(sides.pop()) if len(sides) == 1 else None
