"""The fastest way to run a model is taken by itself, where it decides as the reference does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import plan_files
import pytest
import tiny_pipeline as tiny
from tiny_grounded import write_grounded_bundle

from fgdd_engines.backends import DEVICES
from fgdd_engines.base import Array, Device, Precision
from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.probing.probes import Probe
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.errors import EngineError, FgddError, MissingExtraError, SettingsError
from fgdd_fast.models.network import BatchedNetwork, Runtime
from fgdd_fast.runtime import choose as devices
from fgdd_fast.runtime.choose import choose_runtime, runtime_for
from fgdd_fast.runtime.trials import Trial, comparison_images, read_trials, try_all

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A teacher; what kind of model it is plays no part."""
    return tiny.teacher_bundle(tmp_path)


def only(monkeypatch: pytest.MonkeyPatch, *running: Device, advice: str = "") -> None:
    """Let a probe succeed for these devices and for no other."""
    monkeypatch.setattr(
        devices, "probe", lambda device: Probe(device, device in running, f"{device} 1.0", advice)
    )


def trials(monkeypatch: pytest.MonkeyPatch, *found: Trial) -> list[int]:
    """Replace the trials; the list returned counts how often they were asked for."""
    asked: list[int] = []

    def try_none(*_: object) -> list[Trial]:
        asked.append(1)
        return list(found)

    monkeypatch.setattr(devices, "try_all", try_none)
    return asked


def variant_of(bundle: Bundle, variant: str) -> Bundle:
    """Write the same graph once more, as a variant."""
    described = replace(
        bundle,
        onnx=bundle.beside(f"{variant}.onnx"),
        variant=variant,  # type: ignore[arg-type]
        variant_of=bundle.sha256,
    )
    return write_bundle(described, bundle.onnx.read_bytes())


REFERENCE = Trial("cpu", "fp32", 10.0, (), {})
FAST = Trial("openvino", "bf16", 21.0, (), {"mean_occupancy_error": 0.002, "same_path": 1.0})
FASTER_BUT_WRONG = Trial("openvino", "int8", 60.0, ("mean occupancy error is 0.1 (at most 0.01)",), {})


