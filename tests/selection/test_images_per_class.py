"""Images per class as a number, and as numbers by class, through all that reads a distilled data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny_distillation import assert_refused, contents, distill

import fgdd_fast
from fgdd_fast.cli.main import main
from fgdd_fast.errors import SettingsError
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.selection.images_per_class import images_per_class_text, parse_images_per_class


@given(
    st.integers(0, 99),
    st.dictionaries(st.from_regex("[a-z][a-z, -]{0,6}", fullmatch=True), st.integers(1, 99)),
)
def test_what_is_written_is_read_again(others: int, by_class: dict[str, int]) -> None:
    if others or by_class:
        written = images_per_class_text(others, by_class)
        assert parse_images_per_class(written) == (others, by_class)


@pytest.mark.parametrize("asked", ["", "0", "-1", "many", "red=", "red=0", "red=1,,", "red=1,red=2", "1,2"])
def test_what_is_no_number_is_refused(asked: str) -> None:
    with pytest.raises(SettingsError):
        parse_images_per_class(asked)


def test_classes_get_the_numbers_asked_for_in_everything_that_follows(workplace: Path) -> None:
    result = distill(workplace, ipc="1,red=3", pool="all")
    assert result.exit_code == 0, result.output
    out, data = workplace / "out", str(workplace / "data")
    manifest = read_manifest(out)
    assert manifest.settings["ipc"] == "1,red=3"
    counts = Counter(image.class_name for image in manifest.images)
    assert counts["red"] == 3
    assert set(counts.values()) == {1, 3}
    for name in counts:
        assert len(list((out / "images" / name).iterdir())) == counts[name]
    teacher, store = str(workplace / "tiny-teacher.onnx"), str(workplace / "store")
    gone = manifest.images[0].tiles[0].source
    model = ("--foreground", str(workplace / "tiny-foreground.onnx"), "--device", "cpu")
    for words in (
        ("verify", str(out), data),
        ("report", str(out), data),
        ("label", str(out), "--teacher", teacher, "--epochs", "2", "--device", "cpu"),
        ("verify", str(out), data),
        ("distill", data, str(workplace / "again"), "--no-report", "--from-manifest", str(out)),
        ("forget", str(out), gone, "--data", data, "--teacher", teacher, "--store", store, *model),
    ):
        ran = CliRunner().invoke(main, words)
        assert ran.exit_code == 0, (words, ran.output)
    assert contents(workplace / "again" / "images")
    after = read_manifest(out)
    assert Counter(image.class_name for image in after.images) == counts
    assert gone not in {tile.source for image in after.images for tile in image.tiles}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("1,rad=2", ("There is no class 'rad'", "Is it 'red'?")),
        ("red=2", ("No number of images is given for", "10,dress=5")),
        ("1,red=999", ("The class 'red' is too small",)),
        ("red", ("says no number of images per class",)),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_the_long_work(
    workplace: Path, asked: str, words: tuple[str, ...]
) -> None:
    assert_refused(distill(workplace, ipc=asked), *words)
    assert not (workplace / "store").exists()


def test_a_mapping_and_a_number_give_what_the_text_gives(workplace: Path) -> None:
    options: dict[str, Any] = {
        "teacher": workplace / "tiny-teacher.onnx",
        "store": workplace / "store",
        "size": 16,
        "runtime": fgdd_fast.RuntimeOptions(device="cpu"),
    }
    names = [folder.name for folder in (workplace / "data").iterdir()]
    for out, ipc in {"number": 2, "text": "2", "mapping": dict.fromkeys(names, 2)}.items():
        fgdd_fast.distill(workplace / "data", workplace / out, ipc=ipc, **options)
    assert contents(workplace / "number") == contents(workplace / "text")
    assert contents(workplace / "number" / "images") == contents(workplace / "mapping" / "images")


def test_as_many_are_made_as_fit_into_so_many_bytes(workplace: Path) -> None:
    sizes = {}
    for ipc in (1, 2, 3):
        assert distill(workplace, f"of-{ipc}", ipc=ipc, pool="all").exit_code == 0
        files = (workplace / f"of-{ipc}" / "images").rglob("*.png")
        sizes[ipc] = sum(file.stat().st_size for file in files)
    for most, ipc in ((sizes[2], 2), (sizes[3] - 1, 2), (sizes[1], 1)):
        result = distill(workplace, "out", "--overwrite", ipc=f"{most / 1000:.3f}kB", pool="all")
        assert result.exit_code == 0, result.output
        assert contents(workplace / "out") == contents(workplace / f"of-{ipc}")
    assert_refused(distill(workplace, "none", ipc="0.1kB"), "One image per class takes", "--format jpg")
    everything = distill(workplace, "out", "--overwrite", ipc="1GB", pool="all")
    assert everything.exit_code == 0, everything.output
    assert read_manifest(workplace / "out").settings["ipc"] > 3


@pytest.mark.parametrize("asked", ["0kB", "5 B", "5mb"])
def test_what_is_no_number_of_bytes_is_refused(asked: str) -> None:
    with pytest.raises(SettingsError):
        parse_images_per_class(asked)
