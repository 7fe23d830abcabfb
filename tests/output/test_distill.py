"""`fgdd-fast distill` from folder to mosaics, with networks small enough to see through."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from tiny_distillation import IMAGES, arguments, assert_refused, contents, distill
from tiny_grounded import write_grounded_bundle

import fgdd_fast
from fgdd_engines.probing.probes import probe
from fgdd_fast.images.decode import read_image
from fgdd_fast.output.manifest_reading import read_manifest


def test_the_output_is_what_the_manifest_says(workplace: Path) -> None:
    result = distill(workplace, ipc=2)
    assert result.exit_code == 0, result.output
    out = workplace / "out"
    data = json.loads((out / "manifest.json").read_bytes())
    assert data["format"] == 1
    assert data["tool"].items() >= {"numpy": np.__version__, "opencv": cv2.__version__}.items()
    assert data["tool"]["fgdd-fast"] == fgdd_fast.__version__
    assert data["dataset"] == {"classes": ["blue", "green", "red"], "images": 3 * IMAGES}
    assert data["settings"]["rule"] == "quantile:0.3"
    assert data["skipped"] == []
    for role in ("foreground", "teacher"):
        model = workplace / f"tiny-{role}.onnx"
        sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
        assert data["models"][role] == {"name": f"tiny-{role}", "sha256": sha256}
    expected = {f"images/{name}/{name}_{index:05d}.png" for name in tiny.CLASSES for index in range(2)}
    assert {str(path.relative_to(out)) for path in out.rglob("*.png")} == expected
    assert {image["file"] for image in data["images"]} == expected
    sources = [tile["source"] for image in data["images"] for tile in image["tiles"]]
    assert len(set(sources)) == len(sources) == 3 * 2 * 4
    for image in data["images"]:
        mosaic = cv2.cvtColor(cv2.imread(str(out / image["file"])), cv2.COLOR_BGR2RGB)
        assert mosaic.shape == (16, 16, 3)
        assert [tile["cell"] for tile in image["tiles"]] == [[0, 0], [0, 1], [1, 0], [1, 1]]
        for tile in image["tiles"]:
            source = read_image(workplace / "data" / tile["source"])
            assert tile["sha256"] == source.sha256
            x, y, width, height = tile["box"]
            assert 0 <= x <= x + width <= source.pixels.shape[1]
            assert 0 <= y <= y + height <= source.pixels.shape[0]
            part = source.pixels[y : y + height, x : x + width]
            row, column = (8 * place for place in tile["cell"])
            resized = cv2.resize(part, (8, 8), interpolation=cv2.INTER_AREA)
            assert np.array_equal(mosaic[row : row + 8, column : column + 8], resized)
            assert tile["threshold"] == data["thresholds"][image["class"]]
            assert (tile["path"] == "full") == (tile["occupancy"] >= tile["threshold"])
    assert not list(workplace.glob(".out*"))


def test_the_same_input_gives_the_same_bytes(workplace: Path) -> None:
    """Whatever the threads, the order of the files on disk, and what the store held before."""
    assert distill(workplace, "one", threads=1).exit_code == 0
    assert distill(workplace, "again").exit_code == 0
    assert distill(workplace, "many", threads=5, store=workplace / "other").exit_code == 0
    shutil.move(workplace / "data", workplace / "original")
    files = sorted((workplace / "original").rglob("*.png"), reverse=True)
    random.Random(0).shuffle(files)
    for file in files:
        target = workplace / "data" / file.relative_to(workplace / "original")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    assert distill(workplace, "shuffled", store=workplace / "third").exit_code == 0
    expected = contents(workplace / "one")
    for other in ("again", "many", "shuffled"):
        assert contents(workplace / other) == expected
    text = (workplace / "one" / "manifest.json").read_text()
    assert str(workplace) not in text


SLOWLY = """
import sys, time
from fgdd_fast.cli import main
from fgdd_fast.models.network import Teacher

losses = Teacher.losses

def slow_losses(*arguments):
    time.sleep(0.1)
    return losses(*arguments)

