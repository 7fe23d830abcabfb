"""A workplace for each command of the campaign: what it begins with, and gives if nothing disturbs it."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import tiny_pipeline as tiny
from campaigning import Ended, run
from tiny_convolutions import convolutional_teacher

from fgdd_fast.measurement.store import FILE_NAME
from fgdd_fast.output.folder import RUN_RECORD

_NATIVE = ("cuda", "tensorrt_rtx", "tensorrt")  # which are not to be forked

_MODELS = (
    "--teacher {inputs}/tiny-teacher.onnx --foreground {inputs}/tiny-foreground.onnx --device cpu --threads 2"
)
_TILES = "--ipc 1 --factor 2 --size 16 --crops 3"

COMMANDS = {
    "measure": f"measure {{inputs}}/data {_MODELS} --store {{work}}/store --factor 2 --size 16 --crops 3",
    "distill": f"distill {{inputs}}/data {{work}}/out {_MODELS} {_TILES} --store {{work}}/store",
    "label": "label {work}/out --teacher {inputs}/tiny-teacher.onnx --epochs 30 --student-batch 2 "
    "--device cpu",
    "teacher fit": "teacher fit {inputs}/data -o {work}/fitted.onnx --backbone {inputs}/tiny-backbone.onnx "
    "--device cpu --threads 2",
    "pack webdataset": "pack {inputs}/labelled {work}/packed --to webdataset --shard-size 1",
    "pack huggingface": "pack {inputs}/labelled {work}/packed --to huggingface",
    "export": "export teacher {inputs}/checkpoint -o {work}/exported.onnx --check-images 2",
    "convert": "convert {work}/teacher.onnx --precision fp16 --check-images 4",
    "stream": f"stream {{inputs}}/data {{work}}/stream --once --checkpoint 0.01 {_MODELS} {_TILES}",
    "report": "report {work}/out {inputs}/data",
    "tune": "tune {inputs}/data --teacher {work}/teacher.onnx --foreground none --precisions int8 --images 4",
    "engine build": "engine build {work}/teacher.onnx --device tensorrt-rtx --precision fp32 "
    "--check-images 2",
}
SAME = tuple(COMMANDS)[:9]
"""Those that give the same bytes, whatever came before."""
_BEGUN = {"label": ("out",), "report": ("out",)}
_BEGUN |= dict.fromkeys(("convert", "tune", "engine build"), ("teacher.onnx", "teacher.json"))


class Scene:
    """Inputs that commands do not change, and folders in which they work.

    Attributes:
        folder: of everything.
        inputs: read alone.
        log: the file of what children say.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.inputs, self.log = folder, folder / "inputs", folder / "log"
        self._begun, self._whole = folder / "begun", dict[str, dict[str, str]]()
        self._begun.mkdir()
        tiny.write_squares(self.inputs / "data", 8)
        for make in (tiny.foreground_bundle, tiny.teacher_bundle, tiny.backbone_bundle):
            make(self.inputs)
        convolutional_teacher(self._begun)
        os.environ["FGDD_FAST_CACHE"] = str(folder / "cache")
        assert not self.run("distill", self._begun).fault
        shutil.copytree(self._begun / "out", self.inputs / "labelled")
        words = self.words("label", self._begun)
        assert not run(["label", str(self.inputs / "labelled"), *words[2:]], self.log).code
        made = run([], self.log, self._checkpoint)
        assert made.code in (0, 2), made.said

    def _checkpoint(self) -> None:
        from tiny_classifiers import save_pretrained

        save_pretrained(self.inputs / "checkpoint", "resnet")

    def words(self, name: str, work: Path) -> list[str]:
        """The command line of a command that works in a folder."""
        return COMMANDS[name].format(inputs=self.inputs, work=work).split()

    def run(self, name: str, work: Path, before: Callable[[], object] = lambda: None) -> Ended:
        """Run a command to its end in a folder, in which its cache lies as well."""
        return run(self.words(name, work), self.log, lambda: (cached_in(work), before()))

    def begin(self, name: str, work: Path) -> Path:
        """Make a folder what a command begins with."""
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        for part in _BEGUN.get(name, ()):
            made = self._begun / part
            (shutil.copytree if made.is_dir() else shutil.copy2)(made, work / part)
        return work

    def whole(self, name: str) -> dict[str, str]:
        """What a command gives that nothing disturbs: see `gist`."""
        if name not in self._whole:
            work = self.begin(name, self.folder / "whole")
            ended = self.run(name, work)
            assert ended.code == 0, ended.said
            self._whole[name] = gist(work)
            for module in self.log.with_suffix(".modules").read_text().splitlines():
                if module not in sys.modules and module.partition(".")[0] not in _NATIVE:
                    with suppress(ImportError):
                        importlib.import_module(module)  # once, and not in every child
        return self._whole[name]


def cached_in(work: Path) -> None:
    """Let the cache lie in a folder."""
    os.environ["FGDD_FAST_CACHE"] = str(work / "cache")


def gist(work: Path) -> dict[str, str]:
    """The hashes of all files of a folder that a user sees, and of the rows of a store.

    Not of records of runs, which hold times; of candidates and a cache, which are no results.
    """
    found: dict[str, str] = {}
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.name == FILE_NAME:
            with closing(sqlite3.connect(path)) as database:
                rows = (row for row in database.iterdump() if not row.startswith('INSERT INTO "files"'))
                content = "\n".join(sorted(rows)).encode()  # but for what tells files apart: their times
        elif path.is_file() and not (path.name in (RUN_RECORD, "report.html") or hidden(name)):
            content = path.read_bytes()
        else:
            continue
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def hidden(name: str) -> bool:
    """Whether a file is none that a user looks for, or its bytes are not those of the results."""
    return name.startswith("cache/") or "/." in f"/{name}" or "candidates" in name or f"{FILE_NAME}-" in name


def broken(scene: Scene, name: str, work: Path, moment: str) -> str:
    """What is half there under a final name where a command was stopped."""
    if name == "stream" and (work / "stream").exists():
        ended = run(["verify", str(work / "stream"), str(scene.inputs / "data")], scene.log)
        return "" if ended.code == 0 else f"{moment}: {ended.said[-500:]}"
    if name in ("measure", "tune", "engine build"):
        return ""  # a store or a cache is sound if the next run takes it
    whole, progress = scene.whole(name), {"out/labels/labels.json", "store/measurements.sqlite3"}
    found = {key: value for key, value in gist(work).items() if key not in progress and not hidden(key)}
    half = [key for key, value in found.items() if whole.get(key) != value]
    return f"{moment}: {half}" if half else ""


def unfinished(path: Path) -> bool:
    """Whether a file or folder is one that the next run should have cleared away."""
    return path.name.endswith((".part", ".staging", ".merging")) or ".partial-" in path.name
