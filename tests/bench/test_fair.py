"""The fair reference: its precision is the best it can have, and its failures are told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_references as tiny

torch = pytest.importorskip("torch")

from fgdd_bench.harness.steps import Step  # noqa: E402
from fgdd_bench.references import fair  # noqa: E402
from fgdd_bench.references.fair_workers import ImageLoader  # noqa: E402
from fgdd_fast.errors import EngineError  # noqa: E402
from fgdd_fast.images.dataset import SourceImage  # noqa: E402
from fgdd_fast.runtime.machine import read_machine  # noqa: E402


def test_a_gpu_computes_in_float16_and_a_processor_in_what_it_has() -> None:
    assert fair.lower_precision(torch.device("cuda")) == torch.float16
    has_bfloat16 = any("bf16" in unit for unit in read_machine().vector_units)
    expected = torch.bfloat16 if has_bfloat16 else torch.float32
    assert fair.lower_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bf16"), (torch.float32, "fp32")])
def test_the_precision_is_observed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, name: str
) -> None:
    monkeypatch.setattr(fair, "lower_precision", lambda device: dtype)
    with fair.open_fair("teacher", tiny.TASK, tiny.subject(tmp_path)) as way:
        assert f", {name}, channels last" in way.arithmetic


def test_compiled_networks_have_fixed_shapes_and_constant_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels are not made here: that takes half a minute and a compiler."""
    asked: list[object] = []
    given: set[tuple[object, int]] = set()
    folders: set[str | None] = set()

    def compile_(network: torch.nn.Module, **settings: object) -> torch.nn.Module:
        asked.append(settings)
        network.register_forward_pre_hook(
            lambda _, inputs: given.update((each.shape, each.data_ptr()) for each in inputs)
        )
        network.register_forward_pre_hook(lambda *_: folders.add(os.environ.get("TORCHINDUCTOR_CACHE_DIR")))
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "old")
    data = tiny.squares(tmp_path, 3)  # nine images in batches of two
    with fair.open_fair("teacher", tiny.TASK, tiny.subject(tmp_path), compile=True) as way:
        assert way.arithmetic.endswith("compiled")
        assert way.run(data.images)["losses"].shape == (9, 4)
    assert asked == [{"fullgraph": True, "dynamic": False, "options": {"freezing": True}}]
    # always the same two tensors
    assert sorted(shape for shape, _ in given) == [(2,), (2, 4, 24, 24, 3)]
    first, *_ = folders - {"old"}  # where kernels are made, in the first run
    assert folders == {first, "old"}
    assert not Path(str(first)).exists()


@pytest.fixture
def dying() -> Iterator[ImageLoader]:
    loader = ImageLoader([Step("read", tiny.die)], batch=1, workers=1, pinned=False)
    yield loader
    loader.close()


def test_a_worker_that_dies_is_an_error(dying: ImageLoader, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"workers of PyTorch's DataLoader failed: .*exited unexpectedly"):
        list(dying.load([SourceImage("red/a.png", "red", tmp_path)]))


def test_a_loader_hands_over_batches_of_whatever_is_asked_for(tmp_path: Path) -> None:
    data = tiny.squares(tmp_path, 2)
    steps = fair.worker_steps(fair.Tiles(tiny.TASK, "pil"))
    loader = ImageLoader(steps, batch=4, workers=2, pinned=False)
    for images in (data.images, data.images[::-1], data.images[:1], ()):
        batches = list(loader.load(images))
        assert [len(batch) for batch in batches] == [4] * (len(images) // 4) + [len(images) % 4] * (
            len(images) % 4 > 0
        )
        for image, tiles in zip(images, (row for batch in batches for row in batch), strict=True):
            expected = steps[2].do(image, steps[1].do(image, image.path.read_bytes()))
            assert np.array_equal(tiles, expected)
    loader.close()
