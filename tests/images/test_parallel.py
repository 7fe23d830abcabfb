"""Stages overlap, keep their order, and never run far ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import pytest

from fgdd_fast.parallel import ordered_map, silent_opencv, single_threaded_opencv

opencv_logging = getattr(cv2.utils, "logging", cv2)


def test_at_most_ahead_items_are_taken_before_a_result_is_used() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    with ThreadPoolExecutor(2) as executor:
        results = ordered_map(executor, lambda item: item, items(), 7)
        for used, _ in enumerate(results, 1):
            assert taken <= used + 7 - 1


def test_items_are_worked_on_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=10)  # passes only if three calls are in flight together
    with ThreadPoolExecutor(3) as executor:
        assert len(list(ordered_map(executor, lambda _: meeting.wait(), range(3), 3))) == 3


def test_an_error_comes_at_its_place_and_cancels_the_rest() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        if item == 1:
            raise ValueError("one")
        return item

    with ThreadPoolExecutor(1) as executor:
        results = ordered_map(executor, work, range(100), 4)
        assert next(results) == 0
        with pytest.raises(ValueError, match="one"):
            next(results)
    assert len(started) <= 6


@pytest.mark.parametrize("chunk", [2, 3, 7, 50])
def test_chunks_keep_the_order_and_run_no_further_ahead(chunk: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    found = []
    with ThreadPoolExecutor(2) as executor:
        for item in ordered_map(executor, lambda item: item * item, items(), 7, chunk=chunk):
            found.append(item)
            assert taken <= len(found) - 1 + max(7, chunk)
    assert found == [number * number for number in range(40)]


HELD = {
    "threads": (single_threaded_opencv, cv2.getNumThreads, cv2.setNumThreads, 1),
    "log level": (silent_opencv, opencv_logging.getLogLevel, opencv_logging.setLogLevel, 0),
}


@pytest.mark.parametrize("name", HELD)
def test_opencv_is_as_it_was_once_the_last_block_ends(name: str) -> None:
    block, read, write, value = HELD[name]
    inside, outside = threading.Event(), threading.Event()

    def other() -> None:
        with block():
            inside.set()
            outside.wait()

    before = read()
    write(2)
    try:
        with block():
            assert read() == value
            with pytest.raises(ZeroDivisionError), block():
                raise ZeroDivisionError
            assert read() == value
            thread = threading.Thread(target=other)
            thread.start()
            inside.wait()
        assert read() == value  # for the other thread
        outside.set()
        thread.join()
        assert read() == 2
    finally:
        write(before)
