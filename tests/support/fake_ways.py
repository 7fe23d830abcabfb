"""Ways whose answers and times are known, and an opener of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fgdd_bench.harness.bench import Network, Watch
from fgdd_bench.harness.originals import Original
from fgdd_bench.harness.ways import Answer, Column, PathName, Stage, StageName, Task, Way
from fgdd_bench.machine.operations import Work
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.measurement.store_format import KnownFile

TASK = Task(crops=3, threads=2, factor=2)
CLASSES = ("hat", "shirt")


def originals(count: int = 16, root: Path = Path("data")) -> list[Original]:
    """Images of two classes, in turn."""
    found = []
    for index in range(count):
        name = CLASSES[index % 2]
        image = SourceImage(f"{name}/{index}.jpg", name, root)
        found.append(Original(image, KnownFile(f"{index:064x}", 100 + index, 120)))
    return found


def answer(path: PathName, count: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """What a path answers; the same for the same seed."""
    rng = np.random.default_rng(seed)
    arrays = {
        "tiles": rng.integers(0, 256, (count, 1 + TASK.crops, 8, 8, 3), dtype=np.uint8),
        "mosaics": rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8),
        "occupancy": rng.uniform(0.1, 0.9, count).astype(np.float32),
        "masks": rng.integers(0, 256, (count, 6, 8), dtype=np.uint8),
        "losses": rng.uniform(0, 4, (count, 1 + TASK.crops)).astype(np.float32),
    }
    names: Mapping[PathName, Sequence[str]] = {
        "decode": ("tiles",),
        "foreground": ("occupancy", "masks"),
        "teacher": ("losses",),
        "compose": ("mosaics",),
        "all": ("occupancy", "losses", "mosaics"),
    }
    return {name: arrays[name] for name in names[path]}


class FakeWay(Way):
    """Sleeps, and gives the answer that it was made with."""

    def __init__(
        self, column: Column, given: Answer, seconds: float = 0.0, arithmetic: str = "fake, fp32"
    ) -> None:
        self.column = column
        self.arithmetic = arithmetic
        self.load_seconds = 0.25
        self.given = given
        self.seconds = seconds
        self.runs = 0
        self.closed = False

    def run(self, images: Sequence[SourceImage]) -> Answer:
        self.runs += 1
        time.sleep(self.seconds)
        return self.given

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        names: tuple[StageName, ...] = ("decode", "teacher", "write")
        shares = (0.2, 0.7, 0.1)
        return [
            Stage(
                name, lambda _, share=share: time.sleep(share * self.seconds / len(images)), len(images), 1, 1
            )  # type: ignore[misc]
            for name, share in zip(names, shares, strict=True)
        ]

    def close(self) -> None:
        self.closed = True


class FakeOpener:
    """Opens fakes that all answer alike, but for those that are told otherwise.

    Args:
        seconds: how long a run of each takes.
        answers: other answers, by column; `fp32` is that of the product's own reference.
        arithmetic: the product's.
    """

    def __init__(
        self,
        seconds: Mapping[str, float],
        answers: Mapping[str, Answer] | None = None,
        arithmetic: str = "fake, bf16",
    ) -> None:
        self.seconds = seconds
        self.answers = answers or {}
        self.arithmetic = arithmetic
        self.opened: list[FakeWay] = []

    def open(self, path: PathName, column: Column, tell: Callable[[str], None] = lambda _: None) -> Way:
        arithmetic = self.arithmetic if column == "product" else "fake, fp32"
        return self._open(column, column, path, arithmetic)

    def open_fp32(self, path: PathName) -> Way:
        return self._open("fp32", "product", path, "fake, fp32")

    def _open(self, name: str, column: Column, path: PathName, arithmetic: str) -> Way:
        given = self.answers.get(name, answer(path))
        way = FakeWay(column, given, self.seconds.get(name, 0), arithmetic)
        self.opened.append(way)
        return way

    def batch(self, path: PathName, column: Column) -> int | None:
        return 1 if column == "published" else 4

    def networks(self, path: PathName, way: Way) -> Mapping[StageName, Network]:
        return {"teacher": Network("a teacher", Work(1_000_000, 1000, 100, 0), 1 + TASK.crops)}


def silent(line: str, counts: bool) -> None:
    """A watch that says nothing."""


SILENT: Watch = silent
