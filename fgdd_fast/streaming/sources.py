"""Where a stream comes from: a folder that grows, a video, a camera, standard input, or Python itself.

A source gives frames one after another, and None where none came for a moment, so that whoever takes them
can do something else. A camera does not wait for who is slow: frames are dropped, and counted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import cv2
import numpy as np

from fgdd_fast.errors import DataError
from fgdd_fast.images.file_kinds import is_image_by_name
from fgdd_fast.images.resize import Pixels
from fgdd_fast.parallel import silent_opencv
from fgdd_fast.seeding import source_bytes

_log = logging.getLogger(__name__)

IDLE = 0.1  # seconds without a frame after which a source says so
SETTLED = 1_000_000_000  # nanoseconds since its last change after which a file of a folder that grows is read
LARGEST = 1 << 28  # bytes of an image on standard input; a length beyond it is none
_LENGTH = struct.Struct(">I")
_WAITING = 2  # frames that wait to be taken
_ATTEMPTS = 3  # at opening a camera that stopped


@dataclass(frozen=True)
class Frame:
    """An image of a stream.

    Attributes:
        name: names it in the manifest: a POSIX path in the folder; or its number as in
            `frame-00000012`, of a video in a folder of that name.
        item: what is marked as done once it was taken: a number of 63 bits; None where nothing is.
        position: how many frames of the source there were up to this one.
        path: its file; None where `content` or `pixels` hold it.
        content: the bytes of an image file.
        pixels: uint8 RGB [height, width, 3].
    """

    name: str
    item: int | None = None
    position: int = 0
    path: Path | None = None
    content: bytes | None = None
    pixels: Pixels | None = None


Frames = Iterator[Frame | None]


class Source:
    """Gives frames.

    Args:
        frames: yields them; it is told which items were done, and how many frames an earlier run has taken.
            It raises a DataError where the source cannot be read.
        key: under which it is remembered how many were taken.

    Attributes:
        live: whether it goes on whether its frames are taken or not.
        dropped: frames that nobody took in time.
    """

    live = False
    dropped = 0

    def __init__(self, frames: Callable[[Callable[[int], bool], int], Frames], key: str = "") -> None:
        self.frames = frames
        self.key = key

    @property
    def waiting(self) -> int:
        """Frames that wait to be taken."""
        return 0


def open_source(
    named: str | Path | Iterable[tuple[str, bytes]], *, once: bool, every: int, patience: float
) -> Source:
    """Open what a user names.

    Args:
        named: a folder, a video file, `camera:` with a number or an address that OpenCV opens, `-` for
            standard input, or pairs of a name and an image file's bytes.
        once: whether a folder ends with the last file that it has.
        every: of so many frames one is taken; of a folder all are.
        patience: seconds after which a camera that gives nothing is opened anew.

    Raises:
        DataError: there is no such source.
    """
    if not isinstance(named, str | Path):
        return Source(lambda *_: _pairs(named))
    if str(named) == "-":
        return Source(lambda _, position: _piped(sys.stdin.buffer, every, position))
    if str(named).startswith("camera:"):
        return _Camera(str(named).removeprefix("camera:"), every, patience)
    path = Path(named)
    if path.is_dir():
        return Source(lambda done, _: _folder(path, done, once=once))
    if path.is_file():
        return Source(lambda _, position: _video(path, every, position), f"{path.name} {path.stat().st_size}")
    raise DataError(
        f"There is no folder and no video {path}",
        "Name a folder of images, a video file, camera:0, or - for JPEGs on standard input.",
    )


def _pairs(pairs: Iterable[tuple[str, bytes]]) -> Frames:
    for name, content in pairs:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise DataError(f"{name!r} is no path within a folder", "Name images as in: dress/1.jpg")
        yield Frame(name, content=content)


def _folder(root: Path, done: Callable[[int], bool], *, once: bool) -> Frames:
    """The files of a folder; hidden ones are passed over, and may be renamed when they are complete."""
    taken: set[int] = set()  # and not yet done
    while True:
        begin = time.monotonic()
        for name, size, changed in sorted(_files(root)):
            key = source_bytes(name) + f"\0{size} {changed}".encode()
            item = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
            settled = once or time.time_ns() - changed > SETTLED
            if settled and item not in taken and not done(item):
                taken.add(item)
                yield Frame(name, item, path=root / name)
        if once:
            return
        taken = {item for item in taken if not done(item)}
        pause = max(1.0, 3 * (time.monotonic() - begin))  # a large folder is looked through less often
        for _ in range(int(pause / IDLE)):
            time.sleep(IDLE)
            yield None


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    """The name, size and time of change of each image."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        folders.append(Path(entry.path))
                    elif is_image_by_name(entry.name):
                        with suppress(OSError):  # gone since it was listed
                            name, state = Path(entry.path).relative_to(root).as_posix(), entry.stat()
                            yield name, state.st_size, state.st_mtime_ns
        except OSError as error:
            if folder == root:
                raise DataError(f"The folder {folder} cannot be read: {error.strerror}") from error


