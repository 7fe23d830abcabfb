"""Processes that train the students of a set each, one set at a time and with one thread."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing

import cv2

from benchmarks.accuracy.results import Line
from benchmarks.accuracy.training import TrainingGrid, Work, open_label_teacher, train
from fgdd_bench.machine.processes import worker_context
from fgdd_fast.errors import EngineError
from fgdd_fast.models.network import Teacher
from fgdd_fast.students.inputs.labelled_images import LabelledImages

_worker: tuple[TrainingGrid, LabelledImages, Teacher]  # what a process of the pool keeps between sets


def train_all(
    works: Sequence[Work], grid: TrainingGrid, validation: LabelledImages, workers: int
) -> Iterator[tuple[Work, list[Line]]]:
    """Train the students of many sets, and yield each set's as soon as they are done.

    Args:
        works: the sets, begun in this order.
        grid: how students are trained.
        validation: judges them.
        workers: processes; with 1 this one does it all.

    Raises:
        FgddError: an image or a network failed, or a process ended.
    """
    if workers == 1:
        with closing(open_label_teacher(grid)) as teacher:
            yield from ((work, train(work, grid, validation, teacher)) for work in works)
        return
    executor = ProcessPoolExecutor(workers, worker_context(), _begin, (grid, validation))
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


def _begin(grid: TrainingGrid, validation: LabelledImages) -> None:
    """Get a process ready; it ends when its parent does, however that comes about."""
    global _worker  # noqa: PLW0603 - a process of the pool has no other place for what it keeps
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    _worker = grid, validation, open_label_teacher(grid)


def _train(work: Work) -> list[Line]:
    return train(work, *_worker)
