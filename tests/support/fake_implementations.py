"""Implementations whose answers and times are known, and an opener of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fgdd_bench.harness.implementation import Answer, Implementation, Name, PathName, Stage, StageName
from fgdd_bench.harness.subject import Original, Task
from fgdd_bench.machine.operations import Network, Work
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
        "kept": np.ones((count, TASK.crops), np.float32),
    }
    names: Mapping[PathName, Sequence[str]] = {
        "decode": ("tiles",),
        "foreground": ("occupancy", "masks"),
        "teacher": ("losses",),
        "compose": ("mosaics",),
        "all": ("occupancy", "losses", "mosaics", "kept"),
    }
    return {name: arrays[name] for name in names[path]}


class Fake(Implementation):
    """Sleeps, and gives the answer that it was made with."""

    def __init__(
        self, name: Name, given: Answer, seconds: float = 0.0, arithmetic: str = "fake, fp32"
    ) -> None:
        super().__init__(name, arithmetic)
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
    """Opens fakes that all answer alike, but for those that are given another answer.

    Args:
        seconds: how long a run of each takes.
        answers: other answers, by name; `fp32` is that of our own reference.
        arithmetic: ours.
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
        self.opened: list[Fake] = []
        self.task, self.originals = TASK, originals()

    def open(self, path: PathName, name: Name) -> Implementation:
        arithmetic = self.arithmetic if name == "ours" else "fake, fp32"
        return self._open(name, name, path, arithmetic)

    def open_fp32(self, path: PathName) -> Implementation:
        return self._open("fp32", "ours", path, "fake, fp32")

    def _open(self, key: str, name: Name, path: PathName, arithmetic: str) -> Implementation:
        given = self.answers.get(key, answer(path))
        self.opened.append(Fake(name, given, self.seconds.get(key, 0), arithmetic))
        return self.opened[-1]

    def batch(self, path: PathName, name: Name) -> int | None:
        return 1 if name == "published" else 4

    def networks(self, path: PathName, opened: Implementation) -> Mapping[StageName, Network]:
        return {"teacher": Network("a teacher", Work(1_000_000, 0), 1 + TASK.crops)}
