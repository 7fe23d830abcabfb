"""Measure the ways along a path: time them in turns, and stage by stage, and compare their answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from fgdd_bench.harness.interleaving import Timed, interleave, no_collection
from fgdd_bench.harness.originals import Original
from fgdd_bench.harness.parity import FP32, Parity, hold
from fgdd_bench.harness.timing import StageTimes, time_stage
from fgdd_bench.harness.ways import Answer, Column, PathName, ReferenceName, StageName, Task, Way
from fgdd_bench.machine.ceilings import opencv_decoding, precisions_of
from fgdd_bench.machine.operations import Work
from fgdd_fast.images.dataset import SourceImage

LIMIT = "limit"  # the name under which a path's limit takes its turns
# Told what is being done, and whether it was one of the runs that count.
Watch = Callable[[str, bool], None]


@dataclass(frozen=True)
class Network:
    """A network that a path runs.

    Attributes:
        name: of its bundle.
        work: what it does for a sample.
        samples: that it is shown of each image.
    """

    name: str
    work: Work
    samples: int


class Opener(Protocol):
    """Opens the ways of every path."""

    def open(self, path: PathName, column: Column, tell: Callable[[str], None]) -> Way:
        """Open one way, telling what is tried for it; its `load_seconds` is set."""

    def open_fp32(self, path: PathName) -> Way:
        """The product in fp32 in ONNX Runtime, for its decisions."""

    def batch(self, path: PathName, column: Column) -> int | None:
        """Images that a way which has been opened puts into one inference; None where nothing is batched."""

    def networks(self, path: PathName, way: Way) -> Mapping[StageName, Network]:
        """The networks that an open way of a path runs, by the stage that runs each."""


@dataclass(frozen=True)
class Measured:
    """One way along a path.

    Attributes:
        arithmetic, load_seconds, text_encodings: see `Way`; the encodings are of all runs together.
        batch: see `Opener.batch`.
        timed: the whole runs.
        stages: each alone.
        networks: see `Opener.networks`.
    """

    arithmetic: str
    load_seconds: float
    text_encodings: int | None
    batch: int | None
    timed: Timed[Answer]
    stages: tuple[StageTimes, ...]
    networks: Mapping[StageName, Network]


@dataclass(frozen=True)
class Contest:
    """What was measured of a path.

    Attributes:
        path: which.
        images: how many images a run covers; where mosaics are composed, how many tiles.
        columns: the ways.
        parities: how the product's answers compare with those of the others.
        limit: OpenCV's decoding alone of the same files, in turns with the ways; None where more than
            decoding is to be done.
    """

    path: PathName
    images: int
    columns: Mapping[Column, Measured]
    parities: tuple[Parity, ...]
    limit: Timed[Answer] | None

    @property
    def failures(self) -> tuple[str, ...]:
        """What of the product's answers is not accepted, in words."""
        return tuple(failure for parity in self.parities for failure in parity.failures)


def measure_path(
    path: PathName,
    opener: Opener,
    originals: Sequence[Original],
    task: Task,
    *,
    references: Sequence[ReferenceName],
    repeats: int,
    watch: Watch,
) -> Contest:
    """Measure the product and some references along a path.

    Args:
        path: which.
        opener: opens the ways.
        originals: the images.
        task: what every way is given.
        references: with which the product is compared.
        repeats: turns.
        watch: told of progress.

    Raises:
        FgddError: a way cannot be opened or run.
    """
    images = [original.image for original in originals]
    watch(f"{path}: the answers of fp32", False)
    with opener.open_fp32(path) as reference:
        expected = reference.run(images)
    runs: dict[str, Callable[[], Answer]] = {}
    ways: dict[Column, Way] = {}
    columns: tuple[Column, ...] = ("product", *references)
    with ExitStack() as stack:
        for column in columns:
            opening = f"{path}: opening {column}"
            watch(opening, False)

            def tell(words: str, opening: str = opening) -> None:
                watch(f"{opening}, {words}", False)

            ways[column] = stack.enter_context(opener.open(path, column, tell))
            runs[column] = partial(ways[column].run, images)
        if path == "decode":
            runs[LIMIT] = opencv_decoding([image.path for image in images], task.threads)
        timed = interleave(
            runs, repeats, digest=answer_digest, advance=lambda name, counts: watch(f"{path}: {name}", counts)
        )
        measured = {
            column: _measured(opener, path, way, timed[column], images, watch) for column, way in ways.items()
        }
    watch(f"{path}: comparing the answers", False)
    answers: dict[str, Answer] = {FP32: expected}
    answers |= {reference: timed[reference].answer for reference in references}
    product = measured["product"]
    precisions = precisions_of(product.arithmetic)
    found = product.timed.answer
    parities = tuple(
        hold(path, against, answer, found, originals, task, precisions) for against, answer in answers.items()
    )
    count = len(found["mosaics"]) * task.factor**2 if path == "compose" else len(images)
    return Contest(path, count, measured, parities, timed.get(LIMIT))


def _measured(
    opener: Opener,
    path: PathName,
    way: Way,
    timed: Timed[Answer],
    images: Sequence[SourceImage],
    watch: Watch,
) -> Measured:
    """What is to be said of an open way that has run; its stages are timed now."""
    encodings = way.text_encodings  # before the stages encode once more
    watch(f"{path}: the stages of {way.column}", False)
    opened = way.stages(images)
    with no_collection():
        stages = tuple(time_stage(stage) for stage in opened)
    return Measured(
        way.arithmetic,
        way.load_seconds,
        encodings,
        opener.batch(path, way.column),
        timed,
        stages,
        opener.networks(path, way),
    )


def answer_digest(answer: Answer) -> str:
    """A hash of all arrays of an answer, with their names."""
    digest = hashlib.sha256()
    for name in sorted(answer):
        digest.update(f"{name} {answer[name].dtype} {answer[name].shape}".encode())
        digest.update(answer[name].tobytes())
    return digest.hexdigest()
