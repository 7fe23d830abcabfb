"""Run the stages of a pipeline at the same time, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import cv2

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
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
    """
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


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` consecutive items; the last one may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own within the block: the pools are the parallelism."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
