"""What measuring would take: what a store lacks, and how long a sample takes, of which nothing is kept."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import StoreError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.measurement.measurer import Measured
from fgdd_fast.measurement.store import FILE_NAME, Store
from fgdd_fast.measurement.store_format import Measurement
from fgdd_fast.measurement.store_tables import VERSION

SAMPLE_SECONDS = 5.0  # about so long the timed images of a sample take
_WARM_UP, _MOST = 2, 64  # images


class Measures(Protocol):
    """Measures images, as `fgdd_fast.measurement.measurer.Measurer` does."""

    def measure(self, images: Sequence[SourceImage], *, progress: Progress = SILENT) -> Measured:
        """Measure what is missing of the images."""


@dataclass(frozen=True)
class Forecast:
    """What measuring would take.

    Attributes:
        images: those of the pool.
        missing: those of which something has to be measured.
        sample: images whose measuring was timed.
        seconds_each: that measuring an image takes; 0 where nothing was timed.
        bytes_each: by which the store grows for an image.
    """

    images: int
    missing: int
    sample: int = 0
    seconds_each: float = 0.0
    bytes_each: float = 0.0

    @property
    def seconds(self) -> float:
        """How long all of it should take."""
        return self.missing * self.seconds_each

    @property
    def store_bytes(self) -> int:
        """By how much the store grows."""
        return round(self.missing * self.bytes_each)


class StoreView(Store):
    """A store that is looked at and stays as it is; where there is none, an empty one in memory.

    Args:
        folder: holds the SQLite file; None for an empty store in memory.

    Raises:
        StoreError: it cannot be read, or is of another format.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = (folder or Path()) / FILE_NAME
        self._unknown: dict[str, int] = {}
        self._in_memory = folder is None or not self._path.is_file()
        with self._explained():
            if self._in_memory:
                self._database = sqlite3.connect(":memory:", isolation_level=None)
                self._database.execute("PRAGMA page_size = 1024")  # a few images fill some
                self._prepare()
                return
            # Where nobody else has it open, not even SQLite's own files are made beside it.
            alone = "" if self._path.with_name(f"{FILE_NAME}-wal").exists() else "&immutable=1"
            address = f"{self._path.resolve().as_uri()}?mode=ro{alone}"
            self._database = sqlite3.connect(address, uri=True, isolation_level=None)
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            self.close()
            raise StoreError(
                f"The store {self._path} has format {version}, and only format {VERSION} is read as it is",
                "Measure with it once, which brings it up to date; or name another folder with --store.",
            )

    def add(self, measurements: Iterable[Measurement]) -> None:
        """Keep measurements in memory: see `Store.add`; of a file nothing is changed."""
        if self._in_memory:
            super().add(measurements)

    def fingerprints(self, texts: Sequence[str]) -> list[int]:
        """Return the number of each text: see `Store.fingerprints`; one of its own for a new text."""
        known = self._numbers(texts)
        return [known.get(text) or self._unknown.setdefault(text, -1 - len(self._unknown)) for text in texts]

    @property
    def bytes(self) -> int:
        """How large the file is."""
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        return int(self._database.execute(query).fetchone()[0])


def forecast(
    pool: int,
    missing: Sequence[SourceImage],
    measurer: Measures,
    store: StoreView,
    *,
    batch: int,
    progress: Progress,
) -> Forecast:
    """Time the measuring of a few images, from all over those that are missing.

    Args:
        pool: images in all.
        missing: those of which something has to be measured.
        measurer: measures them into `store`.
        store: in memory.
        batch: images an inference, of which a sample has some.
        progress: told how far it is.
    """
    step = max(1, len(missing) // (_MOST + _WARM_UP))
    images = missing[::step]
    first, rest = images[:_WARM_UP], images[_WARM_UP:]
    before, begin = store.bytes, time.perf_counter()
    measurer.measure(first, progress=progress)
    seconds = time.perf_counter() - begin
    if rest:
        wanted = SAMPLE_SECONDS / max(seconds / len(first), 1e-3)
        rest = rest[: max(round(min(wanted, _MOST)), 2 * batch)]
        begin = time.perf_counter()
        measurer.measure(rest, progress=progress)
        seconds = time.perf_counter() - begin
    timed = len(rest or first)
    grown = store.bytes - before
    each = (seconds / timed, grown / len([*first, *rest])) if timed else (0.0, 0.0)
    return Forecast(pool, len(missing), timed, *each)
