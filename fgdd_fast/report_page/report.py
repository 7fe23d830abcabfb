"""Write the page that shows a distilled data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.images.dataset import is_there, locate
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.folder import REPORT
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.run_record import RunRecord, read_run_record
from fgdd_fast.report_page.classes import ClassPage, class_pages, looked_for_foreground, rule_of
from fgdd_fast.report_page.facts import overview
from fgdd_fast.report_page.pictures import (
    ClassPictures,
    Sizes,
    all_hashes,
    choose_sizes,
    class_pictures,
    count_pictures,
)
from fgdd_fast.report_page.rendering import check_jinja, embedded, render, write_page
from fgdd_fast.runtime.choose import available_processors
from fgdd_fast.selection.thresholds import RULE_KINDS

MEGABYTES = 48.0  # of a page
_OPENED = 1  # classes that are open when the page is
_BASE64 = 3 / 4  # of its length is content


def write_report(
    out: str | Path,
    data: str | Path | None = None,
    *,
    path: str | Path | None = None,
    max_megabytes: float = MEGABYTES,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write one HTML page that shows what was distilled, and why; it needs nothing but a browser.

    Each tile is shown in the image that it comes from, with the foreground's outline, the box, occupancy,
    threshold, loss and rank. The same OUT and DATA give the same bytes. No model is run: what was found
    stands in the record of the run, `OUT/run.json`.

    Args:
        out: the distilled data set.
        data: the folder or the list that it was made from. Without it, or for images that are gone or
            changed since, tiles are shown as their mosaics have them, and the page says so.
        path: the file to write; `OUT/report.html` by default.
        max_megabytes: about how large the page may become, at least 1: pictures are as small as that needs.
        threads: processor threads; all processors by default.
        progress: told how far it is.

    Returns:
        The file that was written.

    Raises:
        DataError: the manifest or a mosaic cannot be read.
        MissingExtraError: Jinja is not installed (`fgdd-fast[report]`).
        OutputError: the file cannot be written.
    """
    check_jinja()
    out, data = Path(out), None if data is None else Path(data)
    target = out / REPORT if path is None else Path(path)
    distilled, record = open_distilled(out), read_run_record(out)
    pages = list(class_pages(distilled.manifest, record))
    facts = [embedded(page.data) for page in pages]
    shown = locate(data) if data is not None and is_there(data) else None
    room = (max(max_megabytes, 1.0) * 1e6 - sum(map(len, facts))) * _BASE64
    sizes = choose_sizes(count_pictures(pages, sources=shown is not None), distilled.size, max(room, 1e5))
    hashes = all_hashes(pages, record.sources if record else {})
    workers = threads or available_processors()
    classes, unreadable = [], 0
    with progress.task("Drawing the report", len(pages)) as task:
        made = class_pictures(
            pages, out, shown, hashes, sizes, sixteen_bit=_sixteen_bit(distilled.manifest), threads=workers
        )
        for page, fact, pictures in zip(pages, facts, made, strict=True):
            classes.append(_summary(page, fact, pictures))
            unreadable += pictures.unreadable
            task.advance()
    view = _view(distilled.manifest, record, classes, _on_sources(data, sizes, unreadable, pages))
    write_page(target, render("page.html", "page.js", view))
    return target


def _sixteen_bit(manifest: Manifest) -> SixteenBit:
    return "scale" if manifest.settings.get("sixteen_bit") == "scale" else "shift"


@dataclass(frozen=True)
class ClassSummary:
    """What the page shows of a class before it is opened, and the data of the rest.

    Attributes:
        name: the class.
        threshold: from which occupancy its images are kept whole; None where the rule knows none.
        images: that were measured; None where that is not known.
        whole, crops: its tiles.
        loss: the mean of its tiles' losses.
        below, above: the parts of a small histogram of occupancies, as paths in 120 by 26.
        data, pictures: JSON to be embedded.
    """

    name: str
    threshold: float | None
    images: int | None
    whole: int
    crops: int
    loss: float
    below: str
    above: str
    data: str
    pictures: str


def _summary(page: ClassPage, fact: str, pictures: ClassPictures) -> ClassSummary:
    tiles = [tile for image in page.images for tile in image.tiles]
    whole = sum(tile.kind == "full" for tile in tiles)
    return ClassSummary(
        name=page.data["name"],
        threshold=page.data["threshold"],
        images=page.data["images"],
        whole=whole,
        crops=len(tiles) - whole,
        loss=sum(tile.loss for tile in tiles) / max(len(tiles), 1),
        below=_bars(page.data["below"], page.data["above"], below=True),
        above=_bars(page.data["below"], page.data["above"], below=False),
        data=fact,
        pictures=embedded({"mosaics": pictures.mosaics, "sources": pictures.sources}),
    )


def _bars(low: Sequence[int], high: Sequence[int], *, below: bool) -> str:
    """The bars of a small histogram below its threshold, or those above, which stand on them."""
    highest = max(map(sum, zip(low, high, strict=True))) or 1
    path = []
    for place, pair in enumerate(zip(low, high, strict=True)):
        heights = [26 * count / highest for count in pair]
        foot, height = (26.0, heights[0]) if below else (26 - heights[0], heights[1])
        if height:
            path.append(f"M{place * 120 // len(low)} {foot:.1f}h2v-{height:.1f}h-2z")
    return "".join(path)


def _on_sources(data: Path | None, sizes: Sizes, unreadable: int, pages: Sequence[ClassPage]) -> str:
    """What is said of source images that are not shown; empty where all are."""
    instead = "tiles are shown as their mosaics have them, without what lies around a crop"
    total = sum(len(page.sources) for page in pages)
    if data is None:
        return f"The source images were not given to this report: {instead}."
    if not is_there(data) or unreadable == total:
        return f"The source images were not found where they were looked for: {instead}."
    said = []
    if unreadable:
        said.append(
            f"{unreadable:,} of {total:,} source images are gone, changed or cannot be read: {instead}."
        )
    if 0 in (sizes.near, sizes.crop, sizes.whole):
        left_out = [
            name
            for name, side in (
                ("nearest to a threshold", sizes.near),
                ("of crops", sizes.crop),
                ("of whole tiles", sizes.whole),
            )
            if not side
        ]
        said.append(
            f"To keep this page small, the source images {' and '.join(left_out)} are not in it: {instead}. "
            "A larger --max-megabytes has room for them."
        )
    return " ".join(said)


def _view(
    manifest: Manifest, record: RunRecord | None, classes: Sequence[ClassSummary], on_sources: str
) -> Mapping[str, Any]:
    rule = rule_of(manifest)
    settings = {
        "always": None if rule is None else RULE_KINDS[rule.kind].always,
        "control": None if rule is None else rule.control,
        "searched": looked_for_foreground(manifest),
        **{
            name: manifest.settings.get(name)
            for name in ("rule", "ranking", "crops", "keep_foreground", "least_area", "factor")
        },
    }
    return {
        "overview": overview(manifest, record),
        "on_sources": on_sources,
        "classes": classes,
        "opened": _OPENED,
        "settings": embedded(settings),
        "recorded": record is not None,
        "always": settings["always"],
        "searched": settings["searched"],
    }
