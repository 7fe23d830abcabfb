"""A stream that is being distilled: its frames are measured, kept, and written at every checkpoint."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fgdd_engines.progress import Progress
from fgdd_fast.errors import DataError, FgddError
from fgdd_fast.images.near_duplicates import nearest_kept
from fgdd_fast.output.folder import MANIFEST
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.parallel import ordered_map, single_threaded_opencv
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.streaming.budgets import Budgets
from fgdd_fast.streaming.candidates import Candidates
from fgdd_fast.streaming.checkpoint import COUNTS, SKIPPED, Written, decide, write_checkpoint
from fgdd_fast.streaming.labels import LabelOf
from fgdd_fast.streaming.measuring import UNSURE, Copied, FrameMeasurer, Left, Outcome, Read, grouped
from fgdd_fast.streaming.sources import Frame, Source

_log = logging.getLogger(__name__)

RESERVOIR = 1000  # images in the sample of a class
RECENT = 256  # frames whose perceptual hashes are remembered
REPEATED = "nearly the same as a frame shortly before"
_LISTED = 100  # frames left out that the manifest lists
_POSITION, _HASHES, _UNWRITTEN = "positions", "hashes", "unwritten"


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a stream is read, and what it may take.

    Attributes:
        once: whether a folder ends with the last file that it has; otherwise it is looked at for ever.
        labels: what tells the class of an image: `folder`, `name:REGEX`, a CSV file of names and classes, or
            `teacher`. By default `teacher` for a video, a camera and standard input, and otherwise `folder`.
        confident: the probability in [0, 1] that the teacher gives a class that it tells, at least.
        every: of so many frames of a video, a camera or standard input one is taken.
        reservoir: images of a class, at least 1, by which its threshold is set. As long as a class has no
            more, its tiles are those that all of them together give.
        checkpoint: seconds after which OUT is written anew.
        memory: MiB that the process may hold; frames that would take more are dropped. None for any number.
        disk: MiB that `OUT.candidates` may take; the least promising candidates are dropped. None for any.
        fps: frames a second; a camera's others are dropped, other sources wait. None for any number.
        power: watts that the machine may take, on average over some seconds; while it takes more, a camera's
            frames are dropped, and other sources wait. None for any number.
        patience: seconds after which a camera that gives nothing is opened anew.
    """

    once: bool = False
    labels: str | None = None
    confident: float = 0.9
    every: int = 1
    reservoir: int = RESERVOIR
    checkpoint: float = 60.0
    memory: int | None = None
    disk: int | None = None
    fps: float | None = None
    power: float | None = None
    patience: float = 10.0


@dataclass(frozen=True)
class Streamed:
    """What became of a stream, earlier runs that this one went on with included.

    Attributes:
        written: what is in OUT.
        counts: frames by what became of them: `frames` that came, `measured`, `copies` of the same bytes,
            `dropped` by budgets or because nobody took them in time, and the reasons of those left out.
    """

    written: Written
    counts: dict[str, int]


