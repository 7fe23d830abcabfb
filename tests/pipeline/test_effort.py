"""The foreground is looked for only where it decides: the same tiles, of fewer looks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
from catalogue_files import write_catalogue
from tiny_distillation import assert_refused, contents, distill

import fgdd_fast
from fgdd_fast.measurement import effort
from fgdd_fast.measurement.looks import Looks
from fgdd_fast.models.foreground import Inputs
from fgdd_fast.models.saliency import SaliencyModel
from fgdd_fast.output.manifest import serialise
from fgdd_fast.output.manifest_reading import read_manifest

IMAGES = 24  # of each class
SIDES = {"fine": 16, "coarse": 8, "coarser": 4}
SOURCE = {"sha256": "5" * 64, "recipe": "u2netp"}
DECIDE = {"foreground_effort": "decide"}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, of more images than are needed, a teacher, and a catalogue with its models."""
    folder = tmp_path_factory.mktemp("many")
    tiny.write_squares(folder / "data", IMAGES)
    tiny.teacher_bundle(folder, features=True)
    models = [
        {
            **{"name": name, "role": "foreground", "description": "tiny", "licence": "MIT", "source": "here"},
            "preparation": {"recipe": SOURCE["recipe"], "size": side},
        }
        for name, side in SIDES.items()
    ]
    source = {"kind": "file", "path": "source.onnx", "sha256": SOURCE["sha256"], "size": 1}
    write_catalogue(folder, {"format": 1, "sources": {"here": source}, "models": models})
    (folder / "cache/models").mkdir(parents=True)
    for name, side in SIDES.items():
        tiny.foreground_bundle(folder / "cache/models", name, side=side, source=SOURCE)
    return folder


@pytest.fixture(autouse=True)
def _catalogue(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(many / "cache"))
    monkeypatch.setenv("FGDD_FAST_CATALOGUE", str(many / "catalogue.json"))


@pytest.fixture(autouse=True)
def _an_unsure_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tiny model, which sees in a mirror what it sees without, be less sure."""
    compare = Looks.compare
    monkeypatch.setattr(
        Looks, "compare", lambda *args, **options: (compare(*args, **options)[0], [-0.2, 0.2])
    )


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images each foreground model was shown."""
    shown: Counter[str] = Counter()
    find = SaliencyModel.find

    def counted(self: SaliencyModel, prepared: Sequence[Inputs], **options: Any) -> Any:
        shown[self.name] += len(prepared)
        return find(self, prepared, **options)

    monkeypatch.setattr(SaliencyModel, "find", counted)
    return shown


