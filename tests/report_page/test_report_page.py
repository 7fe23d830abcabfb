"""The report page: what it says, that it is the same for the same data, and what is left out of it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny_distillation import arguments, assert_refused
from tiny_report import write_reported

from fgdd_fast import RuntimeOptions, distill, write_report
from fgdd_fast.cli import main
from fgdd_fast.errors import DataError
from fgdd_fast.output.run_record import read_run_record
from fgdd_fast.report_page.classes import BINS, histogram
from fgdd_fast.report_page.facts import duration
from fgdd_fast.report_page.pictures import BYTES_PER_PIXEL, choose_sizes
from fgdd_fast.report_page.rendering import embedded

pytest.importorskip("jinja2", reason="Jinja is not installed")


def block(page: Path, name: str) -> Any:
    """The data that a page holds under a name."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text("utf-8"))
    assert found is not None
    return json.loads(found[1])


def report(folder: Path, **options: Any) -> Path:
    return write_report(folder / "out", folder / "data", **options)


def test_the_page_says_what_was_done(tmp_path: Path) -> None:
    write_reported(tmp_path / "out", data=True)
    page = report(tmp_path)
    text = page.read_text("utf-8")
    assert page == tmp_path / "out" / "report.html"
    for said in ("quantile:0.3", "40 images, 20 a second", "4 mosaics, 8 a second", "Abacus, 2 threads"):
        assert said in text
    assert "The beads are loose." in text
    assert "<code>cat/broken.jpg</code> truncated" in text
    assert "The source images" not in text
    cat = block(page, "facts-0")
    assert (cat["name"], cat["threshold"], sum(cat["below"]), sum(cat["above"])) == ("cat", 0.5, 5, 5)
    assert [tile[3] for tile in cat["tiles"]] == [1, 3, 5, 7, 2, 4, 6, 8]  # ranks, mosaic by mosaic
    assert [(near["o"], near["k"], near["chosen"]) for near in cat["near"]] == [
        (0.48, 0, False),
        (0.52, 1, False),
    ]
    assert cat["skipped"] == [["cat/broken.jpg", "truncated"]]
    pictures = block(page, "pictures-0")
    assert (len(pictures["mosaics"]), len(pictures["sources"]), None in pictures["sources"]) == (2, 10, False)


def test_the_same_data_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    for place in ("one", "other"):
        write_reported(tmp_path / place / "out", data=True)
    one = report(tmp_path / "one", threads=1).read_bytes()
    assert report(tmp_path / "other", threads=3).read_bytes() == one
    assert str(tmp_path).encode() not in one
    assert re.findall(rb"(?:src|href)=\"(?!#)[^\"]*", one) == []


def test_sources_that_are_gone_or_changed_are_counted(tmp_path: Path) -> None:
    write_reported(tmp_path / "out", data=True)
    (tmp_path / "data/cat/0.png").unlink()
    (tmp_path / "data/cat/1.png").write_bytes((tmp_path / "data/cat/2.png").read_bytes())
    page = report(tmp_path)
    assert "2 of 20 source images are gone, changed or cannot be read" in page.read_text("utf-8")
    assert block(page, "pictures-0")["sources"].count(None) == 2
    page = write_report(tmp_path / "out", tmp_path / "nowhere", path=tmp_path / "new" / "page.html")
    assert "The source images were not found where they were looked for" in page.read_text("utf-8")


