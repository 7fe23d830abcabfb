"""Engines of whole bundles: which graphs, for which batches, and used only where decisions agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline
from engine_machine import BAD, GOOD, HERE, ORIN, TENSORRT, THOR, Machine, add_variant
from tiny_grounded import write_grounded_bundle
from tiny_models import tiny_bundle

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.tensorrt_backend.api import Flavour, TensorRt
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_engines.tensorrt_backend.plans import usability as plan_usability
from fgdd_engines.tensorrt_backend.plans.key import PlanKey
from fgdd_engines.tensorrt_backend.plans.store import Plan, PlanStore
from fgdd_engines.tensorrt_backend.plans.usability import Here
from fgdd_fast.errors import EngineError, FgddError, MissingExtraError, SettingsError
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime import engine_building, parity
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.engine_building import BuildSettings, build_engines, choose_tensorrt
from fgdd_fast.runtime.engine_checking import (
    Checked,
    Finding,
    graphs_of,
    image_batches,
    profile_of,
    verify_engines,
)

RTX_5090 = CudaDevice("RTX 5090", (12, 0), 32 << 30, "13.2", "13.2")


def no_images(bundle: Bundle) -> tuple[()]:
    return ()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines")


def build(bundle: Bundle, store: PlanStore, **settings: Any) -> Checked:
    return build_engines(bundle, BuildSettings(**settings), no_images, store=store)


def wanted(plan: Plan) -> PlanKey:
    return replace(plan.key, profile=Profile(1, 1, 1))


# --- graphs -----------------------------------------------------------------------------------------------


def test_every_graph_of_a_bundle_is_built_and_the_text_encoder_in_fp32(tmp_path: Path) -> None:
    bundle = write_grounded_bundle(tmp_path, split=True)
    for graph in (bundle, bundle.part("segmenter"), bundle.part("text")):
        add_variant(graph, "fp16")
    graphs = graphs_of(bundle, "tensorrt", "fp16", Profile(1, 2, 4))
    assert [str(graph.profile) for graph in graphs] == ["1:2:4", "1:1:1", "1:2:4"]
    assert {graph.bundle.role: graph.bundle.variant for graph in graphs} == {
        "foreground": "fp16",
        "segmenter": "fp16",
        "text-encoder": None,
    }
    keys = [graph.key(HERE["tensorrt"][0]) for graph in graphs]
    assert {key.model: key.precision for key in keys} == {
        "tiny-grounded-split": "fp16",
        "tiny-grounded-split.segmenter": "fp16",
        "tiny-grounded-split.text": "fp32",
    }


def test_a_teacher_sees_several_views_of_an_image_and_other_models_images(tmp_path: Path) -> None:
    teacher, saliency = tiny_bundle(tmp_path), tiny_pipeline.foreground_bundle(tmp_path)
    assert str(profile_of(teacher, Profile(1, 4, 8))) == "1:24:48"
    defaults = [profile_of(each, None) for each in (teacher, saliency, write_grounded_bundle(tmp_path))]
    assert list(map(str, defaults)) == ["1:192:256", "1:32:32", "1:4:4"]  # what is taken at once
    (main,) = graphs_of(teacher, "tensorrt", "fp32", profile_of(teacher, Profile(7, 8, 9)))
    assert image_batches(main) == (9, 2)  # views for 9 images; for 2, which are at least 7 views
    (main,) = graphs_of(saliency, "tensorrt", "fp32", Profile(2, 4, 8))
    assert image_batches(main) == (8, 2)


# --- building and checking --------------------------------------------------------------------------------


def test_what_running_would_ask_for_is_built(tmp_path: Path, machine: Machine, store: PlanStore) -> None:
    bundle = tiny_bundle(tmp_path)
    assert [plan.key.precision for plan in build(bundle, store).plans] == ["fp32"]
    add_variant(bundle, "fp16")
    (plan,) = build(bundle, store).plans
    assert plan.key.precision == runtime_for(bundle, "tensorrt", "auto").precision == "fp16"
    assert machine.compared[-1]["candidate"] == runtime_for(bundle, "tensorrt", "auto")


def test_an_engine_runs_before_it_may_be_used_only_to_be_compared(
    tmp_path: Path, machine: Machine, store: PlanStore
) -> None:
    found: list[Plan] = []
    machine.while_comparing = lambda: found.append(store.load(wanted(store.list()[0]))[0])
    (plan,) = build(tiny_bundle(tmp_path), store).plans
    assert found == [replace(plan, state="unchecked", parity={})]


def test_a_comparison_that_fails_leaves_engines_unused(
    tmp_path: Path, machine: Machine, store: PlanStore
) -> None:
    def fail() -> None:
        raise EngineError("out of memory")

    machine.while_comparing = fail
    with pytest.raises(EngineError, match="out of memory"):
        build(tiny_bundle(tmp_path), store)
    (plan,) = store.list()
    with pytest.raises(EngineError, match="not been compared"):
        store.load(wanted(plan))[0]


def test_a_shared_text_encoder_is_not_to_blame_for_the_others(
    tmp_path: Path, machine: Machine, store: PlanStore
) -> None:
    bundle = write_grounded_bundle(tmp_path)
    add_variant(bundle, "fp16")
    assert {plan.state for plan in build(bundle, store, precision="fp32").plans} == {"passed"}
    machine.parity = BAD
    main, text = build(bundle, store, precision="fp16").plans
    assert (main.state, text.state) == ("below bar", "passed")
    assert [name for name, _ in machine.built] == [
        "tiny-grounded.onnx",
        "tiny-grounded.text.onnx",
        "tiny-grounded.fp16.onnx",
    ]


def test_a_network_on_which_no_decision_depends_is_built_only(
    tmp_path: Path, machine: Machine, store: PlanStore
) -> None:
    bundle = write_grounded_bundle(tmp_path, split=True).part("segmenter")
    assert build(bundle, store).unchecked == "no decision depends on a segmenter alone"


# --- which TensorRT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "gpu", "expected"),
    [
        ({"tensorrt", "tensorrt-rtx"}, ORIN, "tensorrt"),
        ({"tensorrt", "tensorrt-rtx"}, None, "tensorrt-rtx"),
        ({"tensorrt"}, None, "tensorrt"),
        ({"tensorrt-rtx"}, RTX_5090, "tensorrt-rtx"),
    ],
)
def test_the_first_tensorrt_that_can_build_here_is_taken(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], gpu: CudaDevice | None, expected: str
) -> None:
    install(monkeypatch, installed, gpu)
    assert choose_tensorrt("auto").flavour == expected
    for missing in {"tensorrt", "tensorrt-rtx"} - installed:
        with pytest.raises(MissingExtraError):
            choose_tensorrt(missing)
    installed.clear()
    with pytest.raises(MissingExtraError):
        choose_tensorrt("auto")


def install(monkeypatch: pytest.MonkeyPatch, installed: set[str], gpu: CudaDevice | None) -> None:
    """Put these packages, and no other, onto a machine with this GPU."""

    def fake_import(flavour: Flavour) -> TensorRt:
        if flavour not in installed:
            raise MissingExtraError(flavour, "rtx")
        return replace(TENSORRT, flavour=flavour)

    monkeypatch.setattr(engine_building, "import_tensorrt", fake_import)
    monkeypatch.setattr(engine_building, "find_cuda_device", lambda index: None if index else gpu)


@pytest.mark.parametrize("gpu", [ORIN, replace(RTX_5090, name="NVIDIA H100", compute_capability=(9, 0))])
def test_tensorrt_for_rtx_is_not_taken_for_a_gpu_that_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, gpu: CudaDevice
) -> None:
    install(monkeypatch, {"tensorrt-rtx"}, gpu)
    with pytest.raises(MissingExtraError, match="'tensorrt' is not installed"):
        choose_tensorrt("auto")
    with pytest.raises(EngineError, match=f"has no kernels for {gpu.name}.*Use the device tensorrt"):
        choose_tensorrt("tensorrt-rtx")


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ("cuda", "The device cuda runs no engines. Use tensorrt or tensorrt-rtx"),
        ("tensorrt:x", "does not end with the number of a GPU"),
        ("tensorrt:1", "No engine can be built on tensorrt:1: "),
    ],
)
def test_where_no_engine_can_be_built(monkeypatch: pytest.MonkeyPatch, device: str, problem: str) -> None:
    install(monkeypatch, {"tensorrt"}, ORIN)
    with pytest.raises(FgddError, match=problem):
        choose_tensorrt(device)


# --- which GPU, and TF32 ----------------------------------------------------------------------------------


def test_an_engine_for_the_second_gpu(tmp_path: Path, machine: Machine, store: PlanStore) -> None:
    """It is built and compared there, and known by the GPU's name and capability, not by its number."""
    machine.second = THOR
    (plan,) = build(tiny_bundle(tmp_path), store, device="tensorrt:1").plans
    assert (plan.key.device, plan.key.compute_capability) == ("Thor", "11.0")
    assert machine.options[0]["gpu"] == 1
    assert machine.compared[0]["candidate"].device == "tensorrt:1"
    here = plan_usability.platforms_here()
    assert [platform.device for platform in here["tensorrt"]] == ["Orin", "Thor"]
    assert plan_usability.why_unusable(plan, here) == plan_usability.why_stale(plan, here) == ""
    assert plan_usability.stale_timing_caches(store, here) == ()
    assert not verify(store, here)["tiny"].wrong
    assert machine.compared[-1]["candidate"].device == "tensorrt:1"
    machine.device, machine.second = THOR, ORIN  # the numbers change, the GPUs do not
    assert not verify(store, plan_usability.platforms_here())["tiny"].wrong
    assert machine.compared[-1]["candidate"].device == "tensorrt"


