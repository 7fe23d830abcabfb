"""A stand-in for Ray whose workers die as a test says; this process does their work, when it is asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__("a traceback")
        self.cause = cause


class ActorUnavailableError(RayError):
    pass


class FakeRay:
    """What `fgdd_fast.cluster.cluster` uses of Ray.

    Args:
        dies: told of a worker's place and of an item; whether the worker dies of it.
        returns: whether a dead worker is made anew; else it stays away.
    """

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, ActorUnavailableError=ActorUnavailableError
    )
    cloudpickle = SimpleNamespace(dumps=lambda _: b"")

    def __init__(self, dies: Callable[[int, Any], bool] = lambda *_: False, *, returns: bool = True) -> None:
        self.dies = dies
        self.returns = returns
        self.functions: list[Any] = []

    def put(self, pickled: bytes) -> int:
        return 0

    def wait(
        self, references: Sequence[Reference], num_returns: int, timeout: float
    ) -> tuple[list[Reference], None]:
        return [each for each in references if each.can_end()][:num_returns], None

    def get(self, reference: Reference) -> Any:
        return reference.outcome()


class Reference:
    def __init__(self, can_end: Callable[[], bool], outcome: Callable[[], Any]) -> None:
        self.can_end = can_end
        self.outcome = outcome


class FakeWorker:
    """An actor: `ready` and `call` return references."""

    def __init__(self, ray: FakeRay, place: int, function: Callable[[Any], Any]) -> None:
        self.alive = True
        self.calls = 0
        self.ready = SimpleNamespace(remote=lambda: Reference(lambda: self.alive or ray.returns, self._wake))
        self.call = SimpleNamespace(remote=lambda _, item: Reference(lambda: True, lambda: self._call(item)))
        self._ray, self._place, self._function = ray, place, function

    def _wake(self) -> None:
        if not self.alive:
            self.alive = True
            raise ActorUnavailableError("it is restarting")

    def _call(self, item: Any) -> Any:
        self.calls += 1
        if not self.alive or self._ray.dies(self._place, item):
            self.alive = False
            raise ActorUnavailableError("it died")
        try:
            return self._function(item)
        except Exception as error:
            raise RayTaskError(pickle.loads(pickle.dumps(error))) from None
