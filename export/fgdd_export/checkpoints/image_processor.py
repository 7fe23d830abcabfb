"""What transformers' image processors say of a classifier's input, read from their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from fgdd_fast.errors import BundleError


@dataclass(frozen=True)
class ProcessorSettings:
    """A classifier's input.

    Attributes:
        size: pixels of each side; None where nothing is said.
        mean, std: of each channel, for values in [0, 1]; None where nothing is said.
    """

    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_processor(checkpoint: str) -> ProcessorSettings:
    """Read a checkpoint's image processor; nothing is known where it has none.

    Args:
        checkpoint: a folder, or a name of the hub.

    Raises:
        BundleError: the file is damaged, or asks for what a teacher's graph does not do.
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
        except (OSError, ValueError, TypeError, AttributeError, ZeroDivisionError, KeyError) as error:
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
    return (
        tuple(value / (255 * factor) for value in mean),
        tuple(value / (255 * factor) for value in std),
    )
