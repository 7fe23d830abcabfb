"""What `fgdd-fast bench` compares: several ways along the same path, from image files to an answer.

A *path* is a piece of the work that can be asked for (`decode`, `foreground`, `teacher`, `compose`, or `all`
of it); a *way* is who does it: this project, or one of the PyTorch references (a *column* of the report).
Every way of a path gets the same images, candidate crops, prompts and number of processor threads.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, get_args

from fgdd_engines.base import Array
from fgdd_fast.images.dataset import SourceImage

PathName = Literal["decode", "foreground", "teacher", "compose", "all"]
PATHS: tuple[PathName, ...] = get_args(PathName)
# `published` is image by image in fp32, as public scripts do it; `fair` what a good PyTorch engineer would
# write; `compiled` is that with `torch.compile`. Headline ratios are against `fair`.
ReferenceName = Literal["published", "fair", "compiled"]
REFERENCES: tuple[ReferenceName, ...] = get_args(ReferenceName)
Column = Literal["product", "published", "fair", "compiled"]
StageName = Literal[
    "read",
    "decode",
    "preprocess",
    "host to device",
    "saliency",
    "text encoder",
    "detector",
    "mask encoder",
    "mask decoder",
    "teacher",
    "compose",
    "write",
]
STAGES: tuple[StageName, ...] = get_args(StageName)

# What a path answers, by name; every array has the images (or mosaics) along its first axis, in their order:
#   decode      tiles      uint8 [images, 1 + crops, tile, tile, 3], RGB: the whole image, then each crop
#   foreground  occupancy  float32 [images], in [0, 1]
#               masks      uint8 [images, height, width], where there are any: from 128 on, foreground
#               boxes      float32 [images, most, 5], where it looks for boxes: left, top, right, bottom as
#                          shares of the image, and score; rows with the score 0 are no boxes
#   teacher     losses     float32 [images, 1 + crops], nats: the whole image, then each crop
#   compose     mosaics    uint8 [mosaics, size, size, 3], RGB, as they are read back from the files written
#   all         occupancy, losses and mosaics
Answer = Mapping[str, Array]


@dataclass(frozen=True)
class Stage:
    """One stage of a way, which can be run alone.

    Attributes:
        name: which.
        run: does the stage for the images that the index stands for, on inputs that were made beforehand;
            when it returns, everything is done (a GPU has been synchronised).
        calls: how many indices there are, from 0.
        images: how many images one call covers.
        threads: processor threads that one call keeps busy.
    """

    name: StageName
    run: Callable[[int], Any]
    calls: int
    images: int
    threads: int


class Way(abc.ABC):
    """One way along a path, opened and ready; a context manager.

    Attributes:
        column: who does it.
        arithmetic: what runs its networks, as realised: runtime, version, device and precision; or what
            decodes, where no network runs.
        load_seconds: what opening it took, engines and compilation included.
        text_encodings: how often a prompt has been encoded since it was opened; None where nothing is.
    """

    column: Column
    arithmetic: str
    load_seconds: float
    text_encodings: int | None = None

    @abc.abstractmethod
    def run(self, images: Sequence[SourceImage]) -> Answer:
        """From the files of these images to the answer; when it returns, everything is done."""

    @abc.abstractmethod
    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """The stages of `run` on some images, in the order of the data, inputs made."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free what it holds; closing twice is harmless."""

    def __enter__(self) -> Way:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every way of a benchmark is given.

    Attributes:
        crops: candidate crops of each image.
        seed: of the candidate crops.
        tile_size: side of a tile in pixels.
        factor: tiles along each side of a mosaic.
        threads: processor threads.
        batch: images that a reference puts into one inference; the references' own best, found beforehand.
        device: `cpu` or `cuda`, where the references run.
    """

    crops: int = 5
    seed: int = 0
    tile_size: int = 112
    factor: int = 2
    threads: int = 2
    batch: int = 2
    device: Literal["cpu", "cuda"] = "cpu"
