"""A backend, a foreground model and a student that a package adds to fgdd-fast; `pyproject.toml` names them.

They are imported when one of their names is asked for. The package's name and version become part of what
results depend on, and stand in the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fgdd_engines.backends import Backend, find_backend
from fgdd_engines.base import Array, Engine
from fgdd_fast.models.foreground import Foreground, ForegroundFamily

if TYPE_CHECKING:
    import torch


class CountingEngine(Engine):
    """Runs a model in ONNX Runtime on the processor, and counts how often."""

    calls = 0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.streams, self.arithmetic = engine.streams, engine.arithmetic

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        CountingEngine.calls += 1
        return self._engine.run(feeds, outputs)

    def close(self) -> None:
        self._engine.close()


COUNTING = Backend(
    open=lambda bundle, axes, threads, precision: CountingEngine(
        find_backend("cpu").open(bundle, axes, threads, precision)
    ),
    probe=lambda: f"counting calls of {find_backend('cpu').probe()}",
    on_processor=True,
)


class Centre:
    """Takes the middle of every image for its foreground.

    Args:
        share: side of the middle, as a share of the image's, in (0, 1].
    """

    name, streams = "centre", 1

    def __init__(self, share: float) -> None:
        self._share = share
        self.description = f"the middle {share:g}"
        self.sha256 = hashlib.sha256(self.description.encode()).hexdigest()

    def fingerprint(self, class_name: str) -> dict[str, str]:
        """Return what results depend on, apart from the image."""
        return {"share": f"{self._share:g}"}

    def prepare(self, pixels: np.ndarray, image: Any) -> dict[str, Array]:
        """Return what the model takes of an image: here its size, which does not matter."""
        return {"size": np.asarray(pixels.shape[:2])}

    def find(self, prepared: Sequence[Any], *, masks: bool = False) -> list[Foreground]:
        """Return the foreground of each image that was prepared."""
        across = np.abs(np.linspace(-1, 1, 64)) <= self._share
        mask = np.where(np.outer(across, across), 255, 0).astype(np.uint8)
        return [Foreground(float((mask > 0).mean()), mask=mask if masks else None) for _ in prepared]

    def close(self) -> None:
        """Free nothing."""


class CentreFamily(ForegroundFamily):
    """What users name `centre`, or `centre:SHARE`."""

    name, spelling = "centre", "centre:SHARE"

    def find(self, argument: str) -> str:
        """Return what was asked for; a bundle would be looked up here."""
        return argument or "0.5"

    def open(self, choice: Any, **_: Any) -> Centre:
        """Open the model that `find` found."""
        return Centre(float(choice.source))


CENTRE = CentreFamily()


def linear(classes: int, size: int) -> torch.nn.Module:
    """Return a student that looks at pixels alone."""
    from torch import nn  # noqa: PLC0415 - for those alone who train

    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))
