"""Load PyTorch checkpoints: folders and hub names as transformers does, and bare files of tensors.

Weights come from safetensors, or from a pickle that is read with `weights_only`, so no checkpoint can execute
code. Weights that do not fill the network are refused: one with a few random layers looks fine until somebody
trusts it.
"""

from __future__ import annotations

import json
import logging
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from safetensors.torch import load_file
from transformers.utils.hub import cached_file

from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.errors import BundleError

Triple = tuple[float, float, float]
NO_HUB = "Without a network, give the path of a folder with config.json and model.safetensors."


def triple(values: Iterable[float]) -> Triple:
    """Return one number for each colour channel, of exactly three."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def load_config(checkpoint: str, model_types: tuple[str, ...] = ()) -> Any:
    """Read the `config.json` of a folder, or of a name of the hub.

    Raises BundleError where it is not there, or its `model_type` is none of those wanted; any will do when
    empty.
    """
    with _explained(checkpoint):
        config = transformers.AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    if model_types and config.model_type not in model_types:
        raise BundleError(
            f"The checkpoint {checkpoint} is a {config.model_type}, not a {' or '.join(model_types)}",
            "Name the checkpoint of the other architecture.",
        )
    return config


@dataclass(frozen=True)
class Loaded:
    """A network with its weights.

    Attributes:
        model: in float32 and evaluation mode.
        unused: names of the checkpoint's tensors for which the network has no place.
    """

    model: Any
    unused: tuple[str, ...]


def load_model(checkpoint: str, model_class: Any, config: Any = None) -> Loaded:
    """Load a network and its weights as transformers does, and refuse a network that is not filled whole.

    Args:
        checkpoint: a folder, or a name of the hub.
        model_class: a transformers class with `from_pretrained`.
        config: replaces the checkpoint's own.

    Raises:
        BundleError: the weights are missing, damaged, incomplete, of another shape, or executable.
    """
    options = {} if config is None else {"config": config}
    with _explained(checkpoint):
        model, loading = model_class.from_pretrained(
            checkpoint, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    mismatched = [str(key[0]) for key in loading["mismatched_keys"]]
    check_loading(checkpoint, missing=loading["missing_keys"], mismatched=mismatched)
    model.eval()
    return Loaded(model, tuple(sorted(loading["unexpected_keys"])))


def check_loading(checkpoint: object, *, missing: Iterable[str], mismatched: Iterable[str]) -> None:
    """Raise BundleError where a checkpoint lacks tensors of a network, or holds some in another shape."""
    for what, keys in (("lacks", sorted(missing)), ("has the wrong shape for", sorted(mismatched))):
        if keys:
            listed = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise BundleError(
                f"The checkpoint {checkpoint} {what} {len(keys)} of the network's tensors: {listed}",
                "It belongs to another architecture or size, or was cut short.",
            )


def read_tensors(path: Path) -> Mapping[str, Any]:
    """Read a file of tensors: safetensors, or a pickle that holds nothing but tensors and plain containers.

    Returns what it holds, most often a dictionary of tensors by name, or one that holds such a dictionary.
    Raises BundleError where the file is missing, damaged, or would execute code.
    """
    with _explained(str(path)):
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise BundleError(f"The checkpoint {path} holds no dictionary of tensors")
    return content


@contextmanager
def _explained(checkpoint: str) -> Iterator[None]:
    """Turn what transformers, safetensors and PyTorch raise for a bad checkpoint into one kind of error."""
    if _looks_like_path(checkpoint) and not Path(checkpoint).exists():
        raise BundleError(f"There is no checkpoint {checkpoint}", NO_HUB)
    try:
        with _quiet():
            yield
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"The checkpoint {checkpoint} is a pickle that holds more than tensors, or is damaged",
            "Such a file can execute code when it is loaded. Save the weights as safetensors.",
        ) from error
    except FileNotFoundError as error:
        raise BundleError(f"There is no checkpoint {checkpoint}", NO_HUB) from error
    except OSError as error:
        raise BundleError(
            f"The checkpoint {checkpoint} cannot be loaded: {_first_line(error)}",
            "" if Path(checkpoint).is_file() else NO_HUB,
        ) from error
    except Exception as error:  # a dozen types, of several packages
        raise BundleError(f"The checkpoint {checkpoint} cannot be loaded: {_first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers and its hub client from writing over the terminal; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars: Any = transformers.utils.logging
    hub: Any = huggingface_hub.utils
    shown, hub_shown = bars.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hub warns where an environment variable decides for it
        bars.disable_progress_bar()
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if shown:
                bars.enable_progress_bar()  # and the hub's with them
            if hub_shown:
                hub.enable_progress_bars()
            else:
                hub.disable_progress_bars()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _looks_like_path(checkpoint: str) -> bool:
    """A hub name is NAME or OWNER/NAME."""
    return checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1


def _first_line(error: BaseException) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), repr(error))


def provenance(checkpoint: str) -> dict[str, Any]:
    """What names a checkpoint in a sidecar: its name without the machine's path, and its weights' hash.

    A name of the hub has no hash of its own here: the file is wherever the hub's client keeps it.
    """
    path = Path(checkpoint)
    if not path.exists():
        return {"checkpoint": checkpoint}
    weights = [path] if path.is_file() else sorted(path.glob("*.safetensors")) + sorted(path.glob("*.bin"))
    return {"checkpoint": path.resolve().name, "weights": {file.name: file_sha256(file) for file in weights}}


@dataclass(frozen=True)
class ProcessorSettings:
    """A classifier's input; None where nothing is said."""

    size: int | None = None  # pixels of each side
    # mean, std: of each channel, for values in [0, 1]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_processor(checkpoint: str) -> ProcessorSettings:
    """Read the image processor of a folder, or of a name of the hub; nothing is known where it has none.

    Raises BundleError where the file is damaged, or asks for what a teacher's graph does not do.
    """
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False)
        if path is None:
            continue
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            data = data if name.startswith("pre") else data.get("image_processor")
            if data is not None:
                return _settings(data, checkpoint)
        except (
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            ArithmeticError,
            KeyError,
            RecursionError,
        ) as error:
            raise BundleError(f"The file {name} of {checkpoint} cannot be read: {error!r}") from error
    return ProcessorSettings()


