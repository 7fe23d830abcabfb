"""Repacking: the order of samples, their shards, and a folder that appears whole or not at all."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny_distilled import ODD_CLASSES, noise, write_distilled, write_labels

from fgdd_fast import pack
from fgdd_fast.cli import main
from fgdd_fast.errors import DataError, MissingExtraError, OutputError, SettingsError
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.packing import samples
from fgdd_fast.packing.pack import FORMATS
from fgdd_fast.packing.samples import Pack, round_the_classes


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_distilled(tmp_path / "out", ODD_CLASSES, ipc=3)
    return tmp_path / "out"


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    if request.param == "huggingface":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    return str(request.param)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(st.lists(st.integers(0, 5), max_size=40))
def test_the_order_goes_round_the_classes(labels: list[int]) -> None:
    order = round_the_classes(np.array(labels, np.int64)).tolist()
    assert sorted(order) == list(range(len(labels)))
    met: Counter[int] = Counter()
    turns = []
    for index in order:
        turns.append((met[labels[index]], labels[index]))
        met[labels[index]] += 1
    assert turns == sorted(turns)
    by_class = [[index for index in order if labels[index] == label] for label in range(6)]
    assert by_class == [sorted(indices) for indices in by_class]


@given(limit=st.integers(1, 4000))
def test_shards_hold_every_sample_once_and_no_more_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, limit: int
) -> None:
    out = tmp_path_factory.getbasetemp() / "shards"
    distilled = open_distilled(out) if out.exists() else write_distilled(out, ipc=5)
    packed = Pack(distilled, limit)
    assert [place for shard in packed.shards for place in shard] == list(range(10))
    sizes = [sum(len(packed.sample(place).content) for place in shard) for shard in packed.shards]
    assert all(size <= limit or len(shard) == 1 for size, shard in zip(sizes, packed.shards, strict=True))
    for size, shard in zip(sizes, packed.shards[1:], strict=False):
        assert size + len(packed.sample(shard[0]).content) > limit  # the next one did not fit


def test_a_sample_is_the_image_with_all_that_is_known_of_it(out: Path) -> None:
    distilled = open_distilled(out)
    write_labels(distilled)
    packed = Pack(distilled, 10**9)
    entries = json.loads((out / "manifest.json").read_bytes())["images"]
    assert packed.soft
    for place, index in enumerate([0, 3, 6, 1, 4, 7, 2, 5, 8]):
        sample = packed.sample(place)
        assert (sample.place, sample.suffix) == (place, ".png")
        assert sample.content == distilled.content(index)
        assert (sample.label, sample.entry) == (distilled.labels[index], entries[index])
        assert sample.logits is not None
        assert sample.logits.mosaic.dtype == sample.logits.tiles.dtype == np.float16
        assert (sample.logits.mosaic == noise(9, 3)[index]).all()
        assert (sample.logits.tiles == noise(9, 4, 3)[index]).all()


def test_labels_of_other_images_are_refused(out: Path, tmp_path: Path) -> None:
    write_labels(open_distilled(out))
    path = open_distilled(out).path(0)
    path.write_bytes(open_distilled(out).path(1).read_bytes())
    with pytest.raises(DataError, match="labels"):
        pack(out, tmp_path / "target", format="webdataset")


def test_the_same_data_set_gives_the_same_bytes(out: Path, tmp_path: Path, format: str) -> None:
    write_labels(open_distilled(out))
    for target in ("one", "two"):
        pack(out, tmp_path / target, format=format, shard_size=0.002)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert one["manifest.json"] == (out / "manifest.json").read_bytes()
    assert len(one) > 3


def test_a_damaged_image_leaves_nothing(out: Path, tmp_path: Path, format: str) -> None:
    path = open_distilled(out).path(5)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError) as caught:
        pack(out, tmp_path / "target", format=format)
    assert str(path) in caught.value.problem
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_something_in_it_is_left_alone(out: Path, tmp_path: Path, format: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    pack(out, target, format=format)  # an empty one is taken
    before = contents(target)
    with pytest.raises(OutputError, match="not empty"):
        pack(out, target, format=format)
    assert contents(target) == before


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("out", "lies in the distilled data set"),
        ("out/images/new", "lies in the distilled data set"),
        ("file", "is not a folder"),
        ("file/target", "cannot be written"),
    ],
)
def test_a_target_that_cannot_be(out: Path, tmp_path: Path, format: str, target: str, problem: str) -> None:
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=problem):
        pack(out, tmp_path / target, format=format)
    assert contents(tmp_path) == before


def test_what_cannot_be_packed_is_refused(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="no format 'zip'"):
        pack(out, tmp_path / "target", format="zip")
    with pytest.raises(DataError, match="manifest"):
        pack(tmp_path, tmp_path / "target", format="webdataset")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fgdd-fast\[pack\]'"):
        pack(out, tmp_path / "target", format="huggingface")
    assert not (tmp_path / "target").exists()


def test_the_command(out: Path, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["pack", str(out), str(tmp_path / "target"), "--to", format, "--shard-size", "1"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert f"9 images in {tmp_path / 'target'}, shards: 1" in result.stdout
    again = CliRunner().invoke(main, command)
    assert (again.exit_code, "not empty" in again.output) == (1, True)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(samples.Pack, "sample", stop)
    stopped = CliRunner().invoke(main, ["pack", str(out), str(tmp_path / "other"), "--to", format])
    assert stopped.exit_code == 130
    assert "Stopped." in stopped.output
    assert "kept" not in stopped.output
    assert not (tmp_path / "other").exists()
