"""Several processes at once; folders that cannot be written; clocks, file systems, and a long day's work."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from campaign_scene import SAME, Scene, cached_in, gist
from campaigning import SEED, Child, Tally, number, start

import fgdd_fast
from fgdd_fast.errors import FgddError
from fgdd_fast.runtime.choose import RuntimeOptions

_TIMES = number("TOGETHER", 20)
_YEARS = 10 * 365 * 86_400.0


@pytest.mark.parametrize("processes", [2, 6])
@pytest.mark.parametrize("name", SAME)
def test_at_once(name: str, processes: int, scene: Scene, tally: Tally, tmp_path: Path) -> None:
    """One succeeds at least, others say in words that they are not alone, and the result is that of one."""
    whole = scene.whole(name)
    for trial in range(_TIMES):
        work = scene.begin(name, tmp_path / "work")
        words, logs = scene.words(name, work), [tmp_path / f"log{place}" for place in range(processes)]
        children = [start(words, log, partial(cached_in, work)) for log in logs]
        ended = [child.wait(120) or child.kill() for child in children]
        for each in ended:
            tally.add("done" if each.code == 0 else "refused", each.fault and f"{trial}: {each.fault}")
        sound = gist(work) == whole and any(each.code == 0 for each in ended)
        tally.add("result of one" if sound else "other result", "" if sound else f"{trial}: {ended}")


def without_privileges() -> None:
    """Let this process be bound by the modes of files, as root is not: it gives up all capabilities."""
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    assert ctypes.CDLL(None).capset(header, none) == 0


@pytest.mark.parametrize("name", SAME)
def test_read_only(name: str, scene: Scene, tally: Tally, tmp_path: Path) -> None:
    """Who may not write there is told so, and nothing changes; inputs and a cache need only be read."""
    for what in ("inputs", "work", "work, done"):
        work = scene.begin(name, tmp_path / "work")
        if what == "work, done":
            assert not scene.run(name, work).fault
        before = gist(work)
        (work / "cache").mkdir(exist_ok=True)
        bound = [scene.inputs if what == "inputs" else work, work / "cache"]
        paths = [path for top in bound for path in (top, *top.rglob("*"))]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        ended = scene.run(name, work, without_privileges)
        now = gist(work)
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)
        good = now == (scene.whole(name) if what == "inputs" else before)
        told = ended.code == 0 if what == "inputs" else ended.code == 1 or what == "work, done"
        fault = ended.fault or ("" if good and told else f"{ended.code}: {ended.said[-400:]}")
        tally.add(f"{what}: {'done' if ended.code == 0 else 'refused'}", fault and f"{what}: {fault}")


@pytest.mark.parametrize("name", SAME)
def test_clocks(name: str, scene: Scene, tally: Tally, tmp_path: Path) -> None:
    """Files of the future, and a clock that is set back between two runs, change nothing."""
    real, real_ns = time.time, time.time_ns

    def set_back() -> None:
        time.time, time.time_ns = lambda: real() - _YEARS, lambda: real_ns() - int(_YEARS * 10**9)

    work = scene.begin(name, tmp_path / "work")
    future = time.time() + _YEARS
    for path in (*work.rglob("*"), *(scene.inputs / "data").rglob("*.png")):
        os.utime(path, (future, future))
    for before in (lambda: None, set_back):
        ended = scene.run(name, work, before)
        sound = gist(work) == scene.whole(name) and (ended.code == 0 or "exists" in ended.said)
        tally.add("same bytes" if sound else "other", "" if sound else ended.said[-400:])


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system than that of temporary files."""
    folder = Path(f"/dev/shm/fgdd-campaign-{os.getpid()}")
    if not folder.parent.is_dir() or folder.parent.stat().st_dev == Path("/tmp").stat().st_dev:
        pytest.skip("there is no other file system at /dev/shm")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", SAME)
