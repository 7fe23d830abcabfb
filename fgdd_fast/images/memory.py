"""The memory that images take while they are decoded, shared by all threads of the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 4  # a quarter of the machine's memory


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


DECODING = MemoryBudget(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE)
