"""What a foreground model finds in an image, what every such model can do, and what a family of them is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.plugins import Plugin
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.network import Runtime

Pixels = NDArray[np.uint8]
Inputs = Mapping[str, Array]
Prompts = Mapping[str, tuple[str, ...]]  # phrases by class
Source = Bundle | Path | str


class ScoredBox(NamedTuple):
    """An object found: its edges as shares of the image's width and height, and its score in [0, 1].

    Edges are the network's own, so they may lie outside [0, 1] by a little.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float


@dataclass(frozen=True)
class Foreground:
    """What was found of one image's foreground.

    Attributes:
        occupancy: share of the image that the foreground covers, in [0, 1].
        boxes: the objects found, best first; empty for a model that looks for none.
        mask: foreground probability uint8 [height, width], 0 to 255, of the whole image at the model's own
            resolution; None where it was not asked for.
    """

    occupancy: float
    boxes: tuple[ScoredBox, ...] = ()
    mask: Pixels | None = None


class ForegroundModel(Protocol):
    """Says how much of each image its foreground covers.

    Attributes:
        name: for reports, free of machine paths.
        sha256: hexadecimal hash that names the model (or the masks) exactly.
        description: model and runtime, for reports; equal for equal arithmetic, whatever the threads.
        streams: how many calls of `find` are worth having in flight.
    """

    name: str
    sha256: str
    description: str
    streams: int

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """Everything but the image's bytes that a result for an image of this class depends on."""

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        """What the model takes of an image, one sample without a batch axis; for reading threads.

        Args:
            pixels: the decoded image, uint8 [height, width, 3], RGB.
            image: where it comes from, and its class.

        Raises:
            ImageError: the model has nothing to say of this image, which is then skipped.
        """

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """The foregrounds of images that `prepare` took; for inference threads.

        Args:
            prepared: one for each image; any number.
            masks: whether the masks are wanted as well.
        """

    def close(self) -> None:
        """Free what the model holds."""


@runtime_checkable
class FingerprintsImages(Protocol):
    """A `ForegroundModel` whose result for an image depends on more than its bytes and its class."""

    def image_fingerprint(self, image: SourceImage) -> Mapping[str, str]:
        """Everything but the image's bytes that a result for it depends on; read before `fingerprint`'s."""


@dataclass(frozen=True)
class ForegroundChoice:
    """A foreground model, and how it is asked.

    Attributes:
        source: the bundle, the folder of masks, or what else a family takes.
        classes: those of the images.
        prompts: the phrases of each class, where the model is asked for classes by their names; else empty.
        box_threshold: score in [0, 1] above which such a model takes a box; None for others.
        family: which kind of model it is; told from the source when None.
        plugin: the installed package that the family comes from; None for a family of this project.
    """

    source: Source
    classes: Sequence[str]
    prompts: Prompts = field(default_factory=dict)
    box_threshold: float | None = None
    family: ForegroundFamily | None = None
    plugin: Plugin | None = None

    @property
    def name(self) -> str:
        """The bundle's name, or the family's, such as `masks`; free of machine paths."""
        if isinstance(self.source, Bundle):
            return self.source.name
        return "masks" if self.family is None else self.family.name


class ForegroundFamily(ABC):
    """A kind of foreground models: how users name it, how it is asked, and how it is opened.

    To add one, offer an instance of a subclass as an entry point of the group `fgdd_fast.foregrounds`, under
    the family's name. A bundle belongs to the family that its `prompting` names as `family`.

    Attributes:
        name: names the family to users, such as `masks`.
        spelling: how users name a model of it, for help texts, such as `masks:FOLDER`.
        asked_by_class: whether the model looks for what an image's class names, whatever the name. Such a
            model is large: its engines take single images, it is compared on scenes of named things, and is
            not quantised.
    """

    name: ClassVar[str]
    spelling: ClassVar[str]
    asked_by_class: ClassVar[bool] = False

    @abstractmethod
    def find(self, argument: str) -> Source:
        """Return the model that a user names.

        Args:
            argument: what follows the family's name and a colon; empty where only the family is named.

        Raises:
            FgddError: there is no such model.
        """

    def choose(
        self, source: Source, classes: Sequence[str], *, prompts: Prompts | None, box_threshold: float | None
    ) -> ForegroundChoice:
        """Return how a model is asked; by default it is asked for no class.

        Args:
            source: as `find` returned it, or a bundle of the family.
            classes: those of the data set.
            prompts: phrases by class that the user gave.
            box_threshold: score in [0, 1] that the user gave.

        Raises:
            SettingsError: an option does not apply, or a class is nothing to look for.
        """
        for option, value in {"--prompts": prompts, "--box-threshold": box_threshold}.items():
            if value is not None:
                named = source.onnx if isinstance(source, Bundle) else self.spelling
                raise SettingsError(
                    f"{option} does not apply to the foreground model {named}, which takes no prompt",
                    f"Leave {option} out, or name a Grounded SAM 2 bundle with --foreground.",
                )
        return ForegroundChoice(source, classes, family=self)

    def quick(self, source: Source) -> Source | None:  # noqa: ARG002 - by default there is none
        """Return a model that sees nearly the same as another of the family, in much less time.

        With the effort `decide` it looks at every image, and is asked as the other one is.

        Args:
            source: the other one, as `find` returned it, or a bundle of the family.

        Returns:
            The quick one; None where there is none.

        Raises:
            BundleError: there is one, which is not here yet.
        """
        return None

    @abstractmethod
    def open(
        self,
        choice: ForegroundChoice,
        *,
        runtime: Callable[[Bundle], Runtime],
        batch: int,
        resize: ResizeMethod,
        threads: int,
    ) -> ForegroundModel:
        """Open a model; see `fgdd_fast.models.factory.open_foreground`."""
