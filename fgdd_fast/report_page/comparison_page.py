"""Write the page that shows which tiles of two distilled data sets differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.output.distilled import DistilledSet, open_distilled
from fgdd_fast.output.folder import COMPARISON
from fgdd_fast.parallel import ordered_map, single_threaded_opencv
from fgdd_fast.report_page.classes import looked_for_foreground, printable
from fgdd_fast.report_page.comparison import Change, ClassComparison, PlacedTile, compare, differences
from fgdd_fast.report_page.facts import Fact
from fgdd_fast.report_page.pictures import BYTES_PER_PIXEL, encode_picture
from fgdd_fast.report_page.rendering import check_jinja, embedded, render, write_page
from fgdd_fast.runtime.choose import available_processors

_LARGEST, _SMALLEST = 160, 24  # sides of a tile's picture
_ROOM = 32e6  # bytes of all pictures


def write_comparison(
    out: str | Path,
    other: str | Path,
    *,
    path: str | Path | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write one HTML page that shows which tiles of two distilled data sets differ, and why.

    Args:
        out: a distilled data set, A.
        other: another one, B, of the same images as a rule.
        path: the file to write; `comparison.html` in `out` by default.
        threads: processor threads; all processors by default.
        progress: told how far it is.

    Returns:
        The file that was written.

    Raises:
        DataError: a manifest or a mosaic cannot be read.
        MissingExtraError: Jinja is not installed (`fgdd-fast[report]`).
        OutputError: the file cannot be written.
    """
    check_jinja()
    target = Path(out) / COMPARISON if path is None else Path(path)
    sets = (open_distilled(out), open_distilled(other))
    classes = list(compare(sets[0].manifest, sets[1].manifest))
    count = sum(len(_placed(change)) for each in classes for change in each.changes)
    side = min(_LARGEST, max(_SMALLEST, math.isqrt(int(_ROOM / max(count, 1) / BYTES_PER_PIXEL))))
    shown = []
    workers = threads or available_processors()
    with (
        progress.task("Comparing", len(classes)) as task,
        single_threaded_opencv(),
        ThreadPoolExecutor(workers, "compare") as executor,
    ):
        for each in ordered_map(executor, lambda one: _class_view(one, sets, side), classes, 2 * workers):
            shown.append(each)
            task.advance()
    write_page(target, render("comparison.html", "comparison.js", _view(sets, classes, shown)))
    return target


def _placed(change: Change) -> list[tuple[int, PlacedTile]]:
    """The tiles of a change, each with the number of its data set."""
    pair = (change.before, change.after)
    return [(number, placed) for number, placed in enumerate(pair) if placed is not None]


def _class_view(
    comparison: ClassComparison, sets: tuple[DistilledSet, DistilledSet], side: int
) -> Mapping[str, Any]:
    """What the page shows of a class; each mosaic with a changed tile is read once."""
    wanted = {(number, tile.image) for change in comparison.changes for number, tile in _placed(change)}
    tiles = {(number, image): sets[number].tiles(image) for number, image in sorted(wanted)}

    def shown(number: int, placed: PlacedTile) -> Mapping[str, Any]:
        tile = placed.tile
        return {
            "kind": int(tile.kind == "full"),
            "o": tile.occupancy if looked_for_foreground(sets[number].manifest) else None,
            "l": tile.loss,
            "box": list(tile.box),
            "picture": encode_picture(tiles[number, placed.image][placed.cell], side),
        }

    changes = [
        {
            "path": printable(_placed(change)[0][1].tile.source),
            "reason": printable(change.reason),
            "sides": [
                None if placed is None else shown(number, placed)
                for number, placed in enumerate((change.before, change.after))
            ],
        }
        for change in comparison.changes
    ]
    return {
        "name": printable(comparison.name),
        "same": comparison.same,
        "thresholds": comparison.thresholds,
        "only_a": sum(change.after is None for change in comparison.changes),
        "only_b": sum(change.before is None for change in comparison.changes),
        "other": sum(None not in (change.before, change.after) for change in comparison.changes),
        "data": embedded(changes),
    }


def _view(
    sets: tuple[DistilledSet, DistilledSet],
    classes: Sequence[ClassComparison],
    shown: Sequence[Mapping[str, Any]],
) -> Mapping[str, Any]:
    counts = {name: sum(each[name] for each in shown) for name in ("same", "only_a", "only_b", "other")}
    settings = [
        (printable(each.name), printable(each.before), printable(each.after))
        for each in differences(sets[0].manifest, sets[1].manifest)
    ]
    return {
        "figures": (
            Fact("tiles are the same", f"{counts['same']:,}"),
            Fact("images give another tile", f"{counts['other']:,}"),
            Fact("tiles in A alone", f"{counts['only_a']:,}"),
            Fact("tiles in B alone", f"{counts['only_b']:,}"),
            Fact(
                "classes differ", f"{sum(bool(each.changes) for each in classes):,}", f"of {len(classes):,}"
            ),
        ),
        "settings": settings,
        "classes": shown,
    }