Teacher.losses = slow_losses
main(sys.argv[1:])
"""


def stored(store: Path) -> int:
    """How many images a store knows, also while another process writes to it."""
    try:
        with closing(sqlite3.connect(f"file:{store / 'measurements.sqlite3'}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM occupancies").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not made yet


@pytest.mark.parametrize("model", ["saliency", "grounded"])
def test_a_run_killed_and_resumed_gives_the_same_bytes(workplace: Path, model: str) -> None:
    grounded = write_grounded_bundle(workplace).onnx
    options = {"foreground": grounded if model == "grounded" else workplace / "tiny-foreground.onnx"}
    assert distill(workplace, "whole", **options).exit_code == 0
    store = workplace / "other"
    command = [sys.executable, "-c", SLOWLY, *arguments(workplace, "killed", store=store, **options)]
    for enough in (3, 15):
        process = subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and stored(store) < enough:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert enough <= stored(store) < 3 * IMAGES
    assert distill(workplace, "killed", store=store, **options).exit_code == 0
    assert contents(workplace / "killed") == contents(workplace / "whole")
    assert not list(workplace.glob(".killed*"))


def test_jpeg_mosaics(workplace: Path) -> None:
    assert distill(workplace, format="jpg").exit_code == 0
    assert len(list((workplace / "out").rglob("*.jpg"))) == 3


def test_a_preset_is_its_settings_and_other_options_come_first(workplace: Path) -> None:
    assert distill(workplace, preset="rded", size=16, foreground=None).exit_code == 0
    settings = read_manifest(workplace / "out").settings
    assert {name: settings[name] for name in ("rule", "score_view", "resize", "size")} == {
        **{"rule": "always-patch", "score_view": "pad", "resize": "pil"},
        "size": 16,
    }
    assert "keep_foreground" not in settings
    assert distill(workplace, "whole", preset="whole").exit_code == 0
    assert read_manifest(workplace / "whole").settings["rule"] == "always-full"
    assert distill(workplace, "mine", preset="paper", rule="mean").exit_code == 0
    settings = read_manifest(workplace / "mine").settings
    assert (settings["rule"], settings["score_view"], settings["resize"]) == ("mean", "pad", "area")


def test_a_small_class_takes_further_crops_and_says_so(workplace: Path) -> None:
    for file in sorted((workplace / "data" / "red").iterdir())[3:]:
        file.unlink()
    assert distill(workplace).exit_code == 0
    manifest = read_manifest(workplace / "out")
    assert manifest.further_crops == {"red": 1}
    tiles = [(t.source, t.box) for image in manifest.images if image.class_name == "red" for t in image.tiles]
    assert len(set(tiles)) == 4
    assert len({source for source, _ in tiles}) == 3


def test_images_in_which_nothing_is_found_are_counted_said_and_taken_last(workplace: Path) -> None:
    files = sorted((workplace / "data").rglob("*.png"))
    found = dict.fromkeys(files, 200) | dict.fromkeys(sorted((workplace / "data" / "red").iterdir())[:3], 0)
    for file, value in found.items():
        mask = workplace / "masks" / file.relative_to(workplace / "data")
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), np.full(cv2.imread(str(file)).shape[:2], value, np.uint8))
    result = distill(workplace, foreground=f"masks:{workplace / 'masks'}")
    assert result.exit_code == 0, result.output
    assert f"In 3 of {len(files)} images no foreground was found (red 3)" in " ".join(result.output.split())
    manifest = read_manifest(workplace / "out")
    assert manifest.nothing_found == {"red": 3}
    assert manifest.thresholds["red"] == 1.0, "images without a foreground have no say in it"
    red = [tile for image in manifest.images if image.class_name == "red" for tile in image.tiles]
    assert {tile.kind for tile in red} == {"full"}
    assert all(tile.occupancy == 1 for tile in red)


def test_bad_images_are_listed_and_the_rest_distilled(workplace: Path) -> None:
    red = workplace / "data" / "red"
    (red / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    shutil.copyfile(red / "00.png", red / "copy of 00.png")
    (red / "loop.png").symlink_to("loop.png")
    (red / "empty.jpg").touch()
    result = distill(workplace)
    assert result.exit_code == 0, result.output
    skipped = {item.source: item.reason for item in read_manifest(workplace / "out").skipped}
    assert skipped.keys() == {"red/broken.jpg", "red/copy of 00.png", "red/loop.png", "red/empty.jpg"}
    assert skipped["red/empty.jpg"] == "empty file"
    assert skipped["red/copy of 00.png"] == "same bytes as red/00.png"


def test_names_with_spaces_quotes_emoji_and_broken_bytes(workplace: Path) -> None:
    odd = os.fsdecode(b'it\'s a "cat" \xf0\x9f\x90\xb1 \xff')
    (workplace / "data" / "red").rename(workplace / "data" / odd)
    tiny.teacher_bundle(workplace, ("blue", "green", odd))
    result = distill(workplace)
    assert result.exit_code == 0, result.output
    assert (workplace / "out" / "images" / odd / f"{odd}_00000.png").is_file()
    assert odd in read_manifest(workplace / "out").classes


def test_models_that_do_not_fit_are_refused(workplace: Path) -> None:
    teacher = workplace / "tiny-teacher.onnx"
    assert_refused(distill(workplace, teacher=None), "fgdd-fast teacher fit")
    assert_refused(distill(workplace, foreground=teacher), "teacher", "foreground")
    teacher.write_bytes(teacher.read_bytes() + b"\0")
    assert_refused(distill(workplace), "SHA-256")
    tiny.teacher_bundle(workplace, ("cat", "dog", "red"))
    assert_refused(distill(workplace), "'blue', 'green'", "'cat'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "quantile:2"}, ["quantile:Q"]),
        ({"size": 15}, ["--size"]),
        ({"pool": "none"}, ["'all'"]),
        ({"foreground": "saliency-u2nett"}, ["saliency-u2netp"]),
        ({"foreground": "saliency-u2netp"}, ["fgdd-fast models pull saliency-u2netp"]),
        ({"device": "cpu", "precision": "bf16"}, ["openvino"]),
        ({"ipc": 0}, ["--ipc"]),
        ({"ranking": "best"}, ["--ranking", "stratified"]),
        ({"keep_foreground": 1.5}, ["--keep-foreground"]),
        ({"least_area": -0.1}, ["--least-area"]),
        ({"near_duplicates": 65}, ["--near-duplicates"]),
        ({"near_duplicates": 64, "ipc": 2}, ["too small", "--near-duplicates"]),
    ],
)
def test_bad_options_are_explained(workplace: Path, options: dict[str, Any], words: list[str]) -> None:
    assert_refused(distill(workplace, **options), *words)
    assert not (workplace / "out").exists()


@pytest.mark.parametrize("device", ["auto", "cpu", "openvino"])
def test_a_missing_runtime_gives_the_install_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    for package in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    probe.cache_clear()
    assert_refused(distill(workplace, device=device), "pip install 'fgdd-fast[cpu]'")
    probe.cache_clear()


def test_bad_folders_are_explained(workplace: Path) -> None:
    shutil.rmtree(workplace / "data")
    assert_refused(distill(workplace), "data")
    (workplace / "data").mkdir()
    assert_refused(distill(workplace), "DATA")
    (workplace / "data" / "cat").mkdir()
    assert_refused(distill(workplace), "cat")


def test_a_store_that_is_damaged_is_explained(workplace: Path) -> None:
    (workplace / "store").mkdir()
    (workplace / "store" / "measurements.sqlite3").write_bytes(b"nonsense" * 1000)
    assert_refused(distill(workplace), "not a database", "remove")


def test_a_full_disk_leaves_no_output_and_loses_no_measurement(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert_refused(distill(workplace), "No space left", "free some space")
    assert not (workplace / "out").exists()
    assert not list(workplace.glob(".out*"))
    monkeypatch.setattr(
        "fgdd_fast.measurement.image_measurer.ImageMeasurer._infer", full
    )  # nothing is measured again
    assert distill(workplace).exit_code == 0


def test_ctrl_c_says_that_work_is_kept(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> Iterator[None]:
        raise KeyboardInterrupt

    monkeypatch.setattr("fgdd_fast.pipeline.write_mosaics", interrupt)
    result = distill(workplace)
    assert result.exit_code == 130
    assert "kept" in result.output
    assert not (workplace / "out").exists()
    assert not list(workplace.glob(".out*"))


def test_a_view_that_the_teacher_cannot_take_is_refused_before_measuring(workplace: Path) -> None:
    assert_refused(distill(workplace, score_view="native"), "--score-view pad or resize")
    assert_refused(distill(workplace, size=64, score_view="pad"), "'pad' cannot show tiles of 32 pixels")
    assert distill(workplace, size=64).exit_code == 0
