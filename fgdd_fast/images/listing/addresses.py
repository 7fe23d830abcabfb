"""Class folders at an address of an object store, listed folder by folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from fgdd_fast.images.file_kinds import SIGNATURE, is_image_by_name
from fgdd_fast.images.listing.folder_search import Found, Ignored
from fgdd_fast.images.listing.members import Member, is_image
from fgdd_fast.images.place import Address, RemoteFile, list_folder

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

    def walk(class_name: str) -> list[tuple[str, RemoteFile]]:
        files, folders = list[tuple[str, RemoteFile]](), [class_name]
        while folders:
            folder = folders.pop()
            if (reason := ignored.reason(folder)) is not None:
                found.skipped.append((folder, reason))
                continue
            for name, file in list_folder(root / folder).items():
                if isinstance(file, RemoteFile):
                    files.append((f"{folder}/{name}", file))
                else:
                    folders.append(f"{folder}/{name}")
        return files

    def look(named: tuple[str, RemoteFile]) -> bool:
        return is_image(named[0], lambda: named[1].read_part(0, SIGNATURE), found)

    entries = list_folder(root).items()
    with ThreadPoolExecutor(_AT_ONCE, "list") as readers:
        walked = readers.map(walk, [name for name, file in entries if file is None])
        stray = [
            (name, file) for name, file in entries if isinstance(file, RemoteFile) and is_image_by_name(name)
        ]
        files = [*stray, *chain.from_iterable(walked)]
        kept = readers.map(look, files)
        return [
            Member(source, None, file) for (source, file), is_one in zip(files, kept, strict=True) if is_one
        ]
