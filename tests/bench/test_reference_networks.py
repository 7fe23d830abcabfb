"""PyTorch networks rebuilt from bundles: the same losses and masks, and the normalisation found out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_references as tiny

torch = pytest.importorskip("torch")

from fgdd_bench.harness.ways import Task  # noqa: E402
from fgdd_bench.references.networks import (  # noqa: E402
    find_normalisation,
    reference_device,
    saliency_network,
    teacher_network,
)
from fgdd_fast.errors import EngineError, SettingsError  # noqa: E402
from fgdd_fast.models.network import BatchedNetwork, Runtime, Teacher  # noqa: E402

RUNTIME = Runtime("cpu", "fp32", 1)


def images(count: int, side: int = tiny.SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_the_normalisation_is_the_graph_s(tmp_path: Path) -> None:
    found = find_normalisation(tiny.teacher(tmp_path))
    np.testing.assert_allclose(found.mean.flatten() * 255, tiny.PAD, rtol=1e-5)
    np.testing.assert_allclose(found.std.flatten() * 255, (64, 60, 56), rtol=1e-5)


def test_what_depends_on_the_image_is_no_normalisation(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="more than normalise"):
        find_normalisation(tiny.teacher(tmp_path, brightest=True))


def test_the_teacher_scores_padded_tiles_as_the_product_does(tmp_path: Path) -> None:
    bundle = tiny.teacher(tmp_path)
    tiles, labels = images(6, 24), np.array([0, 1, 2, 0, 1, 2])
    teacher = Teacher(bundle, RUNTIME, view="pad", tile_size=24, batch=6)
    expected = teacher.losses(np.stack([teacher.show(tile) for tile in tiles]), labels.astype(np.int32))
    planes = find_normalisation(bundle)(torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255)
    with torch.no_grad():
        logits = teacher_network(bundle)(torch.nn.functional.pad(planes, (12, 12, 12, 12)))
    losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-3)
    teacher.close()


def test_the_saliency_model_finds_what_the_product_finds(tmp_path: Path) -> None:
    bundle = tiny.saliency(tmp_path)
    network = BatchedNetwork(bundle, RUNTIME, batch=3)
    expected = network.run({"images": images(3)}, ["occupancy", "mask"])
    with torch.no_grad():
        occupancy, mask = saliency_network(bundle)(torch.from_numpy(images(3)))
    np.testing.assert_allclose(occupancy, expected["occupancy"], rtol=0, atol=1e-4)
    assert np.abs(mask.numpy().astype(int) - expected["mask"]).max() <= 1
    assert 0.05 < float(occupancy.mean()) < 0.95
    network.close()


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match="no GPU"):
        reference_device(Task(device="cuda"))
