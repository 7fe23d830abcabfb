"""Several distilled streams made into one, from what each of them kept; no image is read, no model runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.output.folder import check_output, writing
from fgdd_fast.output.run_record import RunLog
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.streaming.candidate_format import boxes_of, candidates_path, check_same, read_fact
from fgdd_fast.streaming.candidates import Candidates
from fgdd_fast.streaming.checkpoint import COUNTS, HOW, SKIPPED, Written, settings_from, write_checkpoint

MERGED = "merged"  # the setting that names what was merged
_PARTIAL = ".merging"


def merge(
    outs: Sequence[str | Path], out: str | Path, *, overwrite: bool = False, progress: Progress = SILENT
) -> Written:
    """Merge distilled streams, such as those of several boards, into one.

    Samples are joined, thresholds set anew, and the kept candidates ranked together. As long as no class
    outgrew its sample, the tiles are those of one stream that saw all images. Sources are named after the
    folder that they come from, as in `board1/dress/1.jpg`.

    Args:
        outs: at least two folders, each with its file `OUT.candidates` beside it; their names differ.
        out: the folder to write, with `OUT.candidates` beside it.
        overwrite: whether an older distilled data set at `out` may be replaced.
        progress: told of each folder.

    Raises:
        SettingsError: they were made by different settings or models.
        DataError: one has no candidates, or no class has enough images.
        OutputError: OUT cannot be written.
    """
    out, folders = Path(out), [Path(each) for each in outs]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < max(2, len(names)):
        raise SettingsError(
            "Merging takes at least two folders whose names differ", "Rename them, each with its candidates."
        )
    for folder in folders:
        check_output(out, folder, overwrite=overwrite)
    how = _agreed(folders)
    how["settings"][MERGED] = ", ".join(names)
    settings, reservoir = settings_from(how), int(how["settings"]["reservoir"])
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        boards = [
            stack.enter_context(closing(Candidates(candidates_path(each), settings, reservoir=reservoir)))
            for each in folders
        ]
        with _new_candidates(out, settings, reservoir) as merged:
            for board in boards:
                for class_name in board.classes:
                    merged.join_sample(class_name, board)
            counts, skipped = Counter[str](), list[list[str]]()
            with progress.task("Merging", len(boards)) as task:
                for name, board in zip(names, boards, strict=True):
                    _join(merged, board, name)
                    counts.update(board.fact(COUNTS) or {})
                    skipped += [[f"{name}/{source}", reason] for source, reason in board.fact(SKIPPED) or ()]
                    task.advance()
            for fact, value in {HOW: how, COUNTS: counts, SKIPPED: skipped}.items():
                merged.keep_fact(fact, value)
            merged.commit()
            return write_checkpoint(merged, out, settings, RunLog(), threads=1)


def _agreed(folders: Sequence[Path]) -> dict[str, Any]:
    """How all of them were made; SettingsError where two differ."""
    found: dict[str, Any] = {}
    runtimes: dict[str, None] = {}
    for folder in folders:
        path = candidates_path(folder)
        if not path.is_file():
            raise DataError(
                f"There are no candidates {path}",
                f"Copy them beside {folder}: they are what 'fgdd-fast stream' keeps, and merging needs them.",
            )
        how = read_fact(path, HOW)
        how["settings"].pop(MERGED, None)
        found = found or how
        check_same(
            how, found, path, "Streams are merged that were made alike, with the same seed and models."
        )
        runtimes |= dict.fromkeys(how["runtime"].split(" + "))
    return {**found, "runtime": " + ".join(runtimes)}


@contextmanager
def _new_candidates(out: Path, settings: MosaicSettings, reservoir: int) -> Iterator[Candidates]:
    """A file of candidates that is put in place once the block has ended."""
    path = candidates_path(out)
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    with writing(path):
        partial.unlink(missing_ok=True)
        try:
            with closing(Candidates(partial, settings, reservoir=reservoir)) as candidates:
                yield candidates
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _join(merged: Candidates, board: Candidates, name: str) -> None:
    """Take the candidates of one of them."""
    for class_name in board.classes:
        for record in board.records(class_name):
            tiles = {box: board.tile(class_name, record.sha256, box) for box in boxes_of(record)}
            merged.keep(replace(record, source=f"{name}/{record.source}"), tiles)
