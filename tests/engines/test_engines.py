"""One contract for every runtime, and what a result may depend on: the sample alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from installed_devices import available_devices
from tiny_models import CLASSES, SIDE, tiny_bundle, tiny_description, tiny_feeds, tiny_graph, tiny_reference

from fgdd_engines.base import Array, Device, Engine, Precision, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_engines.factory import open_engine
from fgdd_engines.optional_imports import openvino_core
from fgdd_engines.pool import Pool
from fgdd_fast.errors import EngineError, MissingExtraError, SettingsError

BATCH = 4
PACKAGES = {"cpu": "onnxruntime", "openvino": "openvino"}
# How far a backend's logits and losses may be from exact ones; the logits' spread is about 1.
BACKENDS = {("cpu", "fp32"): 1e-5, ("openvino", "fp32"): 1e-5, ("openvino", "auto"): 0.05}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(params=BACKENDS, ids="-".join)
def backend(request: pytest.FixtureRequest) -> tuple[Device, Precision]:
    device, precision = request.param
    if device not in available_devices():
        pytest.skip(f"{PACKAGES[device]} is not installed")
    return device, precision


def opened(
    bundle: Bundle, backend: tuple[Device, Precision], *, batch: int = BATCH, threads: int = 2
) -> Engine:
    device, precision = backend
    return open_engine(bundle, device=device, precision=precision, axes={"batch": batch}, threads=threads)


@pytest.fixture
def engine(bundle: Bundle, backend: tuple[Device, Precision]) -> Iterator[Engine]:
    with opened(bundle, backend) as engine:
        yield engine


@pytest.fixture
def native_bf16() -> None:
    pytest.importorskip("openvino")
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not compute in bf16 natively")


class TestContract:
    def test_the_tensors_have_the_chosen_lengths(self, engine: Engine) -> None:
        assert engine.inputs == (
            TensorSpec("images", "uint8", (BATCH, SIDE, SIDE, 3)),
            TensorSpec("labels", "int32", (BATCH,)),
        )
        assert engine.outputs == (
            TensorSpec("logits", "float32", (BATCH, len(CLASSES))),
            TensorSpec("loss", "float32", (BATCH,)),
            TensorSpec("mask", "uint8", (BATCH, SIDE, SIDE)),
        )

    def test_it_computes_what_the_graph_says(self, engine: Engine, backend: tuple[Device, Precision]) -> None:
        feeds = tiny_feeds(BATCH)
        results = engine.run(feeds)
        for spec in engine.outputs:
            assert (results[spec.name].dtype.name, results[spec.name].shape) == (spec.dtype, spec.shape)
        logits, losses = tiny_reference(feeds)
        np.testing.assert_allclose(results["logits"], logits, rtol=0, atol=BACKENDS[backend])
        np.testing.assert_allclose(results["loss"], losses, rtol=0, atol=2 * BACKENDS[backend])

    def test_the_loss_is_exact_for_its_logits_at_any_precision(self, engine: Engine) -> None:
        feeds = tiny_feeds(BATCH)
        results = engine.run(feeds)
        logits = results["logits"].astype(np.float64)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(BATCH), feeds["labels"]]
        np.testing.assert_allclose(results["loss"], losses, rtol=1e-6, atol=1e-6)

    def test_only_the_outputs_wanted_come(self, engine: Engine) -> None:
        feeds = tiny_feeds(BATCH)
        everything = engine.run(feeds)
        some = engine.run(feeds, ["mask", "loss"])
        assert list(some) == ["mask", "loss"]
        assert all(np.array_equal(some[name], everything[name]) for name in some)

    def test_results_are_the_callers_own(self, engine: Engine) -> None:
        first = engine.run(tiny_feeds(BATCH, seed=0))
        kept = {name: array.copy() for name, array in first.items()}
        engine.run(tiny_feeds(BATCH, seed=1))
        assert all(np.array_equal(first[name], kept[name]) for name in kept)
        assert all(array.flags.writeable for array in first.values())

    def test_feeds_may_be_read_only_and_strided(self, engine: Engine) -> None:
        feeds = tiny_feeds(BATCH)
        mirrored = {name: np.ascontiguousarray(feed[::-1])[::-1] for name, feed in feeds.items()}
        for feed in mirrored.values():
            feed.setflags(write=False)
        expected, found = engine.run(feeds), engine.run(mirrored)
        assert all(np.array_equal(expected[name], found[name]) for name in expected)

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"labels": None}, "takes the inputs"),
            ({"weights": np.zeros(3)}, "takes the inputs"),
            ({"labels": np.zeros(BATCH, np.int64)}, "'labels' takes int32"),
            ({"images": np.zeros((BATCH, SIDE, SIDE, 3), np.float32)}, "'images' takes uint8"),
            ({"images": np.zeros((BATCH - 1, SIDE, SIDE, 3), np.uint8)}, "'images' takes uint8"),
            ({"images": np.zeros((BATCH, 3, SIDE, SIDE), np.uint8)}, "'images' takes uint8"),
        ],
    )
    def test_wrong_feeds_are_refused(
        self, engine: Engine, change: dict[str, Array | None], problem: str
    ) -> None:
        feeds = {name: feed for name, feed in {**tiny_feeds(BATCH), **change}.items() if feed is not None}
        with pytest.raises(EngineError, match=problem):
            engine.run(feeds)

    def test_an_unknown_output_is_refused(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=r"no output.*'probabilities'"):
            engine.run(tiny_feeds(BATCH), ["probabilities"])

    def test_a_closed_engine_refuses_to_run(self, engine: Engine) -> None:
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.run(tiny_feeds(BATCH))

    def test_leaving_the_context_closes(self, bundle: Bundle, backend: tuple[Device, Precision]) -> None:
        with opened(bundle, backend) as engine:
            engine.run(tiny_feeds(BATCH))
        with pytest.raises(EngineError, match="closed"):
            engine.run(tiny_feeds(BATCH))

    def test_the_description_names_runtime_precision_and_streams(
        self, engine: Engine, backend: tuple[Device, Precision]
    ) -> None:
        runtime = {"cpu": "ONNX Runtime ", "openvino": "OpenVINO "}[backend[0]]
        assert engine.arithmetic.startswith(runtime)
        assert engine.arithmetic.endswith((", CPU, fp32", ", CPU, bf16"))
        assert engine.description.startswith(engine.arithmetic)
        assert f", {engine.streams} stream" in engine.description


class TestWhatAResultDependsOn:
    """A sample's result is the same to the last bit whatever surrounds it."""

    COUNT = 24

    def results(self, engine: Engine, order: list[int], workers: int) -> dict[int, set[bytes]]:
        """Run the samples in this order, in whole batches from several threads; what each one gave."""
        feeds = tiny_feeds(self.COUNT)
        batch = engine.inputs[0].shape[0]
        assert isinstance(batch, int)
        parts = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]

        def run(part: list[int]) -> list[bytes]:
            outputs = engine.run({name: feed[part] for name, feed in feeds.items()})
            return [b"".join(array[row].tobytes() for array in outputs.values()) for row in range(batch)]

        given: dict[int, set[bytes]] = {}
        with ThreadPoolExecutor(workers) as pool:
            for part, rows in zip(parts, pool.map(run, parts), strict=True):
                for sample, result in zip(part, rows, strict=True):
                    given.setdefault(sample, set()).add(result)
        return given

    @pytest.mark.parametrize("batch", [1, 6])
    def test_the_sample_alone(self, bundle: Bundle, backend: tuple[Device, Precision], batch: int) -> None:
        rng = np.random.default_rng(0)
        order = [int(i) for _ in range(12) for i in rng.permutation(self.COUNT)]
        by_threads = []
        for threads in (1, 2, 2, 3):
            with opened(bundle, backend, batch=batch, threads=threads) as engine:
                by_threads.append(self.results(engine, order, workers=threads))
        assert all(len(results) == 1 for results in by_threads[0].values())
        assert all(given == by_threads[0] for given in by_threads)
        assert len(by_threads[0]) == self.COUNT

    def test_four_threads_on_two_streams(self, engine: Engine) -> None:
        order = list(range(self.COUNT)) * 8
        assert self.results(engine, order, workers=4) == self.results(engine, order, workers=1)


