"""Checks of the folder as it is laid out: the wrong folder, folders that are no class, files left aside."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from fgdd_fast.checking.findings import counted, some
from fgdd_fast.checking.registry import Found, check
from fgdd_fast.checking.seen import Seen
from fgdd_fast.images.dataset import ASKED, EMPTY, STRAY, no_class_folder
from fgdd_fast.images.file_kinds import suffix_of

_TRAINING = ("train", "training", "trn")
_HELD = ("val", "valid", "validation", "test", "testing", "dev", "eval")
# What programs leave in folders, and what data sets keep beside their images.
_OF_PROGRAMS = {
    "__macosx",
    "__pycache__",
    "@eadir",
    "@recycle",
    "#recycle",
    "$recycle.bin",
    "lost+found",
    "node_modules",
    "system volume information",
}
_BESIDE_IMAGES = {
    "annotation",
    "annotations",
    "bbox",
    "bboxes",
    "labels",
    "mask",
    "masks",
    "metadata",
    "segmentation",
    "segmentations",
    "thumbnails",
    "thumbs",
}
_UNREADABLE = re.compile(r"images of the format (\S.*) cannot be read")
_SOLD_AS = {"AVIF": ".avif", "HEIC": ".heic", "JPEG XL": ".jxl", "JPEG 2000": ".jp2", "PSD": ".psd"}


@check("split-folders", "error", needs="names", about="DATA is the parent of train and val, or of one folder")
def split_folders(seen: Seen) -> Iterator[Found]:
    """The folder above the one that was meant: its classes are parts of a split, or one that holds all."""
    if seen.data.listed is not None:
        return
    root, classes = seen.data.root, seen.data.classes
    inside: defaultdict[str, set[str]] = defaultdict(set)
    for image in seen.data.images:
        parts = image.source.split("/")
        inside[image.class_name].add(parts[1] if len(parts) > 2 else "")
    training = [name for name in classes if name.lower() in _TRAINING]
    held = [name for name in classes if name.lower() in _HELD]
    nested = [name for name in classes if "" not in inside[name] and len(inside[name]) > 1]
    if training and held:
        advice = f"Give {root / training[0]} as DATA, and {root / held[0]} as --validation."
        yield Found(
            f"The classes would be {some(classes)}: {root} is the folder above the parts of a split",
            advice,
            (*training, *held),
        )
    elif len(classes) == 1 and nested:
        yield Found(
            f"All images lie in {classes[0]!r}, in {counted(len(inside[classes[0]]), 'folder')}: {root} "
            "seems to be the folder above the classes",
            f"Give {root / classes[0]} as DATA.",
            classes,
        )


@check("no-classes", "error", needs="names", about="no class folder at all")
def no_classes(seen: Seen) -> Iterator[Found]:
    """A folder without class folders, such as one that holds the images themselves."""
    if not seen.data.classes and not seen.data.empty:
        error = no_class_folder(seen.data)
        yield Found(error.problem, error.advice)


@check("no-class", "warning", needs="names", about="folders that look like no class, such as masks or @eaDir")
def folders_that_are_no_class(seen: Seen) -> Iterator[Found]:
    """Folders of programs, wherever they lie, and folders beside the classes that hold something else."""
    if seen.data.listed is not None:
        return
    images: Counter[str] = Counter()
    for image in seen.data.images:
        parts = image.source.split("/")
        for part in parts[1:-1] if len(parts) > 2 else ():
            if part.lower() in _OF_PROGRAMS:
                images[part] += 1
    for name in seen.data.classes:
        if name.lower() in _BESIDE_IMAGES | _OF_PROGRAMS:
            images[name] = sum(image.class_name == name for image in seen.data.images)
    for name, count in images.items():
        yield Found(
            f"{counted(count, 'image')} would come from {name!r}, which looks like no class",
            f"If it is none, leave it out: --ignore '{name}'",
            tuple(name for name in [name] if name in seen.data.classes)
            or tuple(image.source for image in seen.data.images if f"/{name}/" in f"/{image.source}"),
        )


@check("empty-class", "error", needs="names", about="class folders without images")
def empty_classes(seen: Seen) -> Iterator[Found]:
    """Class folders in which nothing is, or nothing that can be read."""
    if seen.data.empty:
        left_out = ", left out" * seen.skip_empty
        count = counted(len(seen.data.empty), "class folder")
        yield Found(
            f"{count} without images{left_out}: {some(seen.data.empty)}",
            "Put images there, or leave them out: --skip-empty, or --ignore for one that is no class.",
            seen.data.empty,
            severity="note" if seen.skip_empty else None,
        )


@check("stray-images", "warning", needs="names", about="images outside every class folder")
def stray_images(seen: Seen) -> Iterator[Found]:
    """Images that lie beside the class folders."""
    stray = tuple(item.source for item in seen.data.skipped if item.reason == STRAY)
    if stray:
        yield Found(
            f"{counted(len(stray), 'image lies', 'images lie')} outside every class folder",
            "Move them into the folders of their classes.",
            stray,
        )


@check("unreadable-format", "warning", needs="names", about="HEIC, AVIF and other images that cannot be read")
def unreadable_formats(seen: Seen) -> Iterator[Found]:
    """Images of formats that cannot be read, a line for each format."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for item in seen.data.skipped:
        if (found := _UNREADABLE.fullmatch(item.reason)) is not None:
            files[_SOLD_AS.get(found[1], found[1])].append(item.source)
    for suffix, sources in sorted(files.items()):
        yield Found(
            f"{counted(len(sources), 'image')} of the format {suffix} cannot be read",
            f"Convert them, for example with ImageMagick: magick mogrify -format jpg '*{suffix}'",
            tuple(sources),
        )


