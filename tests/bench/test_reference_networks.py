"""The references' networks: rebuilt in PyTorch, in their best precision, compiled, in workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_convolutions
import tiny_models
import tiny_references as tiny

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="Pillow is not installed")

from fgdd_bench.harness.subject import Task  # noqa: E402
from fgdd_bench.references import fair  # noqa: E402
from fgdd_bench.references.fair_workers import ImageLoader  # noqa: E402
from fgdd_bench.references.networks import find_normalisation, reference_device, wait_for  # noqa: E402
from fgdd_bench.references.onnx_network import first_convolution_input, pytorch_network  # noqa: E402
from fgdd_engines.bundle.bundle import Bundle  # noqa: E402
from fgdd_export.graphs.graph import run_model  # noqa: E402
from fgdd_fast.errors import EngineError, SettingsError  # noqa: E402
from fgdd_fast.images.dataset import SourceImage  # noqa: E402
from fgdd_fast.runtime.machine import read_machine  # noqa: E402


def test_the_lower_precision_is_the_best_there_is_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_bfloat16 = any("bf16" in unit for unit in read_machine().vector_units)
    best = torch.bfloat16 if has_bfloat16 else torch.float32
    assert fair.lower_precision(torch.device("cpu")) == best
    assert fair.lower_precision(torch.device("cuda")) == torch.float16
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        monkeypatch.setattr(fair, "lower_precision", lambda device, dtype=dtype: dtype)
        with fair.open_reference("teacher", tiny.TASK, tiny.subject(tmp_path)) as one:
            assert f", {name}, channels last" in one.arithmetic


def test_compiled_networks_have_fixed_shapes_constant_weights_and_kernels_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels are not made here: that takes half a minute and a compiler."""
    asked: list[object] = []
    given: set[tuple[object, int]] = set()
    folders: set[str | None] = set()

    def compile_(network: Any, **settings: object) -> Any:
        asked.append(settings)
        network.register_forward_pre_hook(
            lambda _, inputs: given.update((each.shape, each.data_ptr()) for each in inputs)
        )
        network.register_forward_pre_hook(lambda *_: folders.add(os.environ.get("TORCHINDUCTOR_CACHE_DIR")))
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "old")
    data = tiny.squares(tmp_path, 3)  # nine images in batches of two
    with fair.open_reference("teacher", tiny.TASK, tiny.subject(tmp_path), "compiled") as one:
        assert one.arithmetic.endswith("compiled")
        assert one.run(data.images)["losses"].shape == (9, 4)
    assert asked == [{"fullgraph": True, "dynamic": False, "options": {"freezing": True}}]
    assert sorted(shape for shape, _ in given) == [(2,), (2, 4, 24, 24, 3)]  # always the same two tensors
    first, *_ = folders - {"old"}  # where kernels are made, in the first run
    assert folders == {first, "old"}
    assert not Path(str(first)).exists()


def test_a_worker_that_dies_is_an_error(tmp_path: Path) -> None:
    from fgdd_bench.harness.implementation import Step

    loader = ImageLoader([Step("read", tiny.die)], batch=1, workers=1, pinned=False)
    try:
        with pytest.raises(EngineError, match=r"DataLoader failed: .*exited unexpectedly"):
            list(loader.load([SourceImage("red/a.png", "red", tmp_path)]))
    finally:
        loader.close()


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match="no GPU"):
        reference_device(Task(device="cuda"))


def test_the_references_run_on_the_gpu_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert str(reference_device(Task(device="cuda", gpu=1))) == "cuda:1"
    assert str(reference_device(Task(gpu=1))) == "cpu"
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    wait_for(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]


@pytest.mark.parametrize("make", [tiny_convolutions.inverted_residuals, tiny_convolutions.basic_blocks])
def test_a_network_gives_what_the_graph_gives_whole_and_from_its_first_convolution(
    make: Any, tmp_path: Path
) -> None:
    bundle: Bundle = make(tmp_path)
    side = tiny_convolutions.SIDE
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    feeds = {"images": images, "labels": np.arange(3, dtype=np.int32)}
    expected = run_model(bundle.graph(), feeds)
    planes, sizes = first_convolution_input(bundle), {"height": side, "width": side}
    whole = pytorch_network(bundle, list(feeds), ["logits", "loss"], **sizes)
    front, back = (
        pytorch_network(bundle, [one], [other], **sizes)
        for one, other in (("images", planes), (planes, "logits"))
    )
    with torch.inference_mode():
        logits, loss = whole(*(torch.from_numpy(array) for array in feeds.values()))
        parts = back(front(torch.from_numpy(images)))
    for found, name in ((logits, "logits"), (loss, "loss"), (parts, "logits")):
        np.testing.assert_allclose(found.numpy(), expected[name], atol=1e-4)


def test_what_cannot_be_rebuilt_is_named(tmp_path: Path) -> None:
    sizes = {"height": tiny_convolutions.SIDE, "width": tiny_convolutions.SIDE}
    with pytest.raises(SettingsError, match="lacks the operator Softmax of 'teacher'"):
        pytorch_network(tiny_convolutions.mixing(tmp_path), ["images"], ["logits"], **sizes)
    with pytest.raises(SettingsError, match="takes 'labels', which is not given"):
        pytorch_network(tiny_models.tiny_bundle(tmp_path), ["images"], ["loss"], height=16, width=16)
    with pytest.raises(SettingsError, match="more than normalise"):
        find_normalisation(tiny.teacher(tmp_path, brightest=True))
    found = find_normalisation(tiny.teacher(tmp_path))
    np.testing.assert_allclose(found.mean.flatten() * 255, tiny.PAD, rtol=1e-5)
    np.testing.assert_allclose(found.std.flatten() * 255, (64, 60, 56), rtol=1e-5)
