"""What `fgdd-fast bench` compares: several implementations of the same path, from image files to an answer.

A *path* is a piece of the work that can be asked for (`decode`, `foreground`, `teacher`, `compose`, or `all`
of it); an *implementation* is who does it: this project, or one of the PyTorch references. Every
implementation of a path gets the same images, candidate crops, prompts and number of processor threads.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from fgdd_engines.base import Array
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.images.dataset import SourceImage

PathName = Literal["decode", "foreground", "teacher", "compose", "all"]
PATHS: tuple[PathName, ...] = get_args(PathName)
SEGMENTED: tuple[PathName, ...] = ("foreground", "all")  # paths on which a foreground model runs
SCORED: tuple[PathName, ...] = ("teacher", "all")
COMPOSED: tuple[PathName, ...] = ("compose", "all")
# `published` is image by image in fp32, as public scripts do it; `fair` what a good PyTorch engineer would
# write; `compiled` is that with `torch.compile`. Headline ratios are against `fair`.
ReferenceName = Literal["published", "fair", "compiled"]
REFERENCES: tuple[ReferenceName, ...] = get_args(ReferenceName)
Name = Literal["ours", "published", "fair", "compiled"]
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
# Those that keep a GPU busy, where there is one.
ON_DEVICE: frozenset[StageName] = frozenset(STAGES[3:10])

# What a path answers, by name; every array has the images (or mosaics) along its first axis, in their order:
#   decode      tiles      uint8 [images, 1 + crops, tile, tile, 3], RGB: the whole image, then each crop
#   foreground  occupancy  float32 [images], in [0, 1]
#               masks      uint8 [images, height, width]: from 128 on, foreground
#               boxes      float32 [images, most, 5], where it looks for boxes: left, top, right, bottom as
#                          shares of the image, and score; rows with the score 0 are no boxes
#   teacher     losses     float32 [images, 1 + crops], nats: the whole image, then each crop
#   compose     mosaics    uint8 [mosaics, size, size, 3], RGB, as they are read back from the files written
#   all         occupancy, losses, mosaics, and kept float32 [images, crops]: the share of the foreground
Answer = Mapping[str, Array]


@dataclass(frozen=True)
class Stage:
    """One stage of an implementation, which can be run alone.

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


class Implementation(abc.ABC):
    """One implementation of a path, opened and ready; a context manager.

    Attributes:
        name: whose it is.
        arithmetic: what runs its networks, as realised: runtime, version, device and precision; or what
            decodes, where no network runs.
        load_seconds: what opening it took, engines and compilation included; set by who opens it.
        text_encodings: how often a prompt has been encoded since it was opened; None where nothing is.
        opened: what is closed with it.
    """

    load_seconds: float = 0.0
    text_encodings: int | None = None

    def __init__(self, name: Name, arithmetic: str = "") -> None:
        self.name = name
        self.arithmetic = arithmetic
        self.opened = ExitStack()

    @abc.abstractmethod
    def run(self, images: Sequence[SourceImage]) -> Answer:
        """Go from the files of these images to the answer; when it returns, everything is done."""

    @abc.abstractmethod
    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """Return the stages of `run` on some images, in the order of the data, inputs made."""

    def close(self) -> None:
        """Free what it holds; closing twice is harmless."""
        self.opened.close()

    def __enter__(self) -> Implementation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Step:
    """One of the steps that follow each other: what runs in one go is what runs stage by stage.

    Attributes:
        name: the stage that it is.
        do: from an item (an image, a group of images or a mosaic) and from what the step before made of it
            (None at first) to what this one makes of it.
        threads: processor threads that it keeps busy.
    """

    name: StageName
    do: Callable[[Any, Any], Any]
    threads: int = 1


def run_steps(steps: Sequence[Step], item: Any, value: Any = None) -> Any:
    """Return what all steps together make of an item, the first of them of a value."""
    for step in steps:
        value = step.do(item, value)
    return value


def as_stages(
    steps: Sequence[Step], items: Sequence[Any], *, inputs: Sequence[Any] | None = None, images: int = 1
) -> tuple[list[Stage], list[Any]]:
    """Make each step a stage, whose inputs are made here by the steps before it.

    Args:
        steps: one after the other.
        items: what they work on, one in each call; each covers so many images.
        inputs: what the first step gets with each item.

    Returns:
        (the stages, what the last step makes of each item).
    """
    stages: list[Stage] = []
    values = list(inputs) if inputs is not None else [None] * len(items)
    for step in steps:
        run = partial(_call, step, items, values)
        stages.append(Stage(step.name, run, len(items), images, step.threads))
        values = [run(index) for index in range(len(items))]
    return stages, values


def _call(step: Step, items: Sequence[Any], inputs: Sequence[Any], index: int) -> Any:
    return step.do(items[index], inputs[index])


def groups(count: int, size: int) -> list[list[int]]:
    """Return indices below `count` in groups of exactly `size`: the last is filled up from the beginning."""
    return [[(start + place) % count for place in range(size)] for start in range(0, count, size)]


class StepByStep(Implementation):
    """Steps that each image goes through by itself.

    Args:
        name, arithmetic: see `Implementation`.
        steps: of an image.
        answer: makes the answer of what the last step makes of each.
        run_all: applies a function to each of some items, in their order; one after the other by default.
    """

    def __init__(
        self,
        name: Name,
        arithmetic: str,
        steps: Sequence[Step],
        answer: Callable[[list[Any]], Answer],
        run_all: Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]] = map,
    ) -> None:
        super().__init__(name, arithmetic)
        self.steps, self._answer, self._run_all = steps, answer, run_all
        self.opened.callback(self._let_go)

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        with wrapped_as_engine_error(f"{self.arithmetic} failed"):
            found = list(self._run_all(partial(run_steps, self.steps), self.items(images)))
        return self._answer(found)

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`."""
        return as_stages(self.steps, self.items(images))[0]

    def items(self, images: Sequence[SourceImage]) -> Sequence[Any]:
        """Return what the steps work on: the images themselves."""
        return images

    def _let_go(self) -> None:
        self.steps = ()  # and of the networks that they run