def _of_video(number: int, pixels: Any, folder: str = "") -> Frame:
    """A frame by its number from 1, with pixels in BGR."""
    rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    return Frame(f"{folder}frame-{number - 1:08d}", position=number, pixels=rgb)


def _video(path: Path, every: int, position: int) -> Frames:
    with silent_opencv():
        video = cv2.VideoCapture(str(path))
    try:
        number = 0
        while video.isOpened() and video.grab():
            number += 1
            if number <= position or (number - 1) % every:
                continue
            read, pixels = video.retrieve()
            if read:
                yield _of_video(number, pixels, f"{path.stem}/")
        if not number:
            raise DataError(f"OpenCV finds no frame in the video {path}", "Convert it to another format.")
    finally:
        video.release()


def _piped(stream: BinaryIO, every: int, position: int) -> Frames:
    """Images of a pipe, which holds whoever writes into it until there is room."""
    arrived: queue.Queue[bytes | DataError | None] = queue.Queue(_WAITING)
    threading.Thread(target=_read_pipe, args=(stream, arrived), daemon=True).start()
    number = position
    while True:
        try:
            content = arrived.get(timeout=IDLE)
        except queue.Empty:
            yield None
            continue
        if content is None:
            return
        if isinstance(content, DataError):
            raise content
        number += 1
        if (number - 1) % every == 0:
            yield Frame(f"frame-{number - 1:08d}", position=number, content=content)


def _read_pipe(stream: BinaryIO, arrived: queue.Queue[bytes | DataError | None]) -> None:
    while head := stream.read(_LENGTH.size):
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        content = stream.read(length) if 0 < length <= LARGEST else b""
        if not content or len(content) < length:
            problem = f"a length of {length} bytes, and {len(content)} bytes after it"
            advice = "Write before each image its length in bytes, as four bytes, the highest first."
            arrived.put(DataError(f"Standard input holds no image: {problem}", advice))
            return
        arrived.put(content)
    arrived.put(None)


class _Camera(Source):
    """A camera, whose latest frames are taken; opened anew where it gives nothing for a while."""

    live = True

    def __init__(self, address: str, every: int, patience: float) -> None:
        super().__init__(lambda _, position: self._frames(position))
        self._address = address
        self._every = every
        self._patience = patience
        self._arrived: queue.Queue[tuple[int, Any]] = queue.Queue(_WAITING)
        self._stopped = threading.Event()

    @property
    def waiting(self) -> int:
        return self._arrived.qsize()

    def _frames(self, number: int) -> Frames:
        attempts, last = 0, time.monotonic()
        self._open(number)
        try:
            while attempts <= _ATTEMPTS:
                try:
                    number, pixels = self._arrived.get(timeout=IDLE)
                    yield _of_video(number, pixels)
                    attempts, last = 0, time.monotonic()
                except queue.Empty:
                    yield None
                    if time.monotonic() - last <= self._patience:
                        continue
                    attempts, last = attempts + 1, time.monotonic()
                    if attempts <= _ATTEMPTS:
                        _log.warning("The camera %s gives nothing: it is opened anew", self._address)
                        self._open(number)
        finally:
            self._stopped.set()
        raise DataError(
            f"The camera {self._address} stopped: nothing came for {attempts * self._patience:.0f} seconds",
            "Check it, then run the same command again: it goes on.",
        )

    def _open(self, number: int) -> None:
        """Start a thread that reads; the one before ends, unless the driver holds it for ever."""
        self._stopped.set()
        self._stopped = threading.Event()
        threading.Thread(target=self._read, args=(self._stopped, number), daemon=True).start()

    def _read(self, stopped: threading.Event, number: int) -> None:
        with silent_opencv():
            camera = cv2.VideoCapture(int(self._address) if self._address.isdecimal() else self._address)
        while not stopped.is_set() and camera.isOpened() and camera.grab():
            number += 1
            if (number - 1) % self._every:
                continue
            read, pixels = camera.retrieve()
            if read and not stopped.is_set():
                if self._arrived.full():  # the oldest goes
                    with suppress(queue.Empty):
                        self._arrived.get_nowait()
                        self.dropped += 1
                self._arrived.put((number, pixels))
        camera.release()
