"""Classifiers that Python code makes: those of timm and torchvision, and the user's own functions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fgdd_export.checkpoints.pretrained import provenance
from fgdd_export.classifier.torch_classifier import Classifier, Tensors, fill_network, first_line, read_state
from fgdd_fast.errors import BundleError, FgddError


def load_timm(name: str, weights: Path | None) -> Classifier:
    """Make a network of timm, with its published weights or those of a file.

    Raises:
        BundleError: timm is not installed, does not know the name, or the weights cannot be had.
    """
    timm = _import_package("timm")
    with _told_as_bundle_error(f"timm cannot make {name}", f"Weights of your own: timm:{name}@FILE"):
        module = _filled(lambda **head: timm.create_model(name, pretrained=weights is None, **head), weights)
        settings = timm.data.resolve_model_data_config(module)
    return Classifier(
        module,
        _source("timm", name, name, weights),
        size=settings["input_size"][-1],
        mean=settings["mean"],
        std=settings["std"],
    )


def load_torchvision(name: str, weights: Path | None) -> Classifier:
    """Make a network of torchvision, with its published weights or those of a file.

    Size and normalisation are those of the published weights in both cases.

    Raises:
        BundleError: torchvision is not installed, does not know the name, or the weights cannot be had.
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
            _source("torchvision", name, name, weights),
            size=preset.crop_size[0],
            mean=preset.mean,
            std=preset.std,
            classes=tuple(published.meta["categories"]) if weights is None else None,
        )


def load_function(module_name: str, function: str, weights: Path | None) -> Classifier:
    """Call a Python function without arguments that returns a network; this executes the user's own code.

    Raises:
        BundleError: there is no such function, it fails, or it returns something else.
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
    return Classifier(network, _source("function", called, type(network).__name__, weights))


def _source(kind: str, name: str, architecture: str, weights: Path | None) -> dict[str, Any]:
    file = {} if weights is None else provenance(str(weights))
    return {**file, "kind": kind, "checkpoint": name, "architecture": architecture}


def _filled(make: Callable[..., torch.nn.Module], weights: Path | None) -> torch.nn.Module:
    """A published network, or one with the weights of a file and as many classes as that file has."""
    module = make()
    if weights is None:
        return module
    tensors = read_state(weights)
    classes = _other_classes(module, tensors)
    if classes is not None:
        module = make(num_classes=classes)
    fill_network(module, tensors, weights)
    return module


def _other_classes(module: torch.nn.Module, tensors: Tensors) -> int | None:
    """How many classes tensors tell apart, if not as many as the network: the rows of its last matrix."""
    head = [name for name, tensor in module.state_dict().items() if tensor.ndim > 1][-1]
    if head not in tensors or len(tensors[head]) == len(module.state_dict()[head]):
        return None
    return len(tensors[head])


def _import_package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise BundleError(
            f"The Python package '{missing}' is not installed", f"Run: pip install {missing}"
        ) from error
    except Exception as error:  # such as a torchvision that was built for another PyTorch
        raise BundleError(
            f"The Python package '{name}' cannot be imported: {type(error).__name__}: {first_line(error)}",
            "Install the version that belongs to your PyTorch.",
        ) from error


def _import_own(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise BundleError(
                f"There is no Python module '{error.name}'",
                "It is looked for in the working folder and among the installed packages.",
            ) from error
        raise BundleError(
            f"The Python module {name} cannot be imported: {type(error).__name__}: {first_line(error)}"
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