class Run:
    """Distils a stream.

    Args:
        pipeline: its models.
        settings: how tiles are chosen.
        reading: how it is read, and what it may take.
        candidates: keep what may give a tile.
        budgets: let frames through.
        out: the folder that is written.
        source: gives its frames.
        label_of: tells their classes; None where the teacher does.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: MosaicSettings,
        reading: StreamOptions,
        candidates: Candidates,
        budgets: Budgets,
        out: Path,
        *,
        source: Source,
        label_of: LabelOf | None,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._source = source
        self._candidates = candidates
        self._out = out
        self._checkpoint = reading.checkpoint
        self._budgets = budgets
        self._measurer = FrameMeasurer(
            pipeline, settings, label_of=label_of, confident=reading.confident, is_small=candidates.is_small
        )
        self._counts = Counter[str](candidates.fact(COUNTS) or {})
        self._skipped: list[list[str]] = candidates.fact(SKIPPED) or []
        self._positions: dict[str, int] = candidates.fact(_POSITION) or {}
        self._hashes = deque[int](candidates.fact(_HASHES) or (), maxlen=RECENT)  # of frames that are done
        self._recent = deque(self._hashes, maxlen=RECENT)  # and of those under way
        self._before = self._counts.copy()
        self._begun = self._saved = time.monotonic()
        self._between_frames = True
        self._changed = bool(candidates.fact(_UNWRITTEN)) or not (out / MANIFEST).exists()
        self._failure: FgddError | None = None  # of the source

    def run(self, progress: Progress) -> Streamed:
        """Take frames to their end; whatever ends it, what came before is kept and written."""
        threads, streams = self._pipeline.runtime.threads, self._pipeline.teacher.streams
        ahead, group = 2 * threads + self._measurer.group, self._measurer.group
        try:
            with (
                progress.task("Streaming") as task,
                single_threaded_opencv(),
                ThreadPoolExecutor(threads, "read") as readers,
                ThreadPoolExecutor(streams, "infer") as runners,
            ):
                read = self._fresh(ordered_map(readers, self._read, self._admitted(), ahead))
                measured = ordered_map(runners, self._measurer.measure, grouped(read, group), streams + 1)
                for outcomes in measured:
                    for outcome in outcomes:
                        self._between_frames = False
                        self._take(outcome)
                        self._between_frames = True
                        task.advance()
                    if time.monotonic() - self._saved > self._checkpoint:
                        self._save(final=False)
        except BaseException:
            if self._between_frames:  # else what was half taken is undone
                with suppress(FgddError):
                    self._save(final=False)
            raise
        written = self._save(final=self._failure is None)
        if self._failure is not None:
            raise self._failure
        assert written is not None
        return Streamed(written, dict(self._counts))

    def _admitted(self) -> Iterator[Frame | None]:
        """The frames that are taken; where the source fails, those before are worked on to their end."""
        try:
            position = self._positions.get(self._source.key, 0)
            for frame in self._source.frames(self._candidates.is_done, position):
                if frame is None or self._budgets.admit(frame):
                    yield frame
        except FgddError as error:
            self._failure = error

    def _read(self, frame: Frame | None) -> Read | Left | None:
        return None if frame is None else self._measurer.read(frame)

    def _fresh(self, items: Iterable[Read | Left | None]) -> Iterator[Read | Left | Copied | None]:
        """Take those out that need no model: copies, and what is nearly the same as shortly before."""
        near = self._settings.selection.near_duplicates
        for item in items:
            if not isinstance(item, Read):
                yield item
            elif item.class_name and self._candidates.knows(item.class_name, item.sha256):
                yield Copied(item.frame, item.class_name, item.sha256)
            elif near is None or item.perceptual_hash is None:
                yield item
            elif nearest_kept([*self._recent, item.perceptual_hash], near)[-1] is not None:
                yield Left(item.frame, REPEATED)
            else:
                self._recent.append(item.perceptual_hash)
                yield item

    def _take(self, outcome: Outcome) -> None:
        """Keep what became of a frame."""
        frame = outcome.frame
        self._counts["frames"] += 1
        if isinstance(outcome, Left):
            self._counts[outcome.reason] += 1
            if outcome.reason not in (REPEATED, UNSURE) and len(self._skipped) < _LISTED:
                self._skipped.append([frame.name, outcome.reason])
        elif isinstance(outcome, Copied):
            self._counts["copies"] += 1
            self._candidates.add_copy(outcome.class_name, outcome.sha256, frame.name)
        else:
            self._counts["measured"] += 1
            self._pipeline.log.measured += 1
            self._changed = self._candidates.add(outcome.record, outcome.tiles) or self._changed
        if not isinstance(outcome, Copied) and outcome.perceptual_hash is not None:
            self._hashes.append(outcome.perceptual_hash)
        if frame.item is not None:
            self._candidates.mark_done(frame.item)
        self._positions[self._source.key] = frame.position

    def _save(self, *, final: bool) -> Written | None:
        """Make candidates last, and write OUT if anything changed and a class has enough images."""
        self._counts["dropped"] = self._before["dropped"] + self._budgets.dropped + self._source.dropped
        facts = {COUNTS: self._counts, SKIPPED: self._skipped, _POSITION: self._positions}
        for name, value in {**facts, _HASHES: [*self._hashes]}.items():
            self._candidates.keep_fact(name, value)
        self._changed |= final and self._counts["frames"] > self._before["frames"]
        self._candidates.keep_fact(_UNWRITTEN, self._changed)
        self._candidates.commit()
        written = None
        with suppress(*(() if final else (DataError,))):
            if self._changed:
                log, threads = self._pipeline.log, self._pipeline.runtime.threads
                written = write_checkpoint(self._candidates, self._out, self._settings, log, threads=threads)
                self._changed = False
                self._candidates.keep_fact(_UNWRITTEN, False)
                self._candidates.commit()
            elif final:
                plan, short = decide(self._candidates, self._settings)
                written = Written(plan, read_manifest(self._out), short)
        self._report(written)
        self._saved = time.monotonic()
        return written

    def _report(self, written: Written | None) -> None:
        """Say how far it is, how it keeps up, and how warm the machine is."""
        rate = (self._counts["frames"] - self._before["frames"]) / (time.monotonic() - self._begun + 1e-9)
        parts = [
            f"{self._counts['frames']} frames, {rate:.3g} a second",
            f"{self._counts['dropped']} dropped, {self._source.waiting} waiting",
            *self._budgets.told,
        ]
        if written is not None:
            short = f", {len(written.short)} more lack images" if written.short else ""
            parts.append(f"OUT has {len(written.manifest.classes)} classes{short}")
        _log.info("Checkpoint: %s", "; ".join(parts))
