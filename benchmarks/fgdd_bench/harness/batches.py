"""How many images a reference best puts into one inference: found by a short measurement, free of PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fgdd_bench.harness.ways import Way
from fgdd_fast.errors import EngineError
from fgdd_fast.images.dataset import SourceImage

CANDIDATES = {"cpu": (1, 2, 4), "cuda": (1, 2, 4, 8, 16, 32, 64)}
# Of Grounded SAM 2, an image of which takes seconds on a processor and a gigabyte on a GPU.
GROUNDED_CANDIDATES = {"cpu": (1, 2), "cuda": (1, 2, 4, 8, 16)}
TRIALS = 3  # of each batch; the fastest counts
PATIENCE = 5.0  # seconds; a batch whose trials have taken longer gets no further one
WORSE = 1.1  # times as slow an image as the best before: larger batches are not tried


def fastest_batch(
    open_batch: Callable[[int], Way],
    candidates: Sequence[int],
    images: Sequence[SourceImage],
    tell: Callable[[str], None] = lambda _: None,
) -> int:
    """The batch at which a way is fastest; those that do not fit into memory are left out.

    Args:
        open_batch: opens the way with a number of images in a batch.
        candidates: the numbers, ascending.
        images: what is tried; of a slow way no more than are needed for one whole batch of each number.
        tell: told, in a few words, what is being tried.

    Raises:
        EngineError: not even the first of the candidates fits.
    """
    seconds: dict[int, float] = {}
    fewest = images[: candidates[-1]]
    for batch in candidates:
        tell(f"trying batches of {batch}")
        try:
            with open_batch(batch) as way:
                slow = _seconds(way, fewest) > PATIENCE / TRIALS  # which warms it up, too
                seconds[batch] = _best_seconds(way, fewest if slow else images)
        except EngineError:
            if not seconds:
                raise
            break
        if seconds[batch] > WORSE * min(seconds.values()):
            break
    return min(seconds, key=seconds.__getitem__)


def _best_seconds(way: Way, images: Sequence[SourceImage]) -> float:
    """Of an image."""
    trials: list[float] = []
    while len(trials) < TRIALS and sum(trials) < PATIENCE:
        trials.append(_seconds(way, images))
    return min(trials) / max(1, len(images))


def _seconds(way: Way, images: Sequence[SourceImage]) -> float:
    begin = time.perf_counter()
    way.run(images)
    return time.perf_counter() - begin