def test_tf32_is_an_engine_of_its_own(tmp_path: Path, machine: Machine, store: PlanStore) -> None:
    bundle = write_grounded_bundle(tmp_path)
    for precision in ("fp32", "tf32"):
        plans = build(bundle, store, precision=precision).plans
        assert [plan.key.precision for plan in plans] == [precision] * 2
        assert {options["tf32"] for options in machine.options[-2:]} == {precision == "tf32"}
        assert machine.compared[-1]["candidate"] == Runtime("tensorrt", precision, 1)
        assert store.load(replace(wanted(plans[0]), precision=precision))[0] == plans[0]
    assert len(machine.built) == 4
    words = {finding.words for finding in verify(store).values()}
    assert words == {"whole; passed", "whole; a part of tiny-grounded"}
    machine.device = replace(ORIN, name="T4", compute_capability=(7, 5))
    with pytest.raises(SettingsError, match=r"T4 \(7\.5\) does not compute in tf32"):
        build(bundle, store, precision="tf32")


def test_tf32_is_judged_by_decisions_as_a_lower_precision_is(tmp_path: Path) -> None:
    assert parity._level(runtime_for(tiny_bundle(tmp_path), "tensorrt", "tf32")) == "lower precision"


# --- verifying --------------------------------------------------------------------------------------------


