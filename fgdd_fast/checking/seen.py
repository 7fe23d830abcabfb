"""What the checks look at: names at once, files and pixels when the first check asks for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.checking.asking import Models
from fgdd_fast.checking.reading import File, Looks, file_hash, look_at, read_ends
from fgdd_fast.errors import ImageError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage
from fgdd_fast.images.decode import read_file
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.parallel import batched, ordered_map, single_threaded_opencv

T = TypeVar("T")
R = TypeVar("R")
_CHUNK = 64  # files a task: opening one takes no longer than handing it to a thread


@dataclass(frozen=True)
class Seen:
    """A data set, and what it is going to be used for.

    Attributes:
        data: the scanned folder.
        images: those that are looked at: all, or the pool that a run considers.
        validation: the scanned folder of held-out images, if there is one.
        foreground: the foreground model's name as users write it; empty where none is chosen.
        prompts: phrases to look for, by class.
        asked_by_class: whether the foreground model is asked for classes by their names.
        tiles: how many tiles a class has to give; 0 where that is open.
        tiles_by_class: how many those of another number have to give.
        tile: side of a tile in pixels.
        near: bits in which perceptual hashes of near-duplicates differ at most.
        held_out: whether a part of the images is going to be held out, each for itself.
        sixteen_bit: how images of 16 bits are going to be read.
        skip_empty: whether class folders without images are left out, as was asked for.
        models: what a teacher and a foreground model say of the images, if they are asked.
        threads: that read.
        progress: told how far reading is.
    """

    data: DataSet
    images: tuple[SourceImage, ...]
    validation: DataSet | None = None
    foreground: str = ""
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asked_by_class: bool = False
    tiles: int = 0
    tiles_by_class: Mapping[str, int] = field(default_factory=dict)
    tile: int = 112
    near: int = 2
    held_out: bool = False
    sixteen_bit: SixteenBit = "shift"
    skip_empty: bool = False
    models: Models | None = None
    threads: int = 1
    progress: Progress = SILENT

    @property
    def by_class(self) -> Mapping[str, Sequence[SourceImage]]:
        """The images that are looked at, by class."""
        members: defaultdict[str, list[SourceImage]] = defaultdict(list)
        for image in self.images:
            members[image.class_name].append(image)
        return members

    def validation_name(self, source: str) -> str:
        """Return how messages name a validation image."""
        assert self.validation is not None
        return f"{self.validation.root.as_posix()}/{source}"

    @cached_property
    def files(self) -> tuple[File, ...]:
        """The files of the images that are looked at; those that cannot be opened are left out."""
        return self._read(self.images, lambda source: source)

    @cached_property
    def validation_files(self) -> tuple[File, ...]:
        """The files of the validation images, likewise."""
        return () if self.validation is None else self._read(self.validation.images, self.validation_name)

    def _read(self, images: Sequence[SourceImage], name: Callable[[str], str]) -> tuple[File, ...]:
        found = self._mapped("Reading files", images, lambda image: read_ends(image, name(image.source)))
        return tuple(file for file in found if file is not None)

    @cached_property
    def same_bytes(self) -> tuple[tuple[File, ...], ...]:
        """Files of the same bytes, in groups; only those of the same size and ends are read whole."""
        alike: defaultdict[tuple[int, bytes], list[File]] = defaultdict(list)
        for file in (*self.files, *self.validation_files):
            alike[file.size, file.ends].append(file)
        candidates = [file for group in alike.values() if len(group) > 1 for file in group]
        groups: defaultdict[str, list[File]] = defaultdict(list)
        hashes = self._mapped("Comparing files", candidates, lambda file: file_hash(file.image.location))
        for file, sha256 in zip(candidates, hashes, strict=True):
            if sha256:
                groups[sha256].append(file)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @cached_property
    def looks(self) -> Mapping[str, Looks]:
        """What the pixels of each image tell, by its name in messages; see `File.name`."""
        return {name: found for name, found in self._looked_at if isinstance(found, Looks)}

    @cached_property
    def damaged(self) -> tuple[Skipped, ...]:
        """The images that cannot be read, with the reasons."""
        return tuple(found for _, found in self._looked_at if isinstance(found, Skipped))

    @cached_property
    def _looked_at(self) -> list[tuple[str, Looks | Skipped]]:
        images = [(image, image.source) for image in self.images]
        if self.validation is not None:
            images += [(image, self.validation_name(image.source)) for image in self.validation.images]

        def look(named: tuple[SourceImage, str]) -> tuple[str, Looks | Skipped]:
            image, name = named
            try:
                return name, look_at(read_file(image.location).content, image.class_name, self.tile)
            except ImageError as error:
                return name, Skipped(name, error.problem)

        return list(self._mapped("Looking at images", images, look))

    def _mapped(self, what: str, items: Sequence[T], function: Callable[[T], R]) -> Iterator[R]:
        def several(some: list[T]) -> list[R]:
            return [function(item) for item in some]

        with (
            self.progress.task(what, len(items)) as task,
            single_threaded_opencv(),
            ThreadPoolExecutor(self.threads, "check") as readers,
        ):
            chunks = batched(items, min(_CHUNK, len(items) // self.threads + 1))
            for results in ordered_map(readers, several, chunks, 2 * self.threads):
                task.advance(len(results))
                yield from results
