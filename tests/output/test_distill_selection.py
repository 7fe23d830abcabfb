"""`fgdd-fast distill` with rankings, limits on crops, and near-duplicates left out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import pytest
import tiny_pipeline as tiny
from tiny_distillation import IMAGES, assert_refused, contents, distill
from tiny_grounded import write_grounded_bundle

from fgdd_fast import verify
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.decode import read_image
from fgdd_fast.measurement.store_format import decode_boxes, decode_mask
from fgdd_fast.measurement.store_tables import SCHEMAS
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.selection.ranking import RANKINGS
from fgdd_fast.selection.records import Tile


@pytest.fixture
def workplace(workplace: Path) -> Path:
    """With a teacher that gives its features."""
    tiny.teacher_bundle(workplace, features=True)
    return workplace


def distilled(folder: Path, out: str = "out", **options: Any) -> Manifest:
    result = distill(folder, out, **options)
    assert result.exit_code == 0, result.output
    return read_manifest(folder / out)


def tiles_of(manifest: Manifest) -> list[Tile]:
    return [tile for image in manifest.images for tile in image.tiles]


def kept_share(data: Path, source: str, box: Box) -> float:
    """The share of the square that lies within a box; squares are what is not grey."""
    coloured = tiny.coloured(data / source)
    return float(coloured[box.y : box.y + box.height, box.x : box.x + box.width].sum() / coloured.sum())


@pytest.mark.parametrize("ranking", [*RANKINGS])
def test_every_ranking_fills_the_mosaics_and_names_itself(workplace: Path, ranking: str) -> None:
    manifest = distilled(workplace, ranking=ranking)
    assert manifest.settings["ranking"] == ranking
    assert manifest.settings.keys().isdisjoint({"least_area", "near_duplicates"})
    for image in manifest.images:
        assert len({tile.source for tile in image.tiles}) == 4
        if ranking.startswith("stratified"):
            whole = sum(tile.kind == "full" for tile in image.tiles)
            assert whole == 3  # of 8 images 6 are kept whole
    assert distill(workplace, "again", ranking=ranking, threads=1, store=workplace / "new").exit_code == 0
    assert contents(workplace / "again") == contents(workplace / "out")


def test_rankings_are_decided_without_measuring_twice(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distilled(workplace)

    def fail(*_: object) -> None:
        raise AssertionError("nothing is missing")

    with monkeypatch.context() as patch:
        patch.setattr("fgdd_fast.measurement.image_measurer.ImageMeasurer._infer", fail)
        distilled(workplace, "stratified", ranking="stratified")
        distilled(workplace, "limited", least_area=0.5, keep_foreground=0.5)
        one = distilled(workplace, "kmeans", ranking="kmeans")  # measures features, and no losses
        patch.setattr("fgdd_fast.models.network.Teacher.features", fail)
        distilled(workplace, "both", ranking="stratified-kmeans")
        again = distilled(workplace, "again", ranking="kmeans")
    assert tiles_of(one) == tiles_of(again)


def test_features_are_measured_of_the_tiles_that_may_be_chosen_alone(workplace: Path) -> None:
    distilled(workplace, ranking="stratified")
    with closing(sqlite3.connect(workplace / "store" / "measurements.sqlite3")) as database:
        count = "SELECT count(*) FROM features"
        assert database.execute(count).fetchone() == (0,)
        distilled(workplace, "kmeans", ranking="kmeans")
        assert database.execute(count).fetchone() == (3 * IMAGES,)


def test_a_teacher_without_features_is_refused_before_measuring(workplace: Path) -> None:
    tiny.teacher_bundle(workplace)
    assert_refused(distill(workplace, ranking="kmeans"), "gives no features", "fgdd-fast teacher fit")
    assert not (workplace / "store").exists()
    assert distill(workplace, ranking="stratified").exit_code == 0


@pytest.mark.parametrize("model", ["saliency", "grounded", "masks"])
def test_crops_keep_the_foreground_whatever_finds_it(workplace: Path, model: str) -> None:
    data = workplace / "data"
    foreground: Any = workplace / "tiny-foreground.onnx"
    if model == "grounded":
        foreground = write_grounded_bundle(workplace).onnx
    if model == "masks":
        foreground = f"masks:{tiny.write_masks(workplace)}"
    options = {"foreground": foreground, "rule": "always-patch", "crops": 8, "ipc": 2}  # all images give one
    loose = distilled(workplace, "loose", **options)
    strict = distilled(workplace, keep_foreground=0.8, **options)
    assert strict.settings["keep_foreground"] == 0.8
    lacking = 0
    for tile in tiles_of(strict):
        height, width = read_image(data / tile.source).pixels.shape[:2]
        boxes = candidate_boxes(tile.source, width, height, count=8, seed=0)
        best = max(kept_share(data, tile.source, box) for box in boxes)
        share = kept_share(data, tile.source, tile.box)
        assert share >= min(0.8, best) - (0.01 if model == "masks" else 0.15)  # other masks are coarse
        lacking += best < 0.8
    assert 0 < lacking < 3 * IMAGES
    assert min(kept_share(data, tile.source, tile.box) for tile in tiles_of(loose)) < 0.5


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 0.7),
        ({"rule": "shuffled:quantile:0.3"}, 0.7),
        ({"keep_foreground": 0}, None),
        ({"rule": "always-patch"}, None),  # RDED knows no foreground
        ({"rule": "always-patch", "keep_foreground": 0.7}, 0.7),
    ],
)
def test_crops_keep_most_of_the_foreground_unless_told_otherwise(
    workplace: Path, options: dict[str, Any], share: float | None
) -> None:
    assert distilled(workplace, **options).settings.get("keep_foreground") == share


def test_near_duplicates_are_listed_with_the_image_that_stays(workplace: Path) -> None:
    red = workplace / "data" / "red"
    picture = cv2.imread(str(red / "04.png"))
    other_bytes = [cv2.IMWRITE_PNG_COMPRESSION, 0]
    assert cv2.imwrite(str(red / "copy.png"), picture, other_bytes)
    assert cv2.imwrite(str(workplace / "data" / "green" / "copy.png"), picture, other_bytes)  # another class
    assert distilled(workplace, "off").skipped == ()
    manifest = distilled(workplace, near_duplicates=0)
    assert manifest.settings["near_duplicates"] == 0
    skipped = {item.source: item.reason for item in manifest.skipped}
    assert skipped == {"red/copy.png": "near-duplicate of red/04.png"}
    assert "red/copy.png" not in {tile.source for tile in tiles_of(manifest)}


def set_back(store: Path) -> None:
    """Bring a store to the tables that the second version had."""
    with closing(sqlite3.connect(store / "older.sqlite3")) as older:
        for schema in SCHEMAS[:2]:
            older.executescript(schema)
        older.execute("ATTACH ? AS now", (str(store / "measurements.sqlite3"),))
        older.execute("INSERT INTO fingerprints SELECT * FROM now.fingerprints")
        older.execute("INSERT INTO images SELECT sha256, width, height FROM now.images")
        own = "JOIN now.images USING (image)"
        older.execute(f"INSERT INTO files SELECT path, signature, sha256 FROM now.files {own}")
        older.execute(
            f"INSERT INTO occupancies SELECT sha256, fingerprint, occupancy FROM now.occupancies {own}"
        )
        for *key, content in older.execute(f"SELECT sha256, fingerprint, content FROM now.masks {own}"):
            png = cv2.imencode(".png", decode_mask(content))[1].tobytes()
            older.execute("INSERT INTO masks VALUES (?, ?, ?)", (*key, png))
        query = f"SELECT sha256, fingerprint, label, content FROM now.losses {own}"
        for *key, content in older.execute(query):
            rows = [(*key, *box, loss) for box, loss in decode_boxes(content).items()]
            older.executemany("INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        older.execute("PRAGMA user_version = 2")
        older.commit()
    (store / "older.sqlite3").replace(store / "measurements.sqlite3")


def test_a_store_of_the_second_version_serves_every_option(workplace: Path) -> None:
    """What is new is measured where it is needed, and the decisions are those of a fresh store."""
    expected = distilled(workplace, "plain", store=workplace / "old")
    set_back(workplace / "old")
    assert distilled(workplace, "again", store=workplace / "old") == expected
    options = {"ranking": "stratified-kmeans", "keep_foreground": 0.7, "near_duplicates": 2}
    distilled(workplace, "upgraded", store=workplace / "old", **options)
    distilled(workplace, "fresh", store=workplace / "new", **options)
    assert contents(workplace / "upgraded") == contents(workplace / "fresh")
    with closing(sqlite3.connect(workplace / "old" / "measurements.sqlite3")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (len(SCHEMAS),)


@pytest.mark.parametrize("view", ["pad", "resize", "native"])
def test_every_view_works_at_factor_1(workplace: Path, view: str) -> None:
    options = {"ranking": "stratified-kmeans", "keep_foreground": 0.5, "near_duplicates": 1}
    manifest = distilled(workplace, ipc=4, factor=1, score_view=view, **options)
    assert [len(image.tiles) for image in manifest.images] == [1] * 12
    assert len({tile.source for tile in tiles_of(manifest)}) == 12


@pytest.mark.parametrize(("size", "view"), [(16, "pad"), (8, "pad"), (6, "resize"), (20, "resize")])
def test_small_tiles_are_enlarged_for_the_teacher_unless_told_otherwise(
    workplace: Path, size: int, view: str
) -> None:
    assert distilled(workplace, size=size, factor=1).settings["score_view"] == view
    asked = distilled(workplace, "asked", size=size, factor=1, score_view=view)
    assert tiles_of(asked) == tiles_of(distilled(workplace, "again", size=size, factor=1))


@pytest.mark.parametrize(
    ("size", "view", "advised"), [(8, "pad", True), (8, "resize", False), (16, "pad", False)]
)
def test_a_teacher_that_guesses_may_see_too_little(
    workplace: Path, size: int, view: str, advised: bool
) -> None:
    tiny.teacher_bundle(workplace, tiny.CLASSES[1:] + tiny.CLASSES[:1])  # each under another's name
    result = distill(workplace, size=size, factor=1, score_view=view)
    assert result.exit_code == 0, result.output
    assert "no better than guessing" in result.output.replace("\n", " ")
    assert ("--score-view resize" in result.output.replace("\n", " ")) == advised


def test_large_jpegs_are_measured_at_a_fraction_of_their_size_and_cut_from_all_of_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (workplace / "data").rglob("*.png"):
        pixels = cv2.imread(str(file))
        assert pixels is not None
        large = cv2.resize(pixels, (160, 120), interpolation=cv2.INTER_NEAREST)
        assert cv2.imwrite(str(file.with_suffix(".jpg")), large)
        file.unlink()
    monkeypatch.setattr("fgdd_fast.images.decode.LARGE", 100)
    whole = {(tile.source, tile.box): tile.loss for tile in tiles_of(distilled(workplace, "area"))}
    reduced = distilled(workplace, "reduced", resize="reduced")
    assert reduced.settings["resize"] == "reduced"
    both = [tile for tile in tiles_of(reduced) if (tile.source, tile.box) in whole]
    assert len(both) > len(whole) / 2
    assert any(whole[tile.source, tile.box] != tile.loss for tile in both)
    assert verify(workplace / "reduced", workplace / "data").sound