def verify(store: PlanStore, here: Here = HERE) -> dict[str, Finding]:
    found = verify_engines(store.list(), here, no_images, store=store)
    return {finding.name.rpartition("-fp")[0]: finding for finding in found}


def test_verifying_compares_again_and_records_the_outcome(
    tmp_path: Path, machine: Machine, store: PlanStore
) -> None:
    bundle = write_grounded_bundle(tmp_path, split=True)
    build(bundle, store)
    assert {name: finding.words for name, finding in verify(store).items()} == {
        "tiny-grounded-split": "whole; passed",
        "tiny-grounded-split.segmenter": "whole; a part of tiny-grounded-split",
        "tiny-grounded-split.text": "whole; a part of tiny-grounded-split",
    }
    machine.parity = BAD
    finding = verify(store)["tiny-grounded-split"]
    assert finding.wrong
    assert finding.words.startswith("its decisions differ too much: mean occupancy error is 0.2")
    states = {plan.key.model.rpartition(".")[2]: plan.state for plan in store.list()}
    assert states == {"tiny-grounded-split": "below bar", "segmenter": "below bar", "text": "passed"}
    machine.parity = GOOD
    assert not verify(store)["tiny-grounded-split"].wrong
    assert {plan.state for plan in store.list()} == {"passed"}


def test_verifying_says_what_is_wrong(tmp_path: Path, machine: Machine, store: PlanStore) -> None:
    bundle = write_grounded_bundle(tmp_path)
    main, text = build(bundle, store).plans
    newer = {"tensorrt": (replace(HERE["tensorrt"][0], version="11.0"),)}
    assert "was built by tensorrt 10.16.2, not 11.0" in verify(store, newer)["tiny-grounded"].words
    assert "tensorrt, which runs it, is not installed" in verify(store, {})["tiny-grounded"].words
    store.remove(text.path)
    assert "tiny-grounded.text, which it runs with, is missing" in verify(store)["tiny-grounded"].words
    tiny_bundle(tmp_path).onnx.replace(bundle.onnx)
    assert "its model cannot be used" in verify(store)["tiny-grounded"].words
    main.path.write_bytes(main.path.read_bytes().swapcase())
    finding = verify(store)["tiny-grounded"]
    assert finding.wrong
    assert "has changed since it was built" in finding.words
