"""Run the stages of a pipeline at the same time, with bounded memory, and OpenCV within them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import cv2

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int, *, chunk: int = 1
) -> Iterator[R]:
    """Apply `function` in `executor`, and yield the results in the order of the items.

    At most `ahead` items are taken, being worked on or done but not yet yielded, so chained stages overlap
    and memory does not grow with the number of items. An exception of `function` is raised at its item's
    place; then, and when the caller stops early, work that has not begun is cancelled.

    Args:
        executor: runs the function.
        function: safe to call from several threads.
        items: taken lazily, in the caller's thread.
        ahead: bound on the items under way; at least 1.
        chunk: items that one call in `executor` works on, where handing each over would take longer than
            its work. An exception then comes before the results of its chunk.
    """
    if chunk > 1:
        chunks = batched(items, chunk)
        for results in ordered_map(executor, partial(_map, function), chunks, max(1, ahead // chunk)):
            yield from results
        return
    source = iter(items)
    pending: deque[Future[R]] = deque()
    try:
        while True:
            pending.extend(executor.submit(function, item) for item in islice(source, ahead - len(pending)))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _map(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` consecutive items; the last one may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


class _Held:
    """A number of the whole process that has one value while any thread is within a block."""

    def __init__(self, read: Callable[[], int], write: Callable[[int], object], value: int) -> None:
        self._read, self._write, self._value = read, write, value
        self._lock = threading.Lock()
        self._blocks = 0
        self._before = value

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if self._blocks == 0:
                self._before = self._read()
                self._write(self._value)
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if self._blocks == 0:
                    self._write(self._before)


_logging: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 5, and before
_threads = _Held(cv2.getNumThreads, cv2.setNumThreads, 1)
_log_level = _Held(_logging.getLogLevel, _logging.setLogLevel, 0)


def single_threaded_opencv() -> AbstractContextManager[None]:
    """Have OpenCV use one thread a call within a block: there, pools of our own are the parallelism.

    Blocks may lie within each other and in several threads; after the last, its number is what it was.
    """
    return _threads.held()


def silent_opencv() -> AbstractContextManager[None]:
    """Keep OpenCV from printing within a block, as `single_threaded_opencv` does for its threads."""
    return _log_level.held()


class MemoryBudget:
    """Lets threads take bytes of a sum, and has them wait while others hold too many.

    Whoever asks for more than all gets it as soon as nobody else holds any, so nobody waits for ever. A
    thread must not ask again while it holds some.

    Args:
        total: the sum in bytes.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Hold so many bytes within a block."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + amount <= self._total)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()


# What images take while they are decoded: a quarter of the memory.
DECODING = MemoryBudget(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