def _settings(data: Mapping[str, Any], checkpoint: str) -> ProcessorSettings:
    if data.get("do_flip_channel_order"):
        raise BundleError(
            f"The network {checkpoint} takes its channels as BGR, and teachers are shown RGB",
            "Export it as MODULE:FUNCTION, a network of your own that swaps them.",
        )
    return ProcessorSettings(_side(data, checkpoint), *_normalisation(data))


def _side(data: Mapping[str, Any], checkpoint: str) -> int | None:
    """Pixels of each side after resizing and cropping."""
    cropped = data.get("do_center_crop") and data.get("crop_size") is not None
    size = data.get("crop_size") if cropped else data.get("size")
    if size is None or isinstance(size, int):
        return size
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    height, width = int(size["height"]), int(size["width"])
    if height != width:
        raise BundleError(
            f"The network {checkpoint} takes images of {height} x {width} pixels, not square ones"
        )
    return height


def _normalisation(data: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation for values in [0, 1], whatever the processor rescales to."""
    factor = float(data.get("rescale_factor", 1 / 255)) if data.get("do_rescale", True) else 1.0
    if not data.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    elif data.get("image_mean") is None or data.get("image_std") is None:
        return None, None
    else:
        mean, std = [list(map(float, data[key])) for key in ("image_mean", "image_std")]
    if data.get("rescale_offset"):  # EfficientNet's processor subtracts 1 after rescaling …
        mean = [value + 1 for value in mean]
    if data.get("include_top"):  # … and divides by the standard deviation twice
        std = [value * value for value in std]
    return tuple(value / (255 * factor) for value in mean), tuple(value / (255 * factor) for value in std)
