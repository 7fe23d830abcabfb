"""Measure implementations along a path: time them in turns, and stage by stage, and compare their answers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from fgdd_bench.harness.implementation import (
    Answer,
    Implementation,
    Name,
    PathName,
    ReferenceName,
    StageName,
)
from fgdd_bench.harness.opening import ImplementationOpener
from fgdd_bench.harness.parity import FP32, ComparisonResult, compare
from fgdd_bench.harness.timing import StageTimes, Timed, interleave, no_collection, time_stage
from fgdd_bench.machine.ceilings import opencv_decoding, precisions_of
from fgdd_bench.machine.operations import Network
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.parallel import single_threaded_opencv

LIMIT = "limit"  # the name under which a path's limit takes its turns

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """One implementation of a path.

    Attributes:
        arithmetic, load_seconds, text_encodings: see `Implementation`; encodings are of all runs together.
        batch: images that it puts into one inference; None where nothing is batched.
        timed: the whole runs.
        stages: each alone.
        networks: that it runs, by the stage that runs each.
    """

    arithmetic: str
    load_seconds: float
    text_encodings: int | None
    batch: int | None
    timed: Timed[Answer]
    stages: tuple[StageTimes, ...]
    networks: Mapping[StageName, Network]


@dataclass(frozen=True)
class PathMeasurement:
    """What was measured of a path.

    Attributes:
        path: which.
        images: how many images a run covers; where mosaics are composed, how many tiles.
        implementations: each, by whose it is.
        comparisons: how our answers compare with those of the others.
        limit: OpenCV's decoding alone of the same files, in turns with the implementations; None where more
            than decoding is to be done.
    """

    path: PathName
    images: int
    implementations: Mapping[Name, Measured]
    comparisons: tuple[ComparisonResult, ...]
    limit: Timed[Answer] | None

    @property
    def failures(self) -> tuple[str, ...]:
        """What of our answers is not accepted, in words."""
        return tuple(failure for comparison in self.comparisons for failure in comparison.failures)


def measure_path(
    path: PathName,
    opener: ImplementationOpener,
    references: Sequence[ReferenceName],
    *,
    repeats: int,
    compared: bool = True,
    advance: Callable[[], None] = lambda: None,
) -> PathMeasurement:
    """Measure ours and some references along a path, in so many turns.

    Args:
        path: which.
        opener: opens the implementations, and knows the images and what is asked of them.
        references: with which ours is compared.
        repeats: turns.
        compared: whether our answers are compared with those of fp32, as with the references'.
        advance: called after each run that counts.

    Raises:
        FgddError: an implementation cannot be opened or run.
    """
    task, originals = opener.task, opener.originals
    images = [original.image for original in originals]
    with ExitStack() as stack:
        stack.enter_context(single_threaded_opencv())  # as in a pipeline
        answers: dict[str, Answer] = {}
        if compared:
            _log.info("%s: the answers of fp32", path)
            with opener.open_fp32(path) as reference:
                answers[FP32] = reference.run(images)
        opened: dict[Name, Implementation] = {}
        names: tuple[Name, ...] = ("ours", *references)
        for name in names:
            _log.info("%s: opening %s", path, name)
            opened[name] = stack.enter_context(opener.open(path, name))
        runs: dict[str, Callable[[], Answer]] = {
            name: partial(one.run, images) for name, one in opened.items()
        }
        if path == "decode":
            runs[LIMIT] = opencv_decoding([image.path for image in images], task.threads)
        timed = interleave(runs, repeats, digest=answer_digest, advance=advance)
        measured = {name: _measured(opener, path, one, timed[name], images) for name, one in opened.items()}
    found, precisions = timed["ours"].answer, precisions_of(measured["ours"].arithmetic)
    answers |= {reference: timed[reference].answer for reference in references}
    comparisons = tuple(
        compare(path, against, answer, found, originals, task, precisions)
        for against, answer in answers.items()
    )
    count = len(found["mosaics"]) * task.factor**2 if path == "compose" else len(images)
    return PathMeasurement(path, count, measured, comparisons, timed.get(LIMIT))


def _measured(
    opener: ImplementationOpener,
    path: PathName,
    one: Implementation,
    timed: Timed[Answer],
    images: Sequence[SourceImage],
) -> Measured:
    """Return what is to be said of an implementation that has run; its stages are timed now."""
    encodings = one.text_encodings  # before the stages encode once more
    _log.info("%s: the stages of %s", path, one.name)
    opened = one.stages(images)
    with no_collection():
        stages = tuple(time_stage(stage) for stage in opened)
    batch, networks = opener.batch(path, one.name), opener.networks(path, one)
    return Measured(one.arithmetic, one.load_seconds, encodings, batch, timed, stages, networks)


def answer_digest(answer: Answer) -> str:
    """Return a hash of all arrays of an answer, with their names."""
    digest = hashlib.sha256()
    for name in sorted(answer):
        digest.update(f"{name} {answer[name].dtype} {answer[name].shape}".encode())
        digest.update(answer[name].tobytes())
    return digest.hexdigest()
