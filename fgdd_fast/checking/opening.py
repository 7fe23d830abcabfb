"""Opening a data set with what is to be left out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.checking.seen import Seen
from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.images.dataset import ASKED, DataSet, Skipped, scan
from fgdd_fast.images.near_duplicates import near_groups
from fgdd_fast.runtime.choose import available_processors
from fgdd_fast.seeding import source_bytes


def open_data(
    data: str | Path,
    *,
    ignore: Sequence[str] = (),
    skip_empty: bool = False,
    validation: str | Path | None = None,
    exclude_leaks: bool = False,
    near: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> DataSet:
    """Scan a folder of labelled images, and leave out what is asked.

    Args:
        data: a folder with one folder of images for each class; or a list, shards or an address: see `scan`.
        ignore: shell patterns of files and folders to leave out, as in `*_mask.png`. One with a slash, such
            as `cat/masks`, is of the path within `data`; any other is of a name, wherever it lies.
        skip_empty: whether class folders without images are left out; else they are an error.
        validation: a folder of held-out images, of which `exclude_leaks` leaves copies out of `data`.
        exclude_leaks: whether images are left out that are among the held-out ones too, byte by byte.
        near: bits in which perceptual hashes differ at most of images that count as copies as well, which
            decodes every image; None for none.
        threads: that read; by default all processors.
        progress: told how far reading is.

    Returns:
        The data set; what was left out, and why, is in `DataSet.skipped`.

    Raises:
        SettingsError: leaks are to be left out, and no held-out images are named.
        DataError: a folder cannot be used, or has classes without images; or all images of a class are leaks.
    """
    found = scan(Path(data), ignore=ignore, skip_empty=skip_empty)
    if not exclude_leaks:
        return found
    if validation is None:
        raise SettingsError(
            "Which images leak is told by held-out ones", "Name them with --validation FOLDER."
        )
    held = scan(Path(validation), ignore=ignore, skip_empty=True)
    threads = threads or available_processors()
    return _without(
        found, _leaking(Seen(found, found.images, held, threads=threads, progress=progress), near)
    )


def _leaking(seen: Seen, near: int | None) -> dict[str, str]:
    """Why each image of the data set counts that is a copy of a held-out one, by its source."""
    own = {id(image) for image in seen.images}
    copies: dict[str, str] = {}
    for group in seen.same_bytes:
        held = [file.image.source for file in group if id(file.image) not in own]
        if held:
            reason = f"{ASKED[1]}same bytes as {held[0]}"
            copies |= {file.name: reason for file in group if id(file.image) in own}
    if near is None:
        return copies
    names, sources = [*seen.looks], {image.source for image in seen.images}
    for places in near_groups([seen.looks[name].perceptual_hash for name in names], near):
        members = [names[place] for place in places]
        held = [name.removeprefix(seen.validation_name("")) for name in members if name not in sources]
        for name in members if held else ():
            if name in sources:
                copies.setdefault(name, f"{ASKED[1]}near-duplicate of {held[0]}")
    return copies


def _without(data: DataSet, copies: dict[str, str]) -> DataSet:
    """The data set without some images, which are listed as skipped."""
    images = tuple(image for image in data.images if image.source not in copies)
    left = {image.class_name for image in images}
    for name in data.classes:
        if name not in left:
            raise DataError(
                f"Every image of the class {name!r} is among the held-out images too",
                "Is --validation another folder than DATA, and are its images others?",
            )
    skipped = [*data.skipped, *(Skipped(source, reason) for source, reason in copies.items())]
    skipped.sort(key=lambda item: source_bytes(item.source))
    return replace(data, images=images, skipped=tuple(skipped))
