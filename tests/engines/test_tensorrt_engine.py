"""Running TensorRT plans, on stand-ins for CUDA and TensorRT; and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from every_engine import BATCH, FakeMachine, compute, fake_machine
from fake_cuda import Error
from fake_tensorrt import fake_plan
from tiny_models import SIDE, tiny_bundle, tiny_feeds, tiny_reference

from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.tensorrt_backend.api import TensorRt, import_tensorrt
from fgdd_engines.tensorrt_backend.build import Profile, build_plan
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device, why_no_cuda
from fgdd_engines.tensorrt_backend.engine import TensorRtEngine
from fgdd_fast.errors import EngineError, FgddError

IMAGES = BATCH * SIDE * SIDE * 3
EVERYTHING_IN = [f"copy in {IMAGES}", f"copy in {BATCH * 4}"]


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def either(request: pytest.FixtureRequest, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return fake_machine(bundle, monkeypatch, request.param)


@pytest.fixture
def full(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return fake_machine(bundle, monkeypatch, "tensorrt")


def check_results(results: dict[str, Array], feeds: dict[str, Array]) -> None:
    expected = compute(feeds)
    assert all(np.array_equal(results[name], expected[name].astype(results[name].dtype)) for name in results)


class TestRunning:
    def test_only_the_outputs_wanted_are_copied(self, full: FakeMachine) -> None:
        with full.open(streams=1) as engine:
            engine.run(tiny_feeds(BATCH), ["loss"])
            assert full.cuda.events == [*EVERYTHING_IN, "execute", f"copy out {BATCH * 4}"]
            full.cuda.events.clear()
            feeds = tiny_feeds(BATCH, 7)
            results = engine.run(feeds, ["mask", "loss"])
            assert list(results) == ["mask", "loss"]
            check_results(results, feeds)
            assert full.cuda.events[-2:] == [f"copy out {BATCH * 4}", f"copy out {BATCH * SIDE * SIDE}"]

    def test_a_failure_of_the_network_says_why(self, either: FakeMachine) -> None:
        with either.open() as engine:
            either.module.refuses = "execute_async_v3"
            with pytest.raises(EngineError, match=r"failed to run the engine: Error Code 1: Cask"):
                engine.run(tiny_feeds(BATCH))

    def test_a_failure_of_the_gpu_says_where(self, either: FakeMachine) -> None:
        with either.open() as engine:
            either.cuda.failures["cudaEventSynchronize"] = Error.cudaErrorIllegalAddress
            with pytest.raises(EngineError, match=r"cudaEventSynchronize.*cudaErrorIllegalAddress"):
                engine.run(tiny_feeds(BATCH))


class TestGraphs:
    def test_the_second_call_is_launched_whole(self, full: FakeMachine) -> None:
        with full.open(streams=1) as engine:
            assert engine.uses_cuda_graphs is None
            engine.run(tiny_feeds(BATCH))
            assert "launch" not in full.cuda.events
            assert engine.description.endswith(", 1 stream, CUDA graphs")
            plain = full.cuda.events.copy()
            full.cuda.events.clear()
            engine.run(tiny_feeds(BATCH, 1))
            assert full.cuda.events == ["launch", *plain]

    def test_each_choice_of_outputs_has_its_own(self, full: FakeMachine) -> None:
        with full.open(streams=1) as engine:
            for wanted in (["loss"], ["mask", "loss"], ["loss", "mask"], ["loss"]):
                engine.run(tiny_feeds(BATCH), wanted)
            assert len(full.cuda.graphs) == 2
            assert full.cuda.events.count("launch") == 2

    @pytest.mark.parametrize("by", ["", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"])
    def test_where_recording_is_refused_calls_go_on_without(self, full: FakeMachine, by: str) -> None:
        """TensorRT refuses it while it is recorded, or CUDA afterwards."""
        if by:
            full.cuda.failures[by] = Error.cudaErrorStreamCaptureUnsupported
        full.module.capturable = bool(by)
        with full.open(streams=1) as engine:
            for seed in range(3):
                feeds = tiny_feeds(BATCH, seed)
                check_results(engine.run(feeds), feeds)
            assert engine.uses_cuda_graphs is False
            assert engine.description.endswith(", without CUDA graphs")
        assert full.cuda.events.count("error cleared") == 1
        assert full.cuda.is_empty

    def test_tensorrt_for_rtx_records_by_itself(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rtx = fake_machine(bundle, monkeypatch, "tensorrt-rtx")
        with rtx.open() as engine:
            for seed in range(2):
                engine.run(tiny_feeds(BATCH, seed))
        (configuration,) = rtx.module.configurations  # one for both contexts: they share compiled kernels
        assert configuration.cuda_graph_strategy == "whole"
        assert configuration.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert "launch" not in rtx.cuda.events


class TestSeveralGpus:
    def test_everything_is_on_the_one_that_was_chosen(self, either: FakeMachine) -> None:
        """The stand-in works with what is on the device to which a thread is turned alone."""
        either.cuda.devices = 2
        with either.open(gpu=1) as engine:
            assert set(either.cuda.places.values()) == {1}
            assert engine.arithmetic.endswith(", Thor, fp32")
            assert either.cuda.here == 0  # other code of this process goes on where it was
            for seed in range(3):
                feeds = tiny_feeds(BATCH, seed)
                check_results(engine.run(feeds), feeds)
            assert either.cuda.here == 0
        assert either.cuda.is_empty

    def test_the_first_is_meant_wherever_a_thread_is_turned(self, either: FakeMachine) -> None:
        either.cuda.devices = 2
        either.cuda.cudaSetDevice(1)
        with either.open() as engine:
            check_results(engine.run(tiny_feeds(BATCH)), tiny_feeds(BATCH))
            assert engine.arithmetic.endswith(", Orin, fp32")
            assert either.cuda.here == 1

    def test_one_that_is_not_there(self, either: FakeMachine) -> None:
        with pytest.raises(
            EngineError, match="cannot run 'tiny': There is no GPU 1: the only one is number 0"
        ):
            either.open(gpu=1)


class TestContexts:
    @pytest.mark.parametrize("streams", [1, 2])
    def test_there_are_as_many_as_calls_in_flight(self, either: FakeMachine, streams: int) -> None:
        with either.open(streams=streams) as engine:
            check_results(engine.run(tiny_feeds(BATCH)), tiny_feeds(BATCH))
            assert engine.streams == streams
        assert len(either.module.contexts) == streams


class TestClosing:
    def test_everything_is_freed_once(self, either: FakeMachine) -> None:
        engine = either.open()
        engine.run(tiny_feeds(BATCH))
        assert not either.cuda.is_empty
        engine.close()
        engine.close()
        assert either.cuda.is_empty
        with pytest.raises(EngineError, match="closed"):
            engine.run(tiny_feeds(BATCH))

    @pytest.mark.parametrize(
        ("refuse", "problem"),
        [
            (
                "create_execution_context",
                r"cannot make an execution context: .*OutOfMemory.*use a smaller batch",
            ),
            ("set_tensor_address", "refuses these shapes"),
            ("set_input_shape", "refuses these shapes"),
        ],
    )
    def test_an_engine_that_cannot_be_opened_leaves_nothing(
        self, either: FakeMachine, refuse: str, problem: str
    ) -> None:
        either.module.refuses = refuse
        with pytest.raises(EngineError, match=problem):
            either.open()
        assert either.cuda.is_empty

    @pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
    def test_want_of_memory_leaves_nothing(
        self, either: FakeMachine, function: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real: Callable[..., tuple[Error, int]] = getattr(either.cuda, function)
        calls = iter(range(100))

        def until_full(*arguments: int) -> tuple[Error, int]:
            return (Error.cudaErrorMemoryAllocation, 0) if next(calls) == 7 else real(*arguments)

        until_full.__name__ = function
        monkeypatch.setattr(either.cuda, function, until_full)
        with pytest.raises(EngineError, match=f"{function}: out of memory .*smaller batch"):
            either.open()
        assert either.cuda.is_empty


class TestPlans:
    def test_a_plan_that_is_none(self, either: FakeMachine) -> None:
        message = r"cannot load the plan of 'tiny': Error Code 1: Magic tag does not match\. Build it again"
        with pytest.raises(EngineError, match=message):
            either.open(plan=b"not a plan")

    @pytest.mark.parametrize(
        ("batches", "batch", "problem"),
        [
            ((1, 4, 8), 9, "was built for batch 1 to 8, not 9"),
            ((2, 4, 8), 1, "was built for batch 2 to 8, not 1"),
            ((4, 4, 4), 2, "was built for batch 4, not 2"),
        ],
    )
    def test_a_batch_for_which_it_was_not_built(
        self, either: FakeMachine, batches: tuple[int, int, int], batch: int, problem: str
    ) -> None:
        plan = fake_plan(either.bundle.inputs, either.bundle.outputs, batches)
        with pytest.raises(EngineError, match=problem):
            either.open(plan=plan, batch=batch)

    def test_a_plan_for_one_batch(self, either: FakeMachine) -> None:
        plan = fake_plan(either.bundle.inputs, either.bundle.outputs, (2, 2, 2))
        with either.open(plan=plan, batch=2) as engine:
            check_results(engine.run(tiny_feeds(2)), tiny_feeds(2))

    def test_a_plan_of_another_network(self, either: FakeMachine) -> None:
        inputs, outputs = either.bundle.inputs, either.bundle.outputs
        others = [
            fake_plan(inputs[:1], outputs, (1, 4, 8)),
            fake_plan(inputs, outputs[1:], (1, 4, 8)),
            fake_plan((inputs[0], replace(inputs[1], dtype="int64")), outputs, (1, 4, 8)),
            fake_plan(inputs, (replace(outputs[0], shape=("batch", 9)), *outputs[1:]), (1, 4, 8)),
            fake_plan((replace(inputs[0], shape=("batch",)), inputs[1]), outputs, (1, 4, 8)),
            fake_plan((*inputs, outputs[0]), outputs[1:], (1, 4, 8)),
        ]
        for plan in others:
            with pytest.raises(EngineError, match=r"The plan is not of .*Build it again"):
                either.open(plan=plan)
        assert either.cuda.is_empty

    def test_without_a_gpu(self, either: FakeMachine) -> None:
        either.cuda.driver = 0
        with pytest.raises(EngineError, match=r"cannot run 'tiny': There is no NVIDIA driver"):
            either.open()


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def real(request: pytest.FixtureRequest) -> Iterator[TensorRt]:
    if find_cuda_device() is None:
        pytest.skip(why_no_cuda())
    try:
        yield import_tensorrt(request.param)
    except FgddError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("batches", ["1:2:4", "4"])
def test_on_a_real_gpu(real: TensorRt, tmp_path: Path, batches: str) -> None:
    bundle = tiny_bundle(tmp_path)
    built = build_plan(real, bundle, Profile.parse(batches), axes={})
    with TensorRtEngine(real, bundle, built.plan, {"batch": BATCH}) as engine:
        for seed in range(3):
            feeds = tiny_feeds(BATCH, seed)
            results = engine.run(feeds)
            logits, losses = tiny_reference(feeds)
            np.testing.assert_allclose(results["logits"], logits, rtol=0, atol=1e-5)
            np.testing.assert_allclose(results["loss"], losses, rtol=0, atol=2e-5)
