"""Where a PyTorch classifier comes from: a checkpoint's name tells its kind, and a file's content its own.

Python code makes those of timm and torchvision, and the user's own functions.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import transformers

from fgdd_export.checkpoints.pretrained import load_config, load_model, provenance, read_processor
from fgdd_export.classifier.weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Classifier,
    fill_network,
    first_line,
    rded_network,
    read_state,
)
from fgdd_fast.errors import BundleError, FgddError, SettingsError


def load_timm(name: str, weights: Path | None) -> Classifier:
    """Make a network of timm, with its published weights or those of a file; BundleError if it cannot."""
    timm = _import_package("timm")
    with _told_as_bundle_error(f"timm cannot make {name}", f"Weights of your own: timm:{name}@FILE"):
        module = _filled(lambda **head: timm.create_model(name, pretrained=weights is None, **head), weights)
        settings = timm.data.resolve_model_data_config(module)
    source = _code_source("timm", name, name, weights)
    return Classifier(module, source, settings["input_size"][-1], settings["mean"], settings["std"])


def load_torchvision(name: str, weights: Path | None) -> Classifier:
    """Make a network of torchvision, with its published weights or those of a file.

    Size and normalisation are those of the published weights in both cases. Raises BundleError if it cannot.
    """
    models = _import_package("torchvision").models
    own = f"Weights of your own: torchvision:{name}@FILE"
    with _told_as_bundle_error(f"torchvision cannot make {name}", own):
        published = models.get_model_weights(name).DEFAULT
        chosen = published if weights is None else None
        module = _filled(lambda **head: models.get_model(name, weights=chosen, **head), weights)
        preset = published.transforms()
        return Classifier(
            module,
            _code_source("torchvision", name, name, weights),
            size=preset.crop_size[0],
            mean=preset.mean,
            std=preset.std,
            classes=tuple(published.meta["categories"]) if weights is None else None,
        )


def load_function(module_name: str, function: str, weights: Path | None) -> Classifier:
    """Call a Python function without arguments that returns a network; this executes the user's own code.

    Raises BundleError where there is no such function, it fails, or it returns something else.
    """
    called = f"{module_name}:{function}"
    with _working_folder_importable():
        module = _import_own(module_name)
        make = getattr(module, function, None)
        if not callable(make):
            raise BundleError(f"The Python module {module_name} has no function '{function}'")
        with _told_as_bundle_error(f"The function {called} failed"):
            network = make()
    if not isinstance(network, torch.nn.Module):
        raise BundleError(f"The function {called} returns a {type(network).__name__}, not a torch.nn.Module")
    if weights is not None:
        fill_network(network, read_state(weights), weights)
    return Classifier(network, _code_source("function", called, type(network).__name__, weights))


def _code_source(kind: str, name: str, architecture: str, weights: Path | None) -> dict[str, Any]:
    file = {} if weights is None else provenance(str(weights))
    return {**file, "kind": kind, "checkpoint": name, "architecture": architecture}


def _filled(make: Callable[..., torch.nn.Module], weights: Path | None) -> torch.nn.Module:
    """A published network, or one with the weights of a file and as many classes as that file has."""
    module = make()
    if weights is None:
        return module
    tensors, own = read_state(weights), module.state_dict()
    head = [name for name, tensor in own.items() if tensor.ndim > 1][-1]  # the last matrix has a row a class
    if head in tensors and len(tensors[head]) != len(own[head]):
        module = make(num_classes=len(tensors[head]))
    fill_network(module, tensors, weights)
    return module


def _import_package(name: str) -> Any:
    advice = "Install the version that belongs to your PyTorch."  # torchvision is built for one
    with _told_as_bundle_error(f"The Python package '{name}' cannot be imported", advice):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = (error.name or name).partition(".")[0]
            raise BundleError(
                f"The Python package '{missing}' is not installed", f"Run: pip install {missing}"
            ) from error


def _import_own(name: str) -> Any:
    with _told_as_bundle_error(f"The Python module {name} cannot be imported"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise
            raise BundleError(
                f"There is no Python module '{error.name}'",
                "It is looked for in the working folder and among the installed packages.",
            ) from error


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """Find modules of the working folder, as `python -m` does and an installed command does not."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # where the user's own code has taken it away
            sys.path.remove(folder)


@contextmanager
def _told_as_bundle_error(problem: str, advice: str = "") -> Iterator[None]:
    """Turn what other people's code raises into an error that says whose it is."""
    try:
        yield
    except FgddError:
        raise
    except Exception as error:
        raise BundleError(f"{problem}: {type(error).__name__}: {first_line(error)}", advice) from error


PACKAGES: Mapping[str, Callable[[str, Path | None], Classifier]] = {
    "timm": load_timm,
    "torchvision": load_torchvision,
}
CODE = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.-]*)(@(?P<weights>.+))?")
FILE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".ts")
UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls a class without a name


def load_classifier(checkpoint: str, *, trust_code: bool = False) -> Classifier:
    """Load a classifier with its weights, in float32 and evaluation mode on the CPU.

    See `fgdd_export.classifier.bundle.export_teacher`; bundles are not taken here. Raises BundleError where
    it is not there, damaged, or not what it should be; SettingsError where it is a program that is not
    trusted.
    """
    classifier = _load(checkpoint, trust_code)
    classifier.module.to("cpu", torch.float32).eval()
    return classifier


def _load(checkpoint: str, trust_code: bool) -> Classifier:
    path = Path(checkpoint)
    if path.is_file():
        if not _is_torchscript(path):
            return load_rded(path)
        if not trust_code:
            raise SettingsError(
                f"The checkpoint {checkpoint} is TorchScript, which is a program: it can write files when it "
                "is loaded",
                "If you trust whoever made it: --trust-code (trust_code=True)",
            )
        return load_torchscript(path)
    if code := CODE.fullmatch(checkpoint):
        weights = None if code["weights"] is None else Path(code["weights"])
        if code["module"] in PACKAGES:
            return PACKAGES[code["module"]](code["name"], weights)
        return load_function(code["module"], code["name"], weights)
    if path.suffix in FILE_SUFFIXES:
        raise BundleError(f"There is no file {checkpoint}")
    return load_transformers(checkpoint)


def load_transformers(checkpoint: str) -> Classifier:
    """Load an image classifier of transformers: a folder, or a name of the hub."""
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
    """Load what `torch.jit.save` wrote: a program, whose code runs with this process's rights to files."""
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
    source = _source("rded", str(path), network.architecture)
    return Classifier(network.module, source, network.size, IMAGENET_MEAN, IMAGENET_STD)


def _source(kind: str, checkpoint: str, architecture: str) -> dict[str, Any]:
    return {"kind": kind, "architecture": architecture, **provenance(checkpoint)}


def _is_torchscript(path: Path) -> bool:
    """Whether a file is an archive with code beside the tensors."""
    with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
    return False


def _square(size: Any) -> int | None:
    """The side of a network's input, which configurations give as a number or as height and width."""
    sides = {size} if isinstance(size, int) else set(size or ())
    return int(sides.pop()) if len(sides) == 1 else None
