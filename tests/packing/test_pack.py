"""Repacking: the order of samples, their shards, and a folder that appears whole or not at all."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny_distilled import ODD_CLASSES, noise, write_distilled, write_labels

from fgdd_fast.cli.distillation.pack import pack as pack_command
from fgdd_fast.errors import DataError, FgddError, MissingExtraError, OutputError
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.packing.huggingface import pack_huggingface
from fgdd_fast.packing.pack import Pack, round_the_classes
from fgdd_fast.packing.webdataset import pack_webdataset

Writer = Callable[[Pack, Path], None]
WRITERS: list[Writer] = [pack_webdataset, pack_huggingface]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_distilled(tmp_path / "out", ODD_CLASSES, ipc=3)
    return tmp_path / "out"


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__)
def writer(request: pytest.FixtureRequest) -> Writer:
    if request.param is pack_huggingface:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    writer: Writer = request.param
    return writer


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
        assert sample.place == place
        assert sample.content == distilled.content(index)
        assert sample.suffix == ".png"
        assert sample.label == distilled.labels[index]
        assert sample.entry == entries[index]
        assert sample.logits is not None
        assert sample.logits.mosaic.dtype == sample.logits.tiles.dtype == np.float16
        assert (sample.logits.mosaic == noise(9, 3)[index]).all()
        assert (sample.logits.tiles == noise(9, 4, 3)[index]).all()


def test_labels_of_other_images_are_refused(out: Path) -> None:
    write_labels(open_distilled(out))
    path = open_distilled(out).path(0)
    path.write_bytes(open_distilled(out).path(1).read_bytes())
    with pytest.raises(DataError, match="labels"):
        Pack(open_distilled(out), 10**9)


def test_the_same_data_set_gives_the_same_bytes(out: Path, tmp_path: Path, writer: Writer) -> None:
    write_labels(open_distilled(out))
    for target in ("one", "two"):
        writer(Pack(open_distilled(out), 2000), tmp_path / target)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert one["manifest.json"] == (out / "manifest.json").read_bytes()
    assert len(one) > 3


def test_a_damaged_image_leaves_nothing(out: Path, tmp_path: Path, writer: Writer) -> None:
    path = open_distilled(out).path(5)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError) as caught:
        writer(Pack(open_distilled(out), 10**9), tmp_path / "target")
    assert str(path) in caught.value.problem
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_something_in_it_is_left_alone(out: Path, tmp_path: Path, writer: Writer) -> None:
    target = tmp_path / "target"
    target.mkdir()
    writer(Pack(open_distilled(out), 10**9), target)  # an empty one is taken
    before = contents(target)
    with pytest.raises(OutputError, match="not empty"):
        writer(Pack(open_distilled(out), 10**9), target)
    assert contents(target) == before


@pytest.mark.parametrize("inside", [".", "images/new", "new"])
def test_the_data_set_itself_is_no_target(out: Path, writer: Writer, inside: str) -> None:
    before = contents(out)
    with pytest.raises(OutputError, match="lies in the distilled data set"):
        writer(Pack(open_distilled(out), 10**9), out / inside)
    assert contents(out) == before


def test_a_target_that_cannot_be_written(out: Path, tmp_path: Path, writer: Writer) -> None:
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "target"):
        with pytest.raises(OutputError):
            writer(Pack(open_distilled(out), 10**9), target)


@pytest.mark.parametrize("kind", ["webdataset", "huggingface"])
def test_the_command(out: Path, tmp_path: Path, kind: str) -> None:
    if kind == "huggingface":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    target = tmp_path / "target"
    result = CliRunner().invoke(pack_command, [str(out), str(target), "--to", kind, "--shard-size", "1"])
    assert result.exit_code == 0, result.output
    assert f"9 images in {target}, shards: 1" in result.stdout
    assert "manifest.json" in contents(target)


def test_the_command_refuses_what_is_no_distilled_data_set(tmp_path: Path) -> None:
    result = CliRunner().invoke(pack_command, [str(tmp_path), str(tmp_path / "target"), "--to", "webdataset"])
    assert isinstance(result.exception, FgddError)
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_there_is_the_install_line(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fgdd-fast\[pack\]'"):
        pack_huggingface(Pack(open_distilled(out), 10**9), tmp_path / "target")
    assert not (tmp_path / "target").exists()
