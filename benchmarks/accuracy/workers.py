"""Processes that train the students of a set each, one set at a time and with one thread."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import cv2

from benchmarks.accuracy.results import Line
from benchmarks.accuracy.training import TrainingSettings, Work, open_label_teacher, train
from fgdd_bench.machine.processes import worker_context
from fgdd_fast.errors import EngineError
from fgdd_fast.models.network import Teacher
from fgdd_fast.students.inputs.labelled_images import LabelledImages


@dataclass
class _Worker:
    """What a process keeps between sets."""

    settings: TrainingSettings
    validation: LabelledImages
    teacher: Teacher

    def train(self, work: Work) -> list[Line]:
        return train(work, self.settings, self.validation, self.teacher)


_worker: _Worker | None = None


def train_all(
    works: Sequence[Work], settings: TrainingSettings, validation: LabelledImages, workers: int
) -> Iterator[tuple[Work, list[Line]]]:
    """Train the students of many sets, and yield each set's as soon as they are done.

    Args:
        works: the sets, begun in this order.
        settings: how students are trained.
        validation: judges them.
        workers: processes; with 1 this one does it all.

    Raises:
        FgddError: an image or a network failed, or a process ended.
    """
    if workers == 1:
        _begin(settings, validation)
        yield from ((work, _train(work)) for work in works)
        return
    executor = ProcessPoolExecutor(workers, worker_context(), _begin, (settings, validation))
    try:
        futures = {executor.submit(_train, work): work for work in works}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise EngineError(
            "A process that trains students ended", "Run again: it goes on from there."
        ) from error
    finally:
        for process in multiprocessing.active_children():
            process.terminate()  # nothing that it has in hand is wanted any more
        executor.shutdown(cancel_futures=True)


def _begin(settings: TrainingSettings, validation: LabelledImages) -> None:
    """Get a process ready."""
    global _worker  # noqa: PLW0603 - a process of the pool has no other place for what it keeps
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    cv2.setNumThreads(1)
    _worker = _Worker(settings, validation, open_label_teacher(settings))


def _end_with(parent: BaseProcess) -> None:
    """End this process when its parent does, however that comes about."""
    parent.join()
    os._exit(1)


def _train(work: Work) -> list[Line]:
    assert _worker is not None
    return _worker.train(work)