def run(folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    """What the manifest says of a distillation, with a store beside OUT unless another is named."""
    chosen = {"foreground": "fine", "store": out.parent / f"{out.name}-store", **options}
    result = distill(folder, str(out), **chosen)
    assert result.exit_code == 0, result.output
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def tiles(manifest: dict[str, Any]) -> list[Any]:
    return [tile for image in manifest["images"] for tile in image["tiles"]]


def test_fewer_looks_give_the_same_tiles(many: Path, tmp_path: Path, looks: Counter[str]) -> None:
    exact = run(many, tmp_path / "exact")
    assert looks == {"fine": 3 * IMAGES}
    looks.clear()
    decided = run(many, tmp_path / "decided", **DECIDE)
    assert looks["coarse"] == 3 * IMAGES, "the largest of half the side or less looks first"
    mirrored = ceil(effort.SAMPLE_SHARE * 3 * IMAGES)
    assert sum(decided["looked_at"].values()) + mirrored == looks["fine"] < 60
    assert decided["settings"].pop("foreground_effort") == "decide"
    assert decided["settings"] == exact["settings"]
    assert decided["models"]["quick"]["name"] == "coarse"
    assert exact["models"].keys() == {"foreground", "teacher"}
    assert "looked_at" not in exact
    assert serialise(read_manifest(tmp_path / "decided")) == (tmp_path / "decided/manifest.json").read_bytes()
    wanted = [(tile["source"], tile["box"], tile["path"], tile["occupancy"]) for tile in tiles(exact)]
    found = [(tile["source"], tile["box"], tile["path"], tile["occupancy"]) for tile in tiles(decided)]
    assert len(set(map(str, wanted)) & set(map(str, found))) >= 11, "of 12"


@pytest.mark.parametrize("ranking", ["loss", "stratified"])
def test_what_is_known_already_and_threads_change_nothing(many: Path, tmp_path: Path, ranking: str) -> None:
    options = {**DECIDE, "ranking": ranking}
    run(many, tmp_path / "first", **options)
    run(many, tmp_path / "exact", store=tmp_path / "store")
    run(many, tmp_path / "known", store=tmp_path / "store", threads=1, **options)
    assert contents(tmp_path / "first") == contents(tmp_path / "known")


def test_exact_is_what_it_was_whatever_was_decided_before(many: Path, tmp_path: Path) -> None:
    run(many, tmp_path / "before")
    run(many, tmp_path / "decided", store=tmp_path / "store", **DECIDE)
    run(many, tmp_path / "after", store=tmp_path / "store", foreground_effort="exact")
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_a_run_that_was_stopped_goes_on(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(many, tmp_path / "whole", **DECIDE)
    with monkeypatch.context() as patch:
        patch.setattr(effort, "undecided", _stop)
        stopped = distill(many, str(tmp_path / "out"), store=tmp_path / "store", **DECIDE)
    assert isinstance(stopped.exception, KeyboardInterrupt | SystemExit)
    assert not (tmp_path / "out").exists()
    run(many, tmp_path / "out", store=tmp_path / "store", **DECIDE)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def _stop(*_: Any) -> set[str]:
    raise KeyboardInterrupt


def test_a_ranking_by_features_looks_at_all(many: Path, tmp_path: Path) -> None:
    exact = run(many, tmp_path / "exact", ranking="kmeans")
    decided = run(many, tmp_path / "decided", ranking="kmeans", **DECIDE)
    assert decided["looked_at"] == dict.fromkeys(tiny.CLASSES, IMAGES)
    assert decided["images"] == exact["images"]


@pytest.mark.parametrize("ranking", ["loss", "herding"])
def test_a_rule_that_asks_for_none_looks_at_tiles_alone(many: Path, tmp_path: Path, ranking: str) -> None:
    options = {"rule": "always-full", "ranking": ranking}
    exact = run(many, tmp_path / "exact", **options)
    decided = run(many, tmp_path / "decided", **options, **DECIDE)
    assert decided["looked_at"] == dict.fromkeys(tiny.CLASSES, 4)
    assert decided["images"] == exact["images"], "the occupancies of tiles are there all the same"


@pytest.mark.parametrize("rule", ["shuffled:quantile:0.3", "inverted:mean", "always-patch"])
def test_every_tile_that_is_taken_was_looked_at(many: Path, tmp_path: Path, rule: str) -> None:
    exact = run(many, tmp_path / "exact", rule=rule, foreground_effort="exact", store=tmp_path / "store")
    decided = run(many, tmp_path / "decided", rule=rule, store=tmp_path / "store", **DECIDE)
    assert sum(decided["looked_at"].values()) <= 3 * IMAGES
    found = {tile["source"]: tile["occupancy"] for tile in tiles(exact)}
    for tile in tiles(decided):
        assert tile["occupancy"] == found.get(tile["source"], tile["occupancy"])


def test_a_class_that_needs_all_its_tiles_is_looked_at_whole(many: Path, tmp_path: Path) -> None:
    exact = run(many, tmp_path / "exact", ipc=8)
    decided = run(many, tmp_path / "decided", ipc=8, **DECIDE)
    assert decided["looked_at"] == dict.fromkeys(tiny.CLASSES, IMAGES)
    assert decided["images"] == exact["images"]


@pytest.mark.parametrize("foreground", ["none", "coarser", "masks:{}/masks"])
def test_a_model_without_a_quicker_one_is_refused(many: Path, tmp_path: Path, foreground: str) -> None:
    tiny.write_masks(many)
    result = distill(many, str(tmp_path / "out"), foreground=foreground.format(many), **DECIDE)
    assert_refused(result, "no quicker look", "Leave --foreground-effort out")


def test_a_quick_model_that_is_not_here_is_named(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    for file in (many / "cache/models").glob("fine.*"):
        (tmp_path / "models" / file.name).write_bytes(file.read_bytes())
    result = distill(many, str(tmp_path / "out"), foreground="fine", **DECIDE)
    assert_refused(result, "fgdd-fast models pull coarse")


def test_measure_takes_the_quick_look(many: Path, tmp_path: Path, looks: Counter[str]) -> None:
    with fgdd_fast.open_pipeline(
        many / "data",
        teacher=many / "tiny-teacher.onnx",
        foreground="fine",
        foreground_effort="decide",
        crops=3,
        size=16,
        store=tmp_path / "store",
        runtime=fgdd_fast.RuntimeOptions(device="cpu", threads=1),
    ) as pipeline:
        assert pipeline.measure().measured == 3 * IMAGES
        assert looks == {"coarse": 3 * IMAGES}
        plan = pipeline.plan(ipc=1)
        assert pipeline.measure().measured == 0
    assert looks["coarse"] == 3 * IMAGES
    assert 12 <= sum(plan.looked_at.values()) < looks["fine"]


def test_another_effort_is_refused(many: Path, tmp_path: Path) -> None:
    assert_refused(distill(many, str(tmp_path / "out"), foreground_effort="some"), "'exact', 'decide'")