class TestOpening:
    @pytest.mark.parametrize(
        "axes", [{}, {"height": 8}, {"batch": 2, "height": 8}, {"batch": 0}, {"batch": -1}]
    )
    def test_axes_that_are_not_the_models_are_refused(
        self, bundle: Bundle, backend: tuple[Device, Precision], axes: dict[str, int]
    ) -> None:
        with pytest.raises(EngineError, match="'tiny'"):
            open_engine(bundle, device=backend[0], axes=axes, threads=1)

    def test_no_threads_are_refused(self, bundle: Bundle, backend: tuple[Device, Precision]) -> None:
        with pytest.raises(SettingsError, match="at least one thread"):
            opened(bundle, backend, threads=0)

    @pytest.mark.parametrize("device", ["cpu", "openvino"])
    def test_a_missing_runtime_is_named_with_its_extra(
        self, bundle: Bundle, device: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, PACKAGES[device], None)
        assert device not in available_devices()
        with pytest.raises(MissingExtraError, match=r"pip install 'fgdd-fast\[cpu\]'") as caught:
            open_engine(bundle, device=device, axes={"batch": 1}, threads=1)
        assert caught.value.package == PACKAGES[device]

    @pytest.mark.parametrize("content", [b"", b"no graph at all", tiny_graph()[:-100]])
    def test_a_graph_that_cannot_load(
        self,
        tmp_path: Path,
        backend: tuple[Device, Precision],
        content: bytes,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        broken = write_bundle(tiny_description(tmp_path / "broken.onnx"), content)
        with pytest.raises(EngineError, match=r"(cannot load 'tiny': \S|sidecar of 'tiny')") as caught:
            opened(broken, backend)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_an_unknown_operator(
        self, tmp_path: Path, backend: tuple[Device, Precision], capfd: pytest.CaptureFixture[str]
    ) -> None:
        model = onnx.load_model_from_string(tiny_graph())
        next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Frobnicate"
        broken = write_bundle(tiny_description(tmp_path / "broken.onnx"), model.SerializeToString())
        with pytest.raises(EngineError, match=r"cannot load 'tiny': .*Frobnicate"):
            opened(broken, backend)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        "changes",
        [
            {"inputs": (TensorSpec("pictures", "uint8", ("batch", SIDE, SIDE, 3)),)},
            {"outputs": (TensorSpec("logits", "float32", ("batch", 7)),)},
            {"outputs": (TensorSpec("logits", "float16", ("batch", len(CLASSES))),)},
            {"outputs": (TensorSpec("logits", "float32", ("rows", len(CLASSES))),)},
        ],
    )
    def test_a_sidecar_that_is_not_the_graphs(
        self, bundle: Bundle, backend: tuple[Device, Precision], changes: dict[str, Any]
    ) -> None:
        with pytest.raises(EngineError, match="'tiny'"):
            opened(replace(bundle, **changes), backend)

    def test_the_runtimes_stay_silent_and_at_home(self, bundle: Bundle, tmp_path: Path) -> None:
        """Nothing on stderr, no telemetry, no file in the home folder."""
        devices = available_devices()
        code = f"""if True:
            import sys
            from pathlib import Path
            import numpy as np
            from fgdd_engines.bundle.bundle import load_bundle
            from fgdd_engines.factory import open_engine
            bundle = load_bundle(Path({str(bundle.onnx)!r}))
            for device in {devices!r}:
                with open_engine(bundle, device=device, axes={{"batch": 1}}, threads=1) as engine:
                    engine.run({{spec.name: np.zeros(spec.shape, spec.dtype) for spec in engine.inputs}})
            assert "openvino_telemetry" not in sys.modules
            assert "openvino.tools.ovc" in sys.modules or {devices!r} == ("cpu",)
        """
        done = subprocess.run(
            [sys.executable, "-c", code], env={"HOME": str(tmp_path)}, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert list(tmp_path.iterdir()) == []


class TestOpenVinoPrecision:
    def test_auto_takes_bf16_where_it_is_native(self, bundle: Bundle, native_bf16: None) -> None:
        with opened(bundle, ("openvino", "auto")) as engine:
            assert engine.arithmetic.endswith("bf16")

    def test_fp32_stays_fp32(self, bundle: Bundle) -> None:
        pytest.importorskip("openvino")
        with opened(bundle, ("openvino", "fp32")) as engine:
            assert engine.arithmetic.endswith("fp32")

    def test_a_cpu_without_bf16(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        openvino = pytest.importorskip("openvino")

        class OldCore(openvino.Core):  # type: ignore[misc]
            def get_property(self, device: str, name: str) -> Any:
                return ["FP32"] if name == "OPTIMIZATION_CAPABILITIES" else super().get_property(device, name)

        monkeypatch.setattr(openvino, "Core", OldCore)
        with opened(bundle, ("openvino", "auto")) as engine:
            assert engine.arithmetic.endswith("fp32")
        with pytest.raises(SettingsError, match="does not compute in bf16 natively"):
            opened(bundle, ("openvino", "bf16"))

    def test_another_precision_than_asked_for_is_refused(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, native_bf16: None
    ) -> None:
        import openvino

        class DeafCore(openvino.Core):  # type: ignore[misc]
            def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
                return super().compile_model(model, device, {**settings, "INFERENCE_PRECISION_HINT": "f32"})

        monkeypatch.setattr(openvino, "Core", DeafCore)
        with pytest.raises(EngineError, match="in f32, though asked for bf16"):
            opened(bundle, ("openvino", "bf16"))


class TestFailures:
    def test_a_runtimes_reason_becomes_one_line(self) -> None:
        message = (
            "Exception from src/core.cpp:84:\nCheck 'a == b' failed at src/fe.cpp:563:\nNo such layer.\n\n"
        )
        with pytest.raises(EngineError) as caught, wrapped_as_engine_error("It cannot load"):
            raise RuntimeError(message)
        assert caught.value.problem == "It cannot load: No such layer"

    @pytest.mark.parametrize(
        "error",
        [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("Failed to allocate memory for 8")],
    )
    def test_want_of_memory_comes_with_advice(self, error: Exception) -> None:
        with (
            pytest.raises(EngineError, match=r"cannot run: out of memory\. Use a smaller batch"),
            wrapped_as_engine_error("It cannot run"),
        ):
            raise error

    def test_an_interrupt_passes(self) -> None:
        with pytest.raises(KeyboardInterrupt), wrapped_as_engine_error("It cannot run"):
            raise KeyboardInterrupt


class TestPool:
    def test_closing_waits_for_what_is_lent_and_turns_waiters_away(self) -> None:
        pool = Pool(["only"])
        turned_away = threading.Event()

        def borrow() -> None:
            with pool.borrow():
                pass

        def wait_in_vain() -> None:
            with pytest.raises(EngineError, match="closed"):
                borrow()
            turned_away.set()

        with pool.borrow() as member:
            assert member == "only"
            closer = threading.Thread(target=pool.close)
            closer.start()
            closer.join(0.05)
            assert closer.is_alive()
            waiter = threading.Thread(target=wait_in_vain)
            waiter.start()
        closer.join(5)
        waiter.join(5)
        assert not closer.is_alive()
        assert turned_away.is_set()
        with pytest.raises(EngineError, match="closed"):
            borrow()

    def test_a_member_comes_back_after_an_error(self) -> None:
        pool = Pool(["only"])
        with pytest.raises(ValueError, match="wrong"), pool.borrow():
            raise ValueError("wrong")
        with pool.borrow() as member:
            assert member == "only"
