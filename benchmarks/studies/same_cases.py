"""The cases of `same_bytes` and `same_speed`: commands that one version of the project runs in a folder.

They need the standard library and NumPy, and import nothing of the project.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RUNTIME = ("--device", "cpu", "--precision", "fp32", "--batch", "1", "--threads", "2")
FOREGROUND = ("--foreground", "saliency-u2netp")  # which one version takes by default
PER_CLASS = {"clothing": 12, "demo": 6}  # images that are taken of each class
SHAPES = {"red disc": (215, 35, 45), "green square": (40, 170, 60), "blue disc": (45, 80, 200)}
ROWS_BEFORE_THE_KILL = 200  # of all tables of the store; a whole run leaves about 750


class CaseError(Exception):
    """A case cannot be run to its end."""


@dataclass(frozen=True)
class Version:
    """One version of the project, and the folder for what it makes, with a sub-folder for each case."""

    python: Path
    folder: Path
    words: Mapping[str, str]

    def start(self, case: str, *words: object) -> subprocess.Popen[bytes]:
        """Start a command in a case's folder; what it prints goes into a file beside that."""
        spelled = [self.words.get(str(word), str(word)) for word in words]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"FGDD_FAST_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "2"}
        environment["PYTHONHASHSEED"] = "0"  # version 0.1 lists the nodes kept in fp32 in the order of a set
        with (self.folder / f"{case}.log").open("ab") as log:
            log.write(f"$ {' '.join(spelled)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [str(self.python), "-m", "fgdd_fast", *spelled],
                cwd=self.folder / case,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, case: str, *words: object) -> None:
        """Run a command to its end, which must be a good one."""
        if self.start(case, *words).wait() != 0:
            raise CaseError(f"A command failed; see the end of {self.folder / case}.log")


@dataclass(frozen=True)
class Given:
    """What every version is given: photographs, checkpoints, and what `before` made in earlier cases."""

    clothing: Path | None
    miniatures: Path
    before: Path

    @property
    def teacher(self) -> Path:
        """The teacher of the demo's classes."""
        return self.before / "demo" / "demo" / "teacher.onnx"


def demo(version: Version, _: Given) -> None:
    """The whole demo: drawn pictures, a fitted teacher with its tile form, mosaics, contact sheet."""
    version.run("demo", "demo", "--out", "demo", *RUNTIME)


def drawn(version: Version, given: Given) -> None:
    """Several ways of selecting, formats and views, over one store."""
    sample(given.before / "demo" / "demo" / "data", version.folder / "drawn" / "data", PER_CLASS["demo"])
    common = ("--teacher", given.teacher, "--store", "store", *FOREGROUND, *RUNTIME)
    ranking = ("--ranking", "stratified-kmeans", "--near-duplicates", 8, "--least-area", 0.1)
    shown = ("--resize", "pil", "--score-view", "resize", "--size", 128, "--crops", 3, "--pool", 4)
    version.run("drawn", "distill", "data", "plain", "--ipc", 2, *common)
    version.run("drawn", "distill", "data", "ranked", "--ipc", 1, "--rule", "mean", *ranking, *common)
    version.run("drawn", "distill", "data", "rded", "--ipc", 2, "--rule", "always-patch", *common)
    version.run("drawn", "distill", "data", "small", "--ipc", 1, "--format", "jpg", *shown, *common)


def teacher(version: Version, given: Given) -> None:
    """A teacher fitted on photographs, and another tile form of it."""
    assert given.clothing is not None
    sample(given.clothing, version.folder / "teacher" / "data", PER_CLASS["clothing"])
    version.run("teacher", "teacher", "fit", "data", "-o", "teacher.onnx", *RUNTIME)
    version.run("teacher", "teacher", "tile", "teacher.onnx", "--tile", 64)


def clothing(version: Version, given: Given) -> None:
    """Photographs, with the teacher that `before` fitted on them."""
    made = given.before / "teacher"
    common = ("--teacher", made / "teacher.onnx", "--store", "store", *FOREGROUND, *RUNTIME)
    version.run("clothing", "distill", made / "data", "plain", "--ipc", 2, *common)


def export(version: Version, given: Given) -> None:
    """Grounded SAM 2 of the miniature checkpoints."""
    networks = ("--detector", given.miniatures / "grounding-dino", "--segmenter", given.miniatures / "sam2")
    form = ("--split", "--threads", 2)  # which earlier versions had to be asked for
    version.run("export", "export", "grounded-sam2", *networks, "-o", "grounded.onnx", *form)


def grounded(version: Version, given: Given) -> None:
    """The miniature Grounded SAM 2, exported by `before`, asked for drawn shapes; and given masks."""
    draw_shapes(version.folder / "grounded" / "data", version.folder / "grounded" / "masks")
    bundle, made = given.before / "export" / "grounded.onnx", given.before / "grounded" / "teacher.onnx"
    if not made.exists():
        version.run("grounded", "teacher", "fit", "data", "-o", "teacher.onnx", "--force", *RUNTIME)
    else:
        copy_bundle(made, version.folder / "grounded")
    common = ("--ipc", 2, "--teacher", "teacher.onnx", "--store", "store", *RUNTIME)
    prompts = version.folder / "grounded" / "prompts.txt"
    prompts.write_text("red disc\tred disc, red square\n", encoding="utf-8")
    asked = ("--foreground", bundle)
    version.run("grounded", "distill", "data", "asked", *asked, *common)
    looser = ("--prompts", prompts.name, "--box-threshold", 0.3)
    version.run("grounded", "distill", "data", "prompted", *asked, *looser, *common)
    version.run("grounded", "distill", "data", "masked", "--foreground", "masks:masks", *common)


