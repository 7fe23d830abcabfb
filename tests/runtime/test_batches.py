"""Batches that nobody asked for: by device and by role, and the same that a verdict was reached at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_grounded
import tiny_pipeline as tiny
from click import BadParameter, Command, Context, Option

from fgdd_engines.probing.probes import Probe
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_fast.cli.options import batch_size
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime import batches, choose, parity, trials
from fgdd_fast.runtime.choose import RuntimeOptions, batch_of, choose_runtime
from fgdd_fast.runtime.trials import try_all

LARGE = CudaDevice("H200", (9, 0), 150_000_000_000, "13.0", "13.0")


@pytest.fixture(autouse=True)
def large_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "find_cuda_device", lambda _: LARGE)
    monkeypatch.setattr(batches, "jetson_model", lambda: None)


def test_each_role_has_its_own_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roles = [
        tiny.foreground_bundle(tmp_path),
        tiny_grounded.write_grounded_bundle(tmp_path),
        tiny.teacher_bundle(tmp_path),
        tiny.backbone_bundle(tmp_path),
    ]

    def liked(device: str) -> list[int]:
        return [*(batches.images_at_once(role, device) for role in roles), batches.views_at_once(device)]

    assert liked("cpu") == liked("openvino") == [1, 1, 1, 1, 1]
    assert liked("cuda") == liked("tensorrt") == [32, 4, 32, 32, 256]
    assert [batches.images_at_once(role, "cuda", 7) for role in roles] == [7, 7, 7, 7]
    assert batches.views_at_once("cuda", 7) == 7
    monkeypatch.setattr(batches, "find_cuda_device", lambda _: replace(LARGE, memory=8_000_000_000))
    assert liked("cuda") == [4, 1, 4, 4, 24]
    monkeypatch.setattr(batches, "find_cuda_device", lambda _: None)  # without its package nobody tells
    assert liked("cuda")[0] == 32
    monkeypatch.setattr(batches, "jetson_model", lambda: "NVIDIA Jetson AGX Orin")
    assert liked("cuda")[0] == 4


def test_a_model_that_is_no_bundle_takes_single_images_and_a_number_is_kept(tmp_path: Path) -> None:
    assert batch_of(tmp_path, RuntimeOptions(device="cuda")) == batch_of(None, RuntimeOptions()) == 1
    bundle = tiny.foreground_bundle(tmp_path)
    assert batch_of(bundle, RuntimeOptions(device="cuda")) == 32
    assert batch_of(bundle, RuntimeOptions(device="cuda", batch=3)) == 3
    assert batch_of(bundle, RuntimeOptions()) == 1  # on processors nothing has to be compared for that


def test_ways_are_compared_and_remembered_at_the_batch_at_which_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, compared = tiny.foreground_bundle(tmp_path), list[tuple[str, int]]()

    class Recorded:
        def __init__(self, *_: object) -> None:
            self.report = parity.ParityReport({}, "same arithmetic", 12)

        def of_reference(self) -> parity.ComparisonResult:
            return self.compare(parity.REFERENCE, batch=1)

        def compare(self, candidate: Runtime, *, batch: int, slowest: float = 0) -> parity.ComparisonResult:
            compared.append((candidate.device, batch))
            return parity.ComparisonResult(self.report, 1.0, candidate.device)

    monkeypatch.setattr(trials, "Comparison", Recorded)
    ways = [Runtime("cuda", "fp32", 1), Runtime("cpu", "fp32", 1)]
    assert len(try_all(bundle, ways, ())) == len(try_all(bundle, ways, (), 3)) == 2
    assert compared == [("cuda", 32), ("cpu", 1), ("cuda", 3), ("cpu", 3)]
    monkeypatch.setattr(choose, "probe", lambda device: Probe(device, device in ("cpu", "openvino"), "1"))
    del compared[:]
    for batch in ("auto", 1, 2, 2):  # auto comes to 1
        choose_runtime(bundle, "auto", "fp32", 1, batch)  # type: ignore[arg-type]
    assert compared == [("cpu", 1), ("openvino", 1), ("cpu", 2), ("openvino", 2)]


def test_batches_are_timed_whole_and_one_warms_up() -> None:
    assert [*parity._whole_batches(range(3), 1)] == [[0], [1], [2]]
    assert [*parity._whole_batches(range(3), 2)] == [[0, 1], [2, 0]]
    assert [*parity._whole_batches(range(3), 5)] == [[0, 1, 2, 0, 1], [2, 0, 1, 2, 0]]


def test_the_answers_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    for bundle in (tiny.foreground_bundle(tmp_path), tiny.teacher_bundle(tmp_path)):
        comparison = parity.Comparison(bundle, trials.comparison_images(bundle)[:3])
        report = comparison.compare(Runtime("cpu", "fp32", 1), batch=4).parity
        assert report.accepted
        assert report.images == 3


@pytest.mark.parametrize("word", ["0", "-1", "two", ""])
def test_other_words_are_no_batch(word: str) -> None:
    context, option = Context(Command("distill")), Option(["--batch"])
    assert batch_size(context, option, "auto") == "auto"
    assert batch_size(context, option, "12") == 12
    with pytest.raises(BadParameter, match="neither a number of images nor 'auto'"):
        batch_size(context, option, word)
