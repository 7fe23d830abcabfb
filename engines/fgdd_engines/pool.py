"""A pool of things of which a call needs one to itself."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from fgdd_engines.errors import EngineError

Member = TypeVar("Member")


class Pool(Generic[Member]):
    """Lends each member to one thread at a time; the member last given back goes out first."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._idle: queue.LifoQueue[Member | None] = queue.LifoQueue()
        for member in members:
            self._idle.put(member)
        self._size = self._idle.qsize()
        self._closing = threading.Lock()
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[Member]:
        """Lend a member, waiting until one is idle; EngineError where the pool is closed meanwhile."""
        member = self._idle.get()
        if self._closed or member is None:
            self._idle.put(member)
            raise EngineError("The engine is closed")
        try:
            yield member
        finally:
            self._idle.put(member)

    def close(self) -> None:
        """Wait for the members that are lent out, and let go of all of them."""
        with self._closing:
            if not self._closed:
                for _ in range(self._size):
                    self._idle.get()
                self._closed = True
                self._idle.put(None)  # each call that still waits, or comes later, finds it and puts it back
