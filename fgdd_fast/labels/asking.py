"""A teacher's answers to pictures of a distilled data set, by this process or by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.cluster.cluster import Cluster
from fgdd_fast.images.resize import Pixels
from fgdd_fast.models.network import Teacher
from fgdd_fast.parallel import batched, ordered_map, single_threaded_opencv

_AT_ONCE = 4  # inferences that a call to a worker is worth


@dataclass(frozen=True, eq=False)
class Asking:
    """Shows pictures to a teacher; can be sent to another process.

    Attributes:
        network: the teacher.
        make: makes pictures of an item, uint8 [any number, side, side, 3]; called in threads.
        columns: of the teacher's logits, those of the classes in their order.
        threads: that make pictures.
    """

    network: Teacher
    make: Callable[[Any], Pixels]
    columns: Sequence[int]
    threads: int

    def rows(self, items: Iterable[Any]) -> Iterator[NDArray[np.float32]]:
        """The logits [classes] of every picture of the items, one after the other."""
        with (
            ThreadPoolExecutor(self.threads, "render") as renderers,
            ThreadPoolExecutor(self.network.streams, "infer") as runners,
        ):
            rendered = ordered_map(renderers, self._prepare, items, 2 * self.threads)
            batches = batched((picture for part in rendered for picture in part), self.network.batch)
            for part in ordered_map(runners, self._infer, batches, 2 * self.network.streams):
                yield from part

    def rows_by(self, cluster: Cluster, items: Iterable[Any], pictures: int) -> Iterator[NDArray[np.float32]]:
        """As `rows`, by the workers of a cluster.

        Args:
            cluster: whose workers are asked.
            items: of the pictures.
            pictures: that an item gives.
        """
        size = max(1, _AT_ONCE * self.network.batch * self.network.streams // pictures)
        done: dict[int, NDArray[np.float32]] = {}
        calls = enumerate(batched(items, size))
        wanted = 0
        for number, rows in cluster.map(
            self._answer, calls, lambda call: f"item {call[0] * size} and those after it"
        ):
            done[number] = rows
            while wanted in done:
                yield from done.pop(wanted)
                wanted += 1

    def _answer(self, call: tuple[int, Sequence[Any]]) -> tuple[int, NDArray[np.float32]]:
        """Answer to some items, whose number is returned; on a worker."""
        with single_threaded_opencv():
            return call[0], np.stack([*self.rows(call[1])])

    def _prepare(self, item: Any) -> list[Pixels]:
        return [self.network.show(picture) for picture in self.make(item)]

    def _infer(self, pictures: list[Pixels]) -> NDArray[np.float32]:
        return self.network.logits(np.stack(pictures))[:, self.columns]