def test_the_fastest_that_agrees_is_taken_and_the_reason_says_what_was_measured(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials(monkeypatch, REFERENCE, FAST, FASTER_BUT_WRONG)
    choice = choose_runtime(bundle, "auto", "auto", 3)
    assert choice.runtime == Runtime("openvino", "bf16", 3)
    assert "mean occupancy error 0.002" in choice.reason
    assert "cpu fp32: 0.48 of its speed" in choice.reason
    assert "openvino int8: mean occupancy error is 0.1 (at most 0.01)" in choice.reason


@pytest.mark.parametrize("make", [tiny.foreground_bundle, tiny.teacher_bundle, tiny.backbone_bundle])
def test_every_way_that_runs_here_is_tried_and_agrees(
    make: Callable[[Path], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgdd_fast.runtime.trials.FAR_SLOWER", 0.0)
    bundle = make(tmp_path)
    found = try_all(
        bundle, [Runtime("cpu", "fp32", 1), Runtime("openvino", "fp32", 1)], comparison_images(bundle)
    )
    assert [(trial.device, trial.precision) for trial in found] == [("cpu", "fp32"), ("openvino", "fp32")]
    assert all(trial.shortfalls == () and trial.images_per_second > 0 for trial in found)
    assert choose_runtime(bundle, "auto", "fp32", 1).runtime.device in ("cpu", "openvino")


def test_what_is_far_slower_than_one_that_agrees_is_not_compared_to_the_end(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways, seen = [Runtime("cpu", "fp32", 1), Runtime("openvino", "fp32", 1)], list[str]()
    run = BatchedNetwork.run

    def slowed(self: BatchedNetwork, feeds: dict[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        seen.append(self.engine.arithmetic)
        if "OpenVINO" in self.engine.arithmetic:
            deadline = time.process_time() + 0.02
            while time.process_time() < deadline:
                pass
        return run(self, feeds, outputs)

    monkeypatch.setattr(BatchedNetwork, "run", slowed)
    _, slow = try_all(bundle, ways, comparison_images(bundle))
    assert "of the speed of others" in slow.shortfalls[0]
    assert sum("OpenVINO" in name for name in seen) == 4


def test_what_decides_otherwise_is_not_taken(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    run = BatchedNetwork.run

    def distorted(self: BatchedNetwork, feeds: dict[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        results = run(self, feeds, outputs)
        if "OpenVINO" not in self.engine.arithmetic:
            return results
        return {name: np.roll(array, 1, axis=0) * np.float32(0.5) for name, array in results.items()}

    monkeypatch.setattr(BatchedNetwork, "run", distorted)
    monkeypatch.setattr("fgdd_fast.runtime.trials.FAR_SLOWER", 0.0)
    choice = choose_runtime(bundle, "auto", "fp32", 1)
    assert choice.runtime.device == "cpu"
    assert "openvino fp32" in choice.reason
    assert "is accepted" in choice.reason


def test_the_verdict_is_remembered_for_the_same_model_and_machine_only(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = trials(monkeypatch, REFERENCE, FAST)
    with caplog.at_level("INFO"):
        first = choose_runtime(bundle, "auto", "auto", 1)
        assert choose_runtime(bundle, "auto", "auto", 1) == first
    assert [record.getMessage().startswith(f"{bundle.name}: comparing") for record in caplog.records] == [
        True
    ]
    assert len(asked) == 1
    for file in (tmp_path / "cache" / "agreement").iterdir():
        file.write_text("{")  # damaged: compared again
    assert choose_runtime(bundle, "auto", "auto", 1) == first
    assert len(asked) == 2
    other = write_bundle(replace(bundle, onnx=tmp_path / "other.onnx"), bundle.onnx.read_bytes() + b"\x12\0")
    choose_runtime(other, "auto", "auto", 1)
    assert len(asked) == 3
    monkeypatch.setattr(devices, "probe", lambda device: Probe(device, device in ("cpu", "openvino"), "2.0"))
    choose_runtime(bundle, "auto", "auto", 1)
    assert len(asked) == 4


def test_a_record_of_trials_is_checked_where_it_is_read() -> None:
    row = {**asdict(REFERENCE), "figures": {"regret": float("nan")}}
    assert read_trials(json.dumps([row]).encode())[0].name == "cpu fp32"
    for damage in ("[" * 100_000, "{}", json.dumps([{**row, "images_per_second": "fast"}])):
        with pytest.raises(ValueError, match=r"nested|must be"):
            read_trials(damage.encode())


def test_a_runtime_that_cannot_run_the_model_is_not_taken(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = BatchedNetwork.__init__

    def refuse(self: BatchedNetwork, graph: Bundle, runtime: Runtime, **options: int) -> None:
        if runtime.device == "openvino":
            raise EngineError("an operator is unknown")
        opened(self, graph, runtime, **options)

    monkeypatch.setattr(BatchedNetwork, "__init__", refuse)
    choice = choose_runtime(bundle, "auto", "fp32", 1)
    assert choice.runtime.device == "cpu"
    assert "an operator is unknown" in choice.reason


def test_where_nothing_was_shown_to_agree_the_reference_runs(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials(monkeypatch, replace(REFERENCE, shortfalls=("with foreground is 0",)), FASTER_BUT_WRONG)
    choice = choose_runtime(bundle, "auto", "auto", 2)
    assert choice.runtime == Runtime("cpu", "fp32", 2)
    assert "with foreground is 0" in choice.reason


def test_nothing_that_agrees_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    trials(monkeypatch, FASTER_BUT_WRONG)
    variant_of(bundle, "int8")
    variant_of(bundle, "int8-u8")
    with pytest.raises(EngineError, match="decisions of fp32: openvino int8: mean occupancy error is 0"):
        choose_runtime(bundle, "auto", "int8", 1)


@pytest.mark.parametrize(
    ("running", "precision", "found", "taken"),
    [
        (["cpu"], "auto", None, "cpu"),  # the only way is taken unmeasured
        (["openvino"], "fp32", None, "openvino"),  # without the reference nothing can be compared
        (["cpu", "openvino", "cuda"], "auto", Trial("cuda", "fp32", 500.0, (), {}), "cuda"),
        (["cpu", "cuda"], "auto", Trial("cuda", "fp32", 500.0, ("mean regret is 1",), {}), "cpu"),
    ],
)
def test_a_gpu_goes_before_the_processor_where_it_decides_alike(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    running: list[Device],
    precision: Precision,
    found: Trial | None,
    taken: Device,
) -> None:
    only(monkeypatch, *running)
    asked = trials(monkeypatch, *([found] if found else []))
    choice = choose_runtime(bundle, "auto", precision, 2)
    assert (choice.runtime.device, choice.runtime.threads) == (taken, 2)
    assert bool(asked) == (found is not None)
    assert all(shortfall in choice.reason for shortfall in (found.shortfalls if found else ()))


def test_no_runtime_at_all_gives_the_install_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, advice="Run: pip install 'fgdd-fast[cpu]'")
    with pytest.raises(MissingExtraError, match=r"pip install 'fgdd-fast\[cpu\]'"):
        choose_runtime(bundle, "auto", "auto", 1)
    only(monkeypatch)
    with pytest.raises(EngineError, match=r"No runtime runs here: cpu 1\.0\. Run: fgdd-fast doctor"):
        choose_runtime(bundle, "auto", "auto", 1)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_asked_for_is_not_questioned(
    device: Device, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch)
    assert choose_runtime(bundle, device, "fp32", 1).runtime == Runtime(device, "fp32", 1)


def test_a_precision_takes_its_variant(bundle: Bundle) -> None:
    with pytest.raises(SettingsError, match="has no int8-u8 variant beside it"):
        runtime_for(bundle, "openvino", "int8")
    signed, unsigned, half = (variant_of(bundle, name) for name in ("int8", "int8-u8", "fp16"))
    assert runtime_for(bundle, "tensorrt", "int8").variants == {bundle.sha256: signed}
    assert runtime_for(bundle, "openvino", "int8").variants == {bundle.sha256: unsigned}
    assert runtime_for(bundle, "cpu", "int8").variants == {bundle.sha256: unsigned}
    assert runtime_for(bundle, "cuda", "auto") == Runtime("cuda", "fp16", 1, {bundle.sha256: half})
    assert runtime_for(bundle, "cpu", "auto").variants == {}
    assert runtime_for(bundle, "openvino", "bf16").variants == {}
    with pytest.raises(SettingsError, match="does not compute in fp16"):
        runtime_for(bundle, "cpu", "fp16")


def test_tf32_is_a_way_to_run_on_a_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_for(bundle, "cuda", "tf32") == Runtime("cuda", "tf32", 1)
    assert runtime_for(bundle, "cuda", "auto") == Runtime("cuda", "fp32", 1)  # it has to be asked for
    only(monkeypatch, "cpu", "cuda")
    rejected = Trial("cuda", "tf32", 900.0, ("same path is 0.9 (at least 0.95 is accepted)",), {})
    trials(monkeypatch, Trial("cuda", "fp32", 500.0, (), {}), rejected)
    choice = choose_runtime(bundle, "auto", "auto", 1)
    assert choice.runtime.precision == "fp32"
    assert "cuda tf32: same path is 0.9" in choice.reason
    trials(monkeypatch, rejected)
    with pytest.raises(EngineError, match="in the precision tf32 with the decisions of fp32"):
        choose_runtime(bundle, "auto", "tf32", 1)
    for device in ("cpu", "openvino"):
        with pytest.raises(
            SettingsError, match=f"{device} does not compute in tf32. Use the precision"
        ) as told:
            runtime_for(bundle, device, "tf32")
        assert "or the device" not in told.value.advice


def test_an_engine_in_tf32_is_none_in_fp32(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_files.stored(PlanStore(), plan_files.key(model_sha256=bundle.fingerprint, precision="tf32"))
    only(monkeypatch, "cpu", "tensorrt")
    trials(monkeypatch, Trial("tensorrt", "tf32", 500.0, (), {}))
    assert choose_runtime(bundle, "auto", "auto", 1).runtime == Runtime("tensorrt", "tf32", 1)
    ways = devices._ways(bundle, "tensorrt", "auto")
    assert [way.precision for way in ways] == ["tf32"]


def test_a_gpu_by_its_number(bundle: Bundle) -> None:
    half = variant_of(bundle, "fp16")
    found = choose_runtime(bundle, "cuda:1", "auto", 2).runtime
    assert found == Runtime("cuda:1", "fp16", 2, {bundle.sha256: half})
    with pytest.raises(SettingsError, match="The device cpu has no GPUs to choose from"):
        choose_runtime(bundle, "cpu:1", "auto", 2)


def test_a_variant_of_another_graph_is_refused(bundle: Bundle) -> None:
    write_bundle(
        replace(bundle, onnx=bundle.beside("fp16.onnx"), variant="fp16", variant_of="0" * 64),
        bundle.onnx.read_bytes(),
    )
    with pytest.raises(FgddError, match="is not the fp16 variant of"):
        runtime_for(bundle, "cuda", "fp16")


def test_variants_count_as_ways_to_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    variant_of(bundle, "int8")
    variant_of(bundle, "int8-u8")
    only(monkeypatch, "cpu", "openvino")
    trials(monkeypatch, Trial("cpu", "int8", 9.0, (), {}), Trial("openvino", "int8", 8.0, (), {}))
    choice = choose_runtime(bundle, "auto", "int8", 1)
    assert (choice.runtime.device, choice.runtime.precision) == ("cpu", "int8")
    assert next(iter(choice.runtime.variants.values())).variant == "int8-u8"


def test_a_large_network_is_shown_fewer_pictures(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(comparison_images(bundle)) == 12
    monkeypatch.setattr("fgdd_fast.runtime.trials.FULL_COMPARISON", 1)
    assert len(comparison_images(bundle)) == 2


def test_a_model_that_knows_no_word_of_the_scenes_runs_on_the_reference(tmp_path: Path) -> None:
    choice = choose_runtime(write_grounded_bundle(tmp_path), "auto", "auto", 2)
    assert choice.runtime == Runtime("cpu", "fp32", 2)
    assert "knows no word of the prompt" in choice.reason
