"""Class folders at an address of an object store, listed folder by folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from fgdd_fast.images.file_kinds import SIGNATURE, is_image_by_name
from fgdd_fast.images.listing.folder_search import Found, Ignored
from fgdd_fast.images.listing.members import Member, is_image
from fgdd_fast.images.place import Address, File, Place, list_folder

_AT_ONCE = 16  # requests under way: each takes long, and next to no work


def list_address(root: Address, ignored: Ignored, found: Found) -> list[Member]:
    """Find the images in the folders at an address, as on disk: by suffix, or by first bytes.

    Args:
        root: the address.
        ignored: which folders are not listed.
        found: gathers what is met besides images.

    Raises:
        OSError: there is nothing at the address.
        RemoteError: its store cannot be reached.
    """

    def walk(class_name: str) -> list[tuple[str, File]]:
        files, folders = list[tuple[str, File]](), [class_name]
        while folders:
            folder = folders.pop()
            if (reason := ignored.reason(folder)) is not None:
                found.skipped.append((folder, reason))
                continue
            inner = list_folder(root / folder)
            files += [(f"{folder}/{name}", file) for name, file in inner.items() if file]
            folders += [f"{folder}/{name}" for name, file in inner.items() if file is None]
        return files

    entries = list_folder(root).items()
    with ThreadPoolExecutor(_AT_ONCE, "list") as readers:
        walked = readers.map(walk, [name for name, file in entries if file is None])
        stray = [(name, file) for name, file in entries if file and is_image_by_name(name)]
        files = [*stray, *chain.from_iterable(walked)]
        kept = readers.map(lambda each: is_image(each[0], lambda: each[1].read(0, SIGNATURE), found), files)
        return [
            Member(name, None, Place(file))
            for (name, file), is_one in zip(files, kept, strict=True)
            if is_one
        ]
