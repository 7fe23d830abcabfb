"""Commands on a disk that is full at any of their writes: a small tmpfs, of which a file takes the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign_scene import COMMANDS, SAME, Scene, broken, gist, unfinished
from campaigning import Tally, number

STEP = number("STEP", 4) << 10  # bytes
DISK = 64 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, free: int) -> Path:
    """Leave so many bytes of a disk."""
    ballast = disk / "ballast"
    room = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - free)
    return ballast


@pytest.mark.parametrize("name", COMMANDS)
def test_full(name: str, disk: Path, scene: Scene, tally: Tally) -> None:
    """An error in words, nothing half-written; with room again the same command gives what it should."""
    if name == "engine build":
        pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    whole, work, free, room = scene.whole(name), disk / "work", 0, 0
    while not room and tally.in_time:
        scene.begin(name, work)
        ballast = fill(disk, free)
        ended = scene.run(name, work)
        what = f"{free} bytes free"
        outcome = "room enough" if ended.code == 0 else "refused"
        tally.add(outcome, ended.fault and f"{what}: {ended.fault}")
        now = gist(work)
        if half := broken(scene, name, work, what):
            tally.add("half-written", half)
        if left := [path for path in work.rglob("*") if unfinished(path)]:
            tally.add("left over", f"{what}: {left}")
        room = ended.code == 0 and (now == whole if name in SAME else whole.keys() <= now.keys())
        ballast.unlink()
        again = scene.run(name, work)
        now = gist(work)
        same = now == whole if name in SAME else whole.keys() <= now.keys()
        done = same and (again.code == 0 or "exists" in again.said)
        tally.add(
            "goes on with room" if done else "lost",
            "" if done else f"{what}: {again.said[-400:]} {now.keys() ^ whole.keys()}",
        )
        free += max(STEP, free // 12 // STEP * STEP)
    tally.figures["room_enough_bytes"] = free
    shutil.rmtree(work)
