"""Functions called by the workers of a cluster, whatever becomes of the workers."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from fgdd_fast.errors import EngineError, FgddError, SettingsError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # calls of one function that wait at a worker or run there, so that it need not wait for the next
MOST_DEATHS = 10  # of workers at one call
PATIENCE = 300.0  # seconds to wait for a worker when there is none
_LOOK = 5.0  # seconds until it is looked again whether there is one

_log = logging.getLogger(__name__)


class _Call(NamedTuple):
    item: Any
    deaths: int = 0
    wakes: int = 0  # of the worker until it was sent the call


class Cluster:
    """Has the workers of a Ray cluster call functions; use it from one thread.

    Workers are processes, on one machine or on several. Where one dies, Ray makes it anew, there or
    elsewhere, and meanwhile the others do what it was at.

    Args:
        ray: the module, connected.
        workers: actors of the class `Worker`, which need not be there yet.
        threads: that each of them has.

    Attributes:
        threads: see above.
    """

    def __init__(self, ray: Any, workers: Sequence[Any], threads: int) -> None:
        self.threads = threads
        self._ray = ray
        self._workers = workers
        self._ready: set[int] = set()
        self._waking = {worker.ready.remote(): place for place, worker in enumerate(workers)}
        self._wakes = [0] * len(workers)
        self._sent: dict[Callable[[Any], Any], list[Any]] = {}
        self._seen = time.monotonic()
        self._reason = ""

    def map(self, function: Callable[[T], R], items: Iterable[T], name: Callable[[T], str]) -> Iterator[R]:
        """Call a function with each item, and yield what it returns, in the order in which that is there.

        Args:
            function: sent to each worker once, pickled; called there from several threads.
            items: taken lazily, as workers become free.
            name: says in an error what an item is.

        Raises:
            FgddError: the function raised it.
            SettingsError: the function cannot be pickled.
            EngineError: there are no workers, or one after another died at an item.
        """
        sent = self._send(function)
        source, failed = iter(items), deque[_Call]()
        running: dict[Any, tuple[int, _Call]] = {}
        more = True
        while True:
            while (place := self._free(running)) is not None and (failed or more):
                call = failed.popleft() if failed else next((_Call(item) for item in source), None)
                if call is None:
                    more = False
                    break
                call = call._replace(wakes=self._wakes[place])
                running[self._workers[place].call.remote(sent, call.item)] = place, call
            if not (running or failed or more):
                return
            for reference in self._wait(running):
                place, call = running.pop(reference)
                try:
                    result = self._get(reference)
                except self._ray.exceptions.RayError as error:  # the worker, its machine, or what it answered
                    failed.append(self._died(place, call, error, name))
                else:
                    yield result

    def _send(self, function: Callable[[Any], Any]) -> list[Any]:
        """A reference to a function, in a list: such a one each worker fetches itself, once."""
        if function not in self._sent:
            try:
                pickled = self._ray.cloudpickle.dumps(function)
            except Exception as error:  # whatever the parts of a plug-in's model raise
                raise SettingsError(
                    f"A model cannot be sent to other processes: {error}", "Leave --executor out."
                ) from error
            self._sent[function] = [self._ray.put(pickled)]
        return self._sent[function]

    def _free(self, running: dict[Any, tuple[int, _Call]]) -> int | None:
        """The worker that has least to do, if one can take another call."""
        load = Counter(place for place, _ in running.values())
        place = min(self._ready, key=lambda each: (load[each], each), default=None)
        return None if place is None or load[place] >= AHEAD else place

    def _wait(self, running: dict[Any, Any]) -> list[Any]:
        """Wait until something happens, and return which calls have ended."""
        if self._ready or running:
            self._seen = time.monotonic()
        elif not self._waking or time.monotonic() > self._seen + PATIENCE:
            raise EngineError(
                f"The cluster has no worker that is running{self._reason}",
                "What was done is kept. See 'ray status' for what the cluster has, then run the same again.",
            )
        done, _ = self._ray.wait([*self._waking, *running], num_returns=1, timeout=_LOOK)
        for reference in done:
            if reference in self._waking:
                self._wake(reference)
        return [reference for reference in done if reference in running]

    def _wake(self, reference: Any) -> None:
        """Take note that a worker is there, or ask again."""
        place = self._waking.pop(reference)
        try:
            self._get(reference)
            self._ready.add(place)
            self._wakes[place] += 1
        except self._ray.exceptions.ActorUnavailableError:  # it is being made anew
            time.sleep(0.1)
            self._waking[self._workers[place].ready.remote()] = place
        except self._ray.exceptions.RayError as error:  # it never will be there
            self._reason = f": {_first_line(error)}"
            _log.warning("A worker cannot be had%s", self._reason)

    def _died(self, place: int, call: _Call, error: Exception, name: Callable[[Any], str]) -> _Call:
        """Have a worker made anew, and return its call for another one."""
        if call.deaths + 1 >= MOST_DEATHS:
            raise EngineError(
                f"{MOST_DEATHS} workers died, one after another, at {name(call.item)}: {_first_line(error)}",
                "If memory is short, take fewer --threads or a smaller --batch; what was done is kept.",
            ) from error
        if place in self._ready and call.wakes == self._wakes[place]:  # else it is known already
            self._ready.remove(place)
            self._waking[self._workers[place].ready.remote()] = place
            _log.warning("A worker died; what it was at is done by another")
            _log.debug("%s", error)
        return _Call(call.item, call.deaths + 1)

    def _get(self, reference: Any) -> Any:
        """What a call returned; what it raised is raised as it was."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from (None if isinstance(error.cause, FgddError) else error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