def test_an_older_data_set_has_no_record(tmp_path: Path) -> None:
    write_reported(tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()
    page = write_report(tmp_path / "out")
    assert "The record of the run (run.json) is not beside the manifest" in page.read_text("utf-8")
    assert block(page, "facts-0")["images"] is None


def test_a_mosaic_that_is_damaged_is_named(tmp_path: Path) -> None:
    write_reported(tmp_path / "out")
    (tmp_path / "out/images/cat/cat_00000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"The mosaic .* cannot be shown"):
        write_report(tmp_path / "out")


@given(st.lists(st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_data_within_the_page_stay_data(data: Any) -> None:
    text = embedded(data)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == data


@given(
    st.lists(st.floats(0, 1), min_size=1),
    st.none() | st.floats(0, 1),
)
def test_a_histogram_counts_everything_once(values: list[float], threshold: float | None) -> None:
    below, above = histogram(values, threshold)
    assert sum(below) + sum(above) == len(values)
    assert len(below) == len(above) == BINS
    assert threshold is not None or not any(below)


@given(st.tuples(*[st.integers(0, 3000)] * 4), st.integers(16, 300), st.floats(1e5, 1e8))
def test_pictures_keep_to_their_room(counts: tuple[int, int, int, int], side: int, room: float) -> None:
    sizes = choose_sizes(counts, side, room)
    sides = (sizes.mosaic, sizes.near, sizes.crop, sizes.whole)
    assert all(value <= 320 for value in sides)
    assert sizes.mosaic <= max(side, 32)
    least = counts[0] * 32 * 32 * BYTES_PER_PIXEL
    cost = sum(count * value**2 * BYTES_PER_PIXEL * 0.8 for count, value in zip(counts, sides, strict=True))
    assert cost <= max(room, least) * 1.05


def test_a_page_keeps_to_its_size(tmp_path: Path) -> None:
    write_reported(tmp_path / "out", ["cat"], ipc=130, data=True)
    assert "To keep this page small" not in report(tmp_path).read_text("utf-8")
    page = report(tmp_path, max_megabytes=1)
    assert page.stat().st_size < 1.05e6
    assert "To keep this page small, the source images of whole tiles are not in it" in page.read_text(
        "utf-8"
    )


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.123, "0.12 s"), (59.4, "59 s"), (200, "3 min 20 s"), (8000, "2 h 13 min")]
)
def test_times_are_said_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_distill_ends_with_a_report(workplace: Path) -> None:
    words = [word for word in arguments(workplace) if word != "--no-report"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    page = workplace / "out" / "report.html"
    assert f"Report: {page}" in result.output
    assert None not in block(page, "pictures-0")["sources"]
    assert all(source[3] for source in block(page, "facts-0")["sources"]), "foregrounds are outlined"
    result = CliRunner().invoke(main, [*words, "--overwrite", "--no-report"])
    assert result.exit_code == 0, result.output
    assert not page.exists()


def test_without_a_foreground_the_page_speaks_of_none(workplace: Path) -> None:
    words = [word for word in arguments(workplace, foreground=None) if word != "--no-report"]
    assert CliRunner().invoke(main, words).exit_code == 0
    page = (workplace / "out" / "report.html").read_text(encoding="utf-8")
    assert "Every image is kept whole" in page
    assert "<label hidden><span>Occupancy" in page
    assert 'value="threshold"' not in page
    assert 'class="spark"' not in page
    record = read_run_record(workplace / "out")
    assert record is not None
    assert len(record.sources) == 12, "each tile's image is there, with its size"
    assert {source.outline for source in record.sources.values()} == {None}


def test_what_is_odd_about_the_data_stands_in_the_report(workplace: Path) -> None:
    (workplace / "data" / "red" / "copy.png").write_bytes((workplace / "data/blue/00.png").read_bytes())
    words = [word for word in arguments(workplace) if word != "--no-report"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    text = (workplace / "out" / "report.html").read_text("utf-8")
    assert re.search(r"<li>The same image lies in two classes.*\(error: two-classes\)</li>", text), (
        result.output
    )


def test_python_may_add_remarks(workplace: Path) -> None:
    distill(
        workplace / "data",
        workplace / "out",
        report=True,
        remarks=["The moon was full."],
        teacher=workplace / "tiny-teacher.onnx",
        foreground=str(workplace / "tiny-foreground.onnx"),
        store=workplace / "store",
        runtime=RuntimeOptions(device="cpu", threads=1),
        ipc=1,
        size=16,
    )
    assert "<li>The moon was full.</li>" in (workplace / "out" / "report.html").read_text("utf-8")


def test_without_jinja_distill_goes_on(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    words = [word for word in arguments(workplace) if word != "--no-report"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if "No report" in line]
    assert "pip install 'fgdd-fast[report]'" in line
    assert (workplace / "out" / "manifest.json").is_file()
    result = CliRunner().invoke(main, ["report", str(workplace / "out")])
    assert_refused(result, "'jinja2' is not installed", "fgdd-fast[report]")


def test_the_command_writes_either_page(tmp_path: Path) -> None:
    write_reported(tmp_path / "out", data=True)
    write_reported(tmp_path / "other", ipc=1)
    for words, made in (
        ([], "out/report.html"),
        (["data"], "out/report.html"),
        (["other"], "out/comparison.html"),
        (["other", "-o", str(tmp_path / "page.html")], "page.html"),
    ):
        (tmp_path / made).unlink(missing_ok=True)
        named = [str(tmp_path / word) if word in ("data", "other") else word for word in words]
        result = CliRunner().invoke(main, ["report", str(tmp_path / "out"), *named])
        assert (result.exit_code, result.stdout) == (0, f"{tmp_path / made}\n")
        assert (tmp_path / made).is_file()
    assert_refused(CliRunner().invoke(main, ["report", str(tmp_path / "data")]), "There is no manifest")
