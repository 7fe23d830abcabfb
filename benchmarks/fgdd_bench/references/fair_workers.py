"""The worker processes of the fair reference: they read, decode and cut images for a PyTorch DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from fgdd_bench.harness.implementation import Step, run_steps
from fgdd_bench.machine.processes import worker_context
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.parallel import batched


class ImageLoader:
    """A DataLoader whose workers stay, for images that are named anew each time.

    Args:
        steps: what a worker does with an image; the last gives an array.
        batch: images that are handed over at once.
        workers: processes, at least 1; each works with one thread.
        pinned: whether batches are put into memory from which a GPU can copy.
    """

    def __init__(self, steps: Sequence[Step], *, batch: int, workers: int, pinned: bool) -> None:
        self._batches = _Batches(batch)
        self._loader: DataLoader[Tensor | DataError] | None = DataLoader(
            _Images(steps),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_use_one_thread,
            persistent_workers=True,
            pin_memory=pinned,
            multiprocessing_context=worker_context(),
        )
        list(self.load([]))  # starts the workers

    def load(self, images: Sequence[SourceImage]) -> Iterator[Tensor]:
        """Yield batches of what the workers make of the images, in their order; the last may be smaller.

        Raises:
            DataError: an image cannot be used.
            EngineError: a worker died.
        """
        assert self._loader is not None, "closed"
        self._batches.images = images
        with wrapped_as_engine_error("The workers of PyTorch's DataLoader failed"):
            for batch in self._loader:
                if isinstance(batch, DataError):
                    raise batch
                yield batch

    def close(self) -> None:
        """End the workers."""
        if self._loader is not None:
            # Left alone it ends them when nothing refers to it, but the traceback of an error may.
            iterator: Any = self._loader._iterator
            iterator._shutdown_workers()
            self._loader = None


class _Batches(Sampler[list[SourceImage]]):
    """Names the images of each batch."""

    def __init__(self, size: int) -> None:
        self.images: Sequence[SourceImage] = ()
        self._size = size

    def __iter__(self) -> Iterator[list[SourceImage]]:
        return batched(self.images, self._size)


class _Images(Dataset[Tensor | DataError]):
    """What the steps make of an image; an error is handed over, not raised, so that it keeps its type."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps

    def __getitem__(self, image: SourceImage) -> Tensor | DataError:
        try:
            return torch.from_numpy(run_steps(self._steps, image))
        except DataError as error:
            return error


def _collate(samples: Sequence[Tensor | DataError]) -> Tensor | DataError:
    errors = [sample for sample in samples if isinstance(sample, DataError)]
    return errors[0] if errors else default_collate(list(samples))


def _use_one_thread(worker: int) -> None:  # noqa: ARG001 - all are alike; PyTorch sees to its own threads
    cv2.setNumThreads(1)