def test_other_file_systems(name: str, scene: Scene, tally: Tally, tmp_path: Path, elsewhere: Path) -> None:
    """Results behind symbolic links, temporary files on another disk, and inputs that are links."""
    outs = {"distill": "out", "stream": "stream", "measure": "store"}
    for way in ("temporary", "linked folder", "linked result", "linked files"):
        work = scene.begin(name, tmp_path / "work")
        if way == "linked folder":
            work = scene.begin(name, elsewhere / "real")
            (tmp_path / "link").unlink(missing_ok=True)
            (tmp_path / "link").symlink_to(work)
            work = tmp_path / "link"
        elif way == "linked result" and (elsewhere / "linked").mkdir(exist_ok=True) is None:
            result = outs.get(name, "packed" if "pack" in name else "")
            if not result:
                continue
            shutil.rmtree(elsewhere / "linked")
            (elsewhere / "linked").mkdir()
            (work / result).symlink_to(elsewhere / "linked")
        elif way == "linked files":
            for path in [path for path in work.rglob("*") if path.is_file()]:
                target = elsewhere / path.name
                shutil.move(path, target)
                path.symlink_to(target)
        ended = scene.run(name, work, lambda: os.environ.update(TMPDIR=str(elsewhere)))
        found = gist(work)
        if way == "linked result" and found != scene.whole(name):
            found |= {f"{result}/{key}": value for key, value in gist(elsewhere / "linked").items()}
        sound = not ended.code and found == scene.whole(name)
        tally.add(
            f"{way}: {'same bytes' if sound else 'other'}", "" if sound else f"{way}: {ended.said[-400:]}"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_mount_point_as_result(scene: Scene, tally: Tally, tmp_path: Path) -> None:
    for name, result in {"distill": "out", "stream": "stream", "pack webdataset": "packed"}.items():
        work = scene.begin(name, tmp_path / "work")
        (work / result).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", work / result], check=True)
        try:
            ended = scene.run(name, work)
            told = ended.code == 1 and "mount point" in ended.said
            tally.add("refused" if told else "other", "" if told else f"{name}: {ended.said[-400:]}")
        finally:
            subprocess.run(["umount", "-l", work / result], check=True)


def test_soak(scene: Scene, tally: Tally, tmp_path: Path) -> None:
    """One process does small runs for a long time, good ones and bad ones: it holds no more at the end."""
    samples = tmp_path / "samples"
    child = Child(lambda: soak(scene, tmp_path, samples), tmp_path / "log")
    ended = child.wait()
    assert ended is not None
    rows = [[int(word) for word in line.split()] for line in samples.read_text().splitlines()]
    later = rows[len(rows) // 5 :]
    first, last = later[: len(later) // 2], later[len(later) // 2 :]
    means = [sum(row[0] for row in half) / len(half) / 1024 for half in (first, last)]
    tally.outcomes["run"] = len(rows)
    tally.figures |= {"memory_mib": [round(value, 1) for value in means], "minutes": number("SOAK", 20)}
    tally.figures |= {"files": [max(row[1] for row in half) for half in (first, last)]}
    tally.figures |= {"threads": [max(row[2] for row in half) for half in (first, last)]}
    if ended.fault:
        tally.bad.append(ended.fault)
    if means[1] > means[0] + max(4.0, 0.01 * means[0]):
        tally.bad.append(f"memory grew from {means[0]:.1f} to {means[1]:.1f} MiB")
    for name in ("files", "threads"):
        if tally.figures[name][1] > tally.figures[name][0]:
            tally.bad.append(f"{name} grew: {tally.figures[name]}")


def soak(scene: Scene, folder: Path, samples: Path) -> None:
    """Distil, label, verify, pack and fail, again and again, and note what is held after each round."""
    runtime = RuntimeOptions(device="cpu", threads=2)
    models = {
        "teacher": scene.inputs / "tiny-teacher.onnx",
        "foreground": str(scene.inputs / "tiny-foreground.onnx"),
    }
    tiles = {"ipc": 1, "factor": 2, "size": 16, "crops": 3, "runtime": runtime}
    end, place = time.monotonic() + 60 * number("SOAK", 20), 0
    while time.monotonic() < end:
        out = folder / "out"
        with samples.open("a") as file:
            rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
            print(rss, len([*Path("/proc/self/fd").iterdir()]), threading.active_count(), file=file)
        store = folder / f"store{place % 5}"
        shutil.rmtree(store, ignore_errors=True)
        fgdd_fast.distill(
            scene.inputs / "data", out, overwrite=True, store=store, seed=SEED + place, **models, **tiles
        )
        fgdd_fast.make_labels(out, teacher=models["teacher"], epochs=2, student_batch=2, runtime=runtime)
        assert fgdd_fast.verify(out, scene.inputs / "data").sound
        fgdd_fast.write_report(out, scene.inputs / "data")
        shutil.rmtree(folder / "packed", ignore_errors=True)
        fgdd_fast.pack(out, folder / "packed", format="webdataset")
        with pytest.raises(FgddError):
            fgdd_fast.pack(out, folder / "packed", format="webdataset")
        with pytest.raises(FgddError):
            fgdd_fast.verify(folder / "nothing")
        with pytest.raises(FgddError):
            fgdd_fast.distill(scene.inputs, folder / "bad", store=store, **models, **tiles)
        place += 1