@check("not-read", "warning", needs="names", about="links and folders that cannot be followed")
def not_read(seen: Seen) -> Iterator[Found]:
    """What else the scan left out: broken links, folders without permission, pipes."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for item in seen.data.skipped:
        asked = item.reason.startswith(ASKED)
        if not asked and item.reason not in (STRAY, EMPTY) and not _UNREADABLE.fullmatch(item.reason):
            files[item.reason].append(item.source)
    for reason, sources in sorted(files.items()):
        yield Found(
            f"{len(sources)} left out: {reason}",
            "Check links and permissions, if images are missing for it.",
            tuple(sources),
        )


@check("left-aside", "note", needs="names", about="files among the images that are none")
def left_aside(seen: Seen) -> Iterator[Found]:
    """Files that are no images, counted by their suffix."""
    if not seen.data.aside:
        return
    kinds = Counter(suffix_of(source) or "without suffix" for source in seen.data.aside).most_common()
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds[:8]) + (", …" if len(kinds) > 8 else "")
    count = counted(len(seen.data.aside), "file is no image", "files are no images")
    yield Found(f"{count}, and left aside: {listed}", "Convert those that are pictures.", seen.data.aside)


@check("few-images", "warning", needs="names", about="classes that have to give several tiles of one image")
def few_images(seen: Seen) -> Iterator[Found]:
    """Classes of fewer images than tiles; of a single one, where the number of tiles is open."""
    few = {
        name: len(images)
        for name, images in seen.by_class.items()
        if len(images) < max(seen.tiles_by_class.get(name, seen.tiles), 2)
    }
    if few:
        tiles = f"{seen.tiles} tiles" if seen.tiles and not seen.tiles_by_class else "all its tiles"
        classes = [f"{name} {count}" for name, count in few.items()]
        shown = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
        several = counted(len(few), "class has", "classes have")
        yield Found(
            f"{several} fewer images than tiles ({shown}): {tiles} show parts of the same images",
            "Add images, or lower --ipc or --factor.",
            tuple(few),
        )
