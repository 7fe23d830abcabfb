"""The command line run on data sets of several sizes, each time in a process of its own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.scale.growth import Command, Run
from benchmarks.studies.scale.many_images import make_data_set
from fgdd_bench.machine.child import run_alone
from fgdd_engines.child_python import python_command
from fgdd_fast.errors import FgddError
from fgdd_fast.images.dataset import SourceImage

_SAID = re.compile(r"^(\d+) images measured in .*; (\d+) were known; (\d+) skipped\.$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every command is told.

    Attributes:
        options: of `fgdd-fast measure`, models and threads among them, without the pool and the store.
        ipc: mosaics of each class that `fgdd-fast distill` writes.
    """

    options: tuple[str, ...]
    ipc: int


@dataclass(frozen=True)
class SizeRuns:
    """What the commands took on one number of images.

    Attributes:
        runs: one of each command, in order.
        links, copies: how the images were made.
        store_bytes: of the store's files, once everything is measured.
    """

    runs: tuple[Run, ...]
    links: int
    copies: int
    store_bytes: int


def run_size(
    photographs: Sequence[SourceImage], images: int, setup: Setup, notice: Callable[[str], None]
) -> SizeRuns:
    """Measure a number of images, measure them again, and distil them, on one store.

    Args:
        photographs: what the images are made of; see `make_data_set`.
        images: how many.
        setup: options.
        notice: told what is run next.

    Raises:
        FgddError: a command failed, or did not do what it should; the message has its words.
    """
    with tempfile.TemporaryDirectory(prefix="fgdd-fast-scale-") as name:
        data, store, out = (Path(name, part) for part in ("data", "store", "out"))
        notice("linking")
        made = make_data_set(photographs, images, data)

        def run(command: Command, *words: str) -> Run:
            notice(command)
            common = ("--pool", "all", "--store", str(store), *setup.options)
            outcome = run_alone(python_command("fgdd_fast", *words, *common))
            if outcome.usage.status:
                raise FgddError(f"'fgdd-fast {words[0]}' failed on {images} images: {outcome.errors[-1000:]}")
            if words[0] == "measure":
                _check(outcome.output, images, known=command == "measure again")
            return Run(images, command, outcome.usage)

        measured = run("measure", "measure", str(data)), run("measure again", "measure", str(data))
        size = sum(file.stat().st_size for file in store.iterdir())
        distilled = run("distill", "distill", str(data), str(out), "--ipc", str(setup.ipc))
        return SizeRuns((*measured, distilled), made.links, made.copies, size)


def _check(output: str, images: int, *, known: bool) -> None:
    """Refuse figures of a run that did not measure every image, or, the second time, did measure one."""
    said = _SAID.search(output)
    expected = (0, images, 0) if known else (images, 0, 0)
    if said is None or tuple(map(int, said.groups())) != expected:
        raise FgddError(f"'fgdd-fast measure' was to measure {images} images, and said: {output.strip()}")
