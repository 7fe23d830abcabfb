"""A foreground model that needs no prompt: what stands out in an image is its foreground."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod, resize, resize_arithmetic
from fgdd_fast.models.catalogue.catalogue import find_bundle, load_catalogue
from fgdd_fast.models.foreground import (
    Foreground,
    ForegroundChoice,
    ForegroundFamily,
    Inputs,
    Pixels,
    Source,
)
from fgdd_fast.models.network import BatchedNetwork, Runtime, stacked


class SaliencyModel:
    """A `ForegroundModel` that gives an image's occupancy and mask, whatever its class.

    Args:
        bundle: takes `images` uint8 [batch, height, width, 3] in RGB; gives `occupancy` float32 [batch] and
            `mask` uint8 [batch, height, width].
        runtime: how its engine is opened.
        batch: images an inference.
        resize: how images are brought to the model's size.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, *, batch: int, resize: ResizeMethod) -> None:
        self._network = BatchedNetwork(bundle, runtime, batch=batch)
        self._resize: ResizeMethod = resize
        self.name = bundle.name
        self.sha256 = bundle.sha256
        self.description = self._network.engine.arithmetic
        self.streams = self._network.streams

    def fingerprint(self, class_name: str) -> Mapping[str, str]:  # noqa: ARG002 - the same for every class
        """See `ForegroundModel.fingerprint`."""
        return {**self._network.fingerprint, "resize": resize_arithmetic(self._resize)}

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:  # noqa: ARG002 - no class needed
        """See `ForegroundModel.prepare`."""
        return {"images": resize(pixels, self._network.size, self._resize)}

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """See `ForegroundModel.find`."""
        if not prepared:
            return []
        feeds = {name: stacked([inputs[name] for inputs in prepared]) for name in prepared[0]}
        found = self._network.run(feeds, ["occupancy", "mask"] if masks else ["occupancy"])
        occupancies = np.clip(found["occupancy"], 0, 1)  # a float32 mean may pass 1 by a bit
        return [
            Foreground(float(occupancy), mask=found["mask"][place] if masks else None)
            for place, occupancy in enumerate(occupancies)
        ]

    def close(self) -> None:
        """Free the runtime's memory."""
        self._network.close()


class SaliencyFamily(ForegroundFamily):
    """Models of one network that is not asked in words; `model` opens one."""

    model = SaliencyModel
    name = spelling = "saliency"  # short for the catalogue's model

    def find(self, argument: str) -> Bundle:  # noqa: ARG002 - there is one
        return find_bundle("saliency-u2netp", "foreground")

    def quick(self, source: Source) -> Bundle | None:
        """The catalogue's model of the same weights, on the largest canvas of half the side or less."""
        assert isinstance(source, Bundle)
        sides = {
            entry.preparation.size: entry.name
            for entry in load_catalogue()
            if entry.preparation.size is not None
            and entry.preparation.recipe == source.source.get("recipe")
            and entry.source.sha256 == source.source.get("sha256")
        }
        smaller = [side for side in sides if 2 * side <= source.preprocessing.width]
        return find_bundle(sides[max(smaller)], "foreground") if smaller else None

    def open(
        self,
        choice: ForegroundChoice,
        *,
        runtime: Callable[[Bundle], Runtime],
        batch: int,
        resize: ResizeMethod,
        threads: int,  # noqa: ARG002 - the runtime has its own
    ) -> SaliencyModel:
        assert isinstance(choice.source, Bundle)
        return self.model(choice.source, runtime(choice.source), batch=batch, resize=resize)


SALIENCY = SaliencyFamily()
