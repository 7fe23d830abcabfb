"""Writing stored labels: each file whole, listed in `labels.json` with its hash; a stopped run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from fgdd_engines.base import Array
from fgdd_engines.bundle.files import stage_file
from fgdd_engines.file_lock import exclusive_lock
from fgdd_fast.errors import OutputError
from fgdd_fast.labels.compression import Cost
from fgdd_fast.labels.index import (
    IMAGE_FILE,
    LabelFile,
    LabelIndex,
    epoch_file,
    is_label_file,
    read_index,
    serialise,
)
from fgdd_fast.labels.stored import find_damage
from fgdd_fast.labels.tensors import pack
from fgdd_fast.output.folder import LABEL_INDEX, LABELS, writing

SECONDS = 1.0  # between two writings of the index: what a killed run may have to do again


class LabelWriter:
    """Puts files of labels in place, and lists them; opened by `open_writer`.

    Attributes:
        index: what is there.
    """

    def __init__(self, folder: Path, staging: Path, index: LabelIndex) -> None:
        self.index = index
        self._folder = folder
        self._staging = staging
        self.flush()

    def add(self, name: str, arrays: Mapping[str, Array], cost: Cost) -> None:
        """Write a file whole.

        Raises:
            OutputError: it cannot be written.
        """
        parts = pack(arrays)
        self._put(name, *parts)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        file = LabelFile(digest.hexdigest(), sum(map(len, parts)), cost)
        self.index = self.index.with_file(name, file)
        if time.monotonic() - self._flushed >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring the index to the disk.

        Raises:
            OutputError: it cannot be written.
        """
        self._put(LABEL_INDEX, serialise(self.index))
        self._flushed = time.monotonic()

    def remove_unlisted(self) -> None:
        """Remove files of labels that the index does not list: of an older run, or not known to be whole."""
        for path in self._folder.iterdir():
            if is_label_file(path.name) and path.name not in self.index.files:
                path.unlink()

    def _put(self, name: str, *parts: bytes | memoryview) -> None:
        path = self._folder / name
        with writing(path):
            stage_file(self._staging / name, *parts).replace(path)


@contextlib.contextmanager
def open_writer(out: Path, wanted: LabelIndex, *, overwrite: bool) -> Iterator[LabelWriter]:
    """Open the labels of OUT for writing within the block; what is there already and is whole is kept.

    The index is on disk when the block ends, however it ends.

    Args:
        out: the folder of the distilled data set.
        wanted: the labels to be made, without files. Of more epochs that are there, none is dropped.
        overwrite: whether labels that were made otherwise are replaced, instead of refused.

    Raises:
        OutputError: there are labels that were made otherwise, another process is writing them, or they
            cannot be written.
        DataError: the index is damaged.
    """
    folder = out / LABELS

    def refuse() -> None:
        raise OutputError(
            f"Another process is writing the labels in {folder}", "Wait until it is done, then run again."
        )

    with contextlib.ExitStack() as stack:
        with writing(folder):
            folder.mkdir(exist_ok=True)
            staging = stack.enter_context(exclusive_lock(folder, LABELS, refuse))
        writer = LabelWriter(folder, staging, _begin(folder, wanted, overwrite=overwrite))
        with writing(folder):
            writer.remove_unlisted()
        try:
            yield writer
        finally:
            writer.flush()


def _begin(folder: Path, wanted: LabelIndex, *, overwrite: bool) -> LabelIndex:
    """The wanted index with the files that are there already."""
    if overwrite or not (folder / LABEL_INDEX).exists():
        _refuse_foreign(folder)
        return wanted
    found = read_index(folder / LABEL_INDEX)
    kept = {
        name: file
        for name, file in found.files.items()
        if find_damage(folder / name, file, hashed=True) is None
    }
    has_epochs = bool(kept.keys() - {IMAGE_FILE})
    if differences := _differences(found, wanted, views=has_epochs and wanted.views is not None):
        raise OutputError(
            f"The labels in {folder} were made otherwise: {'; '.join(differences)}",
            "Run with the settings that they were made with, or pass --overwrite to replace them.",
        )
    # Epochs are written in order, so what is missing before the last one was damaged, and is made again.
    present = next(
        epoch for epoch in range(found.epochs, -1, -1) if epoch == 0 or epoch_file(epoch - 1) in kept
    )
    return replace(
        wanted,
        views=found.views if has_epochs else wanted.views,
        epochs=max(wanted.epochs, present),
        files=kept,
    )


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder `labels` that was not made by this program."""
    names = (path.name for path in folder.iterdir())
    foreign = sorted(
        name for name in names if name != LABEL_INDEX and not is_label_file(name) and not name.startswith(".")
    )
    if foreign:
        raise OutputError(
            f"The folder {folder} holds something other than labels, first {foreign[0]!r}, and is left alone",
            "Move that elsewhere.",
        )


def _differences(found: LabelIndex, wanted: LabelIndex, *, views: bool) -> list[str]:
    """In what labels that are there differ from those wanted, in words; of views if that matters."""
    one, other = found.subject, wanted.subject
    differences = [
        f"the {name} differ"
        for name in ("manifest", "images", "classes")
        if getattr(one, name) != getattr(other, name)
    ]
    before, now = _settings(found, views=views), _settings(wanted, views=views)
    return differences + [
        f"{name} {before.get(name)}, not {now.get(name)}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _settings(index: LabelIndex, *, views: bool) -> dict[str, object]:
    """Every setting on which labels depend, by a name for messages."""
    subject = index.subject
    settings: dict[str, object] = {
        "teacher": f"{subject.teacher.name} ({subject.teacher.sha256[:12]})",
        **{f"inference {name}": value for name, value in subject.runtime.items()},
        "tile view": subject.tile_view,
    }
    if views and index.views is not None:
        recipe = asdict(index.views.recipe)
        settings |= {"student batch": recipe.pop("batch"), **recipe}
        settings |= {"view": index.views.shown, "compression": index.views.compression}
    return settings
