"""The real models on real photographs: the whole way, at a size that a test can afford.

Skipped where the models have not been pulled or the photographs are absent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from installed_devices import available_devices
from numpy.typing import NDArray

from fgdd_engines.base import Array, Device
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.factory import open_engine
from fgdd_fast.cli import main
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import resize
from fgdd_fast.models.catalogue.catalogue import bundle_path, find_bundle, load_catalogue
from fgdd_fast.models.network import BatchedNetwork
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.runtime.parity import REFERENCE
from fgdd_fast.runtime.sample_images import check_images, sample_feeds

PHOTOGRAPHS = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing"
CLASSES = ("dress", "hat", "pants", "shoes")
PER_CLASS = 8

pytestmark = [
    pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs at {PHOTOGRAPHS}"),
    pytest.mark.skipif(
        not all(
            bundle_path(load_catalogue()[name]).exists()
            for name in ("saliency-u2netp", "imagenet-efficientnet-lite0")
        ),
        reason="run: fgdd-fast models pull saliency-u2netp imagenet-efficientnet-lite0",
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to some photographs, and a teacher fitted on them."""
    folder = tmp_path_factory.mktemp("photographs")
    for split, count in (("train", PER_CLASS), ("validation", 10)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for file in sorted((PHOTOGRAPHS / split / name).iterdir())[:count]:
                (folder / split / name / file.name).symlink_to(file)
    result = run(
        "teacher", "fit", folder / "train", "-o", folder / "teacher", "--validation", folder / "validation"
    )
    assert result.exit_code == 0, result.output
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def distill(place: Path, out: str, *words: object) -> Path:
    store = ("--teacher", place / "teacher", "--store", place / "store")
    asked = ("--ipc", 2, "--preset", "foreground")
    result = run("distill", place / "train", place / out, *asked, *store, *words)
    assert result.exit_code == 0, result.output
    return place / out


def test_a_few_photographs_make_a_good_teacher(place: Path) -> None:
    assert find_bundle(str(place / "teacher"), "teacher").accuracy["top1"] > 0.8
    result = run("teacher", "check", place / "teacher", place / "validation")
    assert result.exit_code == 0, result.output


def test_a_fitted_teacher_s_tile_form_gives_the_losses_that_it_gives(place: Path) -> None:
    teacher = find_bundle(str(place / "teacher"), "teacher")
    form = teacher.find_cropped_graph(112)
    assert form is not None
    images = check_images(place / "validation", 20, {})
    views = [
        np.concatenate([feed["images"] for feed in sample_feeds(each, images)]) for each in (teacher, form)
    ]
    losses = [
        BatchedNetwork(each, REFERENCE, batch=6).run(
            {"images": shown, "labels": np.zeros(len(shown), np.int32)}, ["loss"]
        )["loss"]
        for each, shown in zip((teacher, form), views, strict=True)
    ]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-4)


def test_the_foreground_of_garments_is_found(place: Path) -> None:
    manifest = read_manifest(distill(place, "garments"))
    occupancies = [tile.occupancy for image in manifest.images for tile in image.tiles]
    assert len(occupancies) == 4 * 2 * 4
    assert 0.3 < np.mean(occupancies) < 0.6
    assert {tile.kind for image in manifest.images for tile in image.tiles} == {"full", "crop"}


def test_runtimes_and_batches_choose_the_same_but_for_near_ties(place: Path) -> None:
    if set(available_devices()) != {"cpu", "openvino"}:
        pytest.skip("both runtimes are needed")
    reference = distill(place, "reference", "--device", "cpu")
    other = distill(place, "other", "--device", "openvino", "--precision", "fp32", "--batch", 3)
    chosen = [
        {(tile.source, tile.box) for image in read_manifest(out).images for tile in image.tiles}
        for out in (reference, other)
    ]
    differing = len(chosen[0] - chosen[1])
    assert differing <= 1, f"{differing} of {len(chosen[0])} tiles differ"


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("model", ["saliency-u2netp", "teacher"])
def test_a_photograph_s_result_does_not_depend_on_its_neighbours(
    place: Path, device: Device, model: str
) -> None:
    if device not in available_devices():
        pytest.skip(f"the runtime of {device} is not installed")
    role = "teacher" if model == "teacher" else "foreground"
    bundle = find_bundle(str(place / "teacher") if model == "teacher" else model, role)
    batch, output = (6, "loss") if model == "teacher" else (2, "occupancy")
    images = photographs(place, bundle, 2 * batch)
    orders = [list(range(batch)), list(range(batch))[::-1], [batch + k if k else 0 for k in range(batch)]]
    found = []
    for threads in (1, 2):
        axes = {"batch": batch}
        if model == "teacher":
            axes |= {"height": 224, "width": 224}
        with open_engine(bundle, device=device, axes=axes, threads=threads) as engine:
            for order in orders:
                feeds: dict[str, Array] = {"images": images[order]}
                if model == "teacher":
                    feeds["labels"] = np.array(order, np.int32) % len(CLASSES)
                found.append(engine.run(feeds, [output])[output][order.index(0)])
    assert len(set(map(float, found))) == 1


def photographs(place: Path, bundle: Bundle, count: int) -> NDArray[np.uint8]:
    files = sorted((place / "train").rglob("*.jpg"))[:: len(CLASSES) // 2][:count]
    size = (bundle.preprocessing.width, bundle.preprocessing.height)
    return np.stack([resize(read_image(file).pixels, size, "area") for file in files])
