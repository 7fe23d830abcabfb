"""Images that lie in shards or at an address: what they are named, and which class they have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fgdd_fast.errors import DataError
from fgdd_fast.images.file_kinds import is_image_by_name, kind_of
from fgdd_fast.images.listing.folder_search import Found, Ignored
from fgdd_fast.images.listing.lists import check_label
from fgdd_fast.images.place import Place

_SHOWN = 5  # wrong labels that a message names


class Member(NamedTuple):
    """An image of a data set that is no folder on disk.

    Attributes:
        path: the name that it has there, with slashes.
        label: what is said of its class: a name, or an index; None where its folder is its class.
        place: where its bytes lie.
    """

    path: str
    label: str | int | None
    place: Place


def clean_path(path: str) -> str:
    """Return a path without `./` and doubled slashes; a ValueError says why it is none within a data set."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise ValueError("its name leads out of the data set")
    if not parts or "\0" in path:
        raise ValueError("it has no name")
    return "/".join(parts)


def is_image(path: str, head: Callable[[], bytes], found: Found) -> bool:
    """Tell an image by its suffix, or else by its first bytes; note what else it is."""
    if is_image_by_name(path):
        return True
    kind, reason = kind_of(path, head())
    if reason:
        found.skipped.append((path, reason))
    elif kind != "image":
        found.aside.append(path)
    return kind == "image"


def name_members(
    members: Iterable[Member], names: Sequence[str] | None, given: Path, ignored: Ignored, found: Found
) -> dict[str, tuple[str, Place]]:
    """Name images as files in class folders are named: by their paths, below their classes.

    Args:
        members: the images.
        names: the classes by their indices; None where that is not said, and indices are names themselves.
        given: what the user named the data set by, for messages.
        ignored: what is left out.
        found: gathers what is left out.

    Returns:
        The class and the place of each image, by its source.

    Raises:
        DataError: labels are no classes, or two images have the same name.
    """
    wrong: list[str] = []
    images: dict[str, tuple[str, Place]] = {}
    for member in members:
        try:
            class_name, source = _named(member, names)
        except ValueError as error:
            wrong.append(f"{member.path!r}: {error}")
            continue
        if (reason := ignored.reason_within(source)) or not class_name:
            found.skipped.append((source, reason or "image outside every class folder"))
        elif source in images:
            raise DataError(
                f"Two images of {given} are named {source!r}: {images[source][1]} and {member.place}",
                "Give each a name of its own: their crops are drawn by it.",
            )
        else:
            images[source] = class_name, member.place
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DataError(
            f"{given} has {len(wrong)} images whose labels are no classes: {'; '.join(wrong[:_SHOWN])}{more}",
            "Label them anew, or leave them out when you pack.",
        )
    return images


def below_shared_folder(members: Sequence[Member]) -> Sequence[Member]:
    """Take off a folder above the class folders in which all images lie: `train/cat/1.jpg`."""
    tops = {member.path.split("/")[0] for member in members}
    if len(tops) != 1 or any(each.label is not None or each.path.count("/") < 2 for each in members):
        return members
    return [each._replace(path=each.path.partition("/")[2]) for each in members]


def _named(member: Member, names: Sequence[str] | None) -> tuple[str, str]:
    """The class and the source of an image; a class that is empty where nothing tells it."""
    path, label = member.path, member.label
    if label is None:
        return path.rpartition("/")[0].partition("/")[0], path
    text = str(label).strip()
    if names is not None and (isinstance(label, int) or text.removeprefix("-").isdecimal()):
        if not 0 <= int(text) < len(names):
            raise ValueError(f"the label {text}, and there are {len(names)} classes")
        text = names[int(text)]
    check_label(text)
    return text, path if path.startswith(f"{text}/") else f"{text}/{path}"