def killed(version: Version, given: Given) -> None:
    """A run that is killed while it measures, once more while it writes, and goes on to the same end."""
    folder = version.folder / "killed"
    data = given.before / "drawn" / "data"
    words = ("--ipc", 2, "--teacher", given.teacher, "--store", "store", *FOREGROUND, *RUNTIME)
    moments: tuple[Callable[[], bool], ...] = (
        lambda: count_rows(folder / "store") > ROWS_BEFORE_THE_KILL,
        lambda: any(folder.glob(".plain.partial-*")),
    )
    for happens in moments:
        process = version.start("killed", "distill", data, "plain", *words)
        while process.poll() is None and not happens():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (folder / "plain").exists():
            raise CaseError("A run ended before it was killed.")
    version.run("killed", "distill", data, "plain", *words)
    for image in sorted((folder / "plain" / "images").rglob("*.png")):
        whole = given.before / "drawn" / image.relative_to(folder)
        if image.read_bytes() != whole.read_bytes():
            raise CaseError(f"{image} is another than where nothing was killed.")


def labels(version: Version, given: Given) -> None:
    """Labels of two epochs, then of a third, and compressed ones; students; repacked."""
    folder = version.folder / "labels"
    for name in ("plain", "top"):
        shutil.copytree(given.before / "drawn" / "plain", folder / name)
    common = ("--teacher", given.teacher, *RUNTIME)
    version.run("labels", "label", "plain", "--epochs", 2, "--size", 64, *common)
    version.run("labels", "label", "plain", "--epochs", 3, "--size", 64, *common)
    version.run("labels", "label", "top", "--epochs", 1, "--compress", "top:3", "--view", "native", *common)
    students = ("--architectures", "convnet3", "--seeds", 2, "--device", "cpu", "--threads", 1)
    held_out = ("--val", given.before / "drawn" / "data", "--json", "students.json")
    version.run("labels", "evaluate", "plain", *held_out, *students)
    for form in ("webdataset", "huggingface"):
        version.run("labels", "pack", "plain", form, "--to", form)


def convert(version: Version, given: Given) -> None:
    """Variants of a teacher and its tile form in int8 and in fp16."""
    copy_bundle(given.teacher, version.folder / "convert")
    few = ("--check-images", 2)
    samples = ("--calibrate", given.before / "drawn" / "data", "--calibration-images", 4)
    version.run("convert", "convert", "teacher.onnx", "--precision", "int8", *samples, *few)
    version.run("convert", "convert", "teacher.onnx", "--precision", "fp16", *few)


Case = Callable[[Version, Given], None]
# In this order: later cases take what `before` made in earlier ones.
CASES: Mapping[str, Case] = {
    case.__name__: case
    for case in (demo, drawn, teacher, clothing, export, grounded, killed, labels, convert)
}
NEEDS = {
    "drawn": ["demo"],
    "clothing": ["teacher"],
    "grounded": ["export"],
    "killed": ["demo", "drawn"],
    "labels": ["demo", "drawn"],
    "convert": ["demo", "drawn"],
}


def sample(folder: Path, target: Path, count: int) -> None:
    """Copy the first images of each class, by their names."""
    for of_class in sorted(path for path in folder.iterdir() if path.is_dir()):
        (target / of_class.name).mkdir(parents=True)
        for file in sorted(of_class.iterdir())[:count]:
            shutil.copy(file, target / of_class.name)


def copy_bundle(onnx: Path, target: Path) -> None:
    """Copy a bundle with what lies beside it under its name."""
    for file in onnx.parent.glob(f"{onnx.stem}.*"):
        shutil.copy(file, target)


def draw_shapes(data: Path, masks: Path, count: int = 6) -> None:
    """Draw one shape on an uneven ground in each picture, and its mask; the same at every call."""
    for place, (name, colour) in enumerate(SHAPES.items()):
        for folder in (data / name, masks / name):
            folder.mkdir(parents=True)
        for index in range(count):
            dice = np.random.default_rng([place, index])
            height, width = (240, 320) if index % 2 else (300, 220)
            pixels = dice.integers(90, 150, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
            pixels = pixels.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
            reach = dice.uniform(0.12, 0.38) * min(height, width)
            rows, columns = np.mgrid[:height, :width]
            y = (rows - dice.uniform(reach, height - reach)) / reach
            x = (columns - dice.uniform(reach, width - reach)) / reach
            mask = np.hypot(x, y) <= 1 if "disc" in name else np.maximum(abs(x), abs(y)) <= 0.7
            pixels[mask] = colour
            (data / name / f"{index}.png").write_bytes(png(pixels))
            (masks / name / f"{index}.png").write_bytes(png(np.where(mask, 255, 0).astype(np.uint8)))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 [height, width] or RGB [height, width, 3]."""
    height, width = pixels.shape[:2]
    rows = np.hstack([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)])
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows.tobytes()), b"IEND": b""}
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def count_rows(store: Path) -> int:
    """Count the rows of all tables of a store that a process writes to; 0 while it sets the store up."""
    files = list(store.glob("*.sqlite3"))
    if not (files and files[0].with_name(f"{files[0].name}-wal").exists()):
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{files[0]}?mode=ro", uri=True)) as database:
        try:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            counts = [database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in tables]
        except sqlite3.OperationalError:  # it is locked for a moment
            return 0
    return sum(counts)


def prepare_cache(folder: Path, models: Path | None) -> None:
    """Give a version a cache with the models that were pulled already, so that it need not pull them."""
    if models is not None and not (folder / "cache").exists():
        shutil.copytree(models, folder / "cache")
