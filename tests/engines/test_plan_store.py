"""Plans: built once, kept whole, and found by all that they depend on."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_files import CONTENT, KEY, LAYERS, ORIGIN, PARITY, builder, key, names, refusal, stored, unexpected

from fgdd_engines.file_lock import exclusive_lock
from fgdd_engines.tensorrt_backend.api import TensorRt
from fgdd_engines.tensorrt_backend.build import Built, Profile
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_engines.tensorrt_backend.plans import store as plan_store
from fgdd_engines.tensorrt_backend.plans.choice import trial
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, Platform
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.errors import EngineError

# --- what is kept -----------------------------------------------------------------------------------------


def test_a_plan_is_built_once_and_kept_with_all_that_is_known_of_it(store: PlanStore) -> None:
    plan = store.build_once(KEY, builder(), ORIGIN, workspace_mib=256)
    assert store.build_once(KEY, unexpected, ORIGIN) == plan
    assert plan.path.read_bytes() == CONTENT == store.plan_bytes(plan)
    assert store.list() == (plan,)
    assert (plan.key, plan.layers, plan.read_from) == (KEY, LAYERS, "engine inspector")
    assert (plan.seconds, plan.workspace_mib, plan.bytes) == (1.5, 256, len(CONTENT))
    assert (plan.graph, plan.bundle) == (ORIGIN.graph, ORIGIN.bundle)
    assert plan.precisions == {"fp16": 2, "fp32": 1}
    assert plan.state == "unchecked"
    timing = store.timing_cache(KEY.platform).name
    assert names(store) == sorted([plan.path.name, plan.sidecar.name, timing])


@settings(max_examples=30)
@given(st.text(max_size=300))
def test_any_model_has_a_plain_file_name(name: str) -> None:
    stem = key(model=name).stem
    assert stem.isascii()
    assert not set(stem) & set("/\0 *'")
    assert len(f".{stem}.staging") < 200
    assert PlanKey.from_json(json.loads(json.dumps(key(model=name).as_json()))) == key(model=name)


def test_timings_serve_the_next_build_on_the_same_platform_only(store: PlanStore) -> None:
    seen: list[bytes] = []

    def build(timing_cache: bytes) -> Built:
        seen.append(timing_cache)
        return builder(timing_cache=timing_cache + b"+")(timing_cache)

    for changes in ({}, {"model": "other"}, {"device": "Thor"}, {"version": "11.0"}, {"precision": "fp32"}):
        store.build_once(key(**changes), build, ORIGIN)
    assert seen == [b"", b"+", b"", b"", b"++"]
    assert len(store.timing_caches()) == 3


def test_timings_that_cannot_be_kept_are_no_loss(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = plan_store.stage_file

    def refuse(path: Path, content: bytes) -> Path:
        if path.suffix == ".timing":
            raise OSError(errno.ENOSPC, "No space left on device")
        return stage(path, content)

    monkeypatch.setattr(plan_store, "stage_file", refuse)
    plan = store.build_once(KEY, builder(), ORIGIN)
    assert names(store) == sorted([plan.path.name, plan.sidecar.name])


def test_a_rebuild_replaces_a_plan_and_what_was_found_of_it(store: PlanStore) -> None:
    stored(store)
    plan = store.build_once(KEY, builder(b"new"), ORIGIN, rebuild=True)
    assert store.list() == (plan,)
    assert plan.path.read_bytes() == b"new"
    assert plan.state == "unchecked"
    assert plan.parity == {}


# --- what is found ----------------------------------------------------------------------------------------


def test_the_plan_tuned_for_the_nearest_batch_is_found(store: PlanStore) -> None:
    plans = {
        text: stored(store, key(profile=Profile.parse(text))) for text in ("1:1:8", "1:8:8", "4:6:16", "9")
    }
    for batch, expected in ((1, "1:1:8"), (5, "4:6:16"), (8, "1:8:8"), (9, "9"), (16, "4:6:16")):
        found = store.load(key(profile=Profile(batch, batch, batch)))[0]
        assert found == plans[expected], batch
    assert "takes batches of 4 to 16, not of 17" in refusal(store, key(profile=Profile.parse("17")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_sha256": "b" * 64}, "was built of another version of the model"),
        ({"precision": "fp32"}, "is in fp16, not in fp32"),
        ({"flavour": "tensorrt-rtx"}, "was built by tensorrt, not by tensorrt-rtx"),
        ({"version": "10.16.3"}, "was built by tensorrt 10.16.2, not 10.16.3"),
        ({"cuda": "12.6"}, "was built with CUDA 13.2, not 12.6"),
        ({"device": "NVIDIA Thor"}, "was built on Orin (8.7), not on NVIDIA Thor (8.7)"),
        ({"compute_capability": "11.0"}, "was built on Orin (8.7), not on Orin (11.0)"),
        ({"profile": Profile(1, 4, 9)}, "takes batches of 1 to 8, not of 1 to 9"),
        (
            {"axes": {"height": 320, "width": 640}},
            "takes height 320 and width 320, not height 320 and",
        ),
    ],
)
def test_a_plan_never_stands_for_another(store: PlanStore, changes: dict[str, Any], reason: str) -> None:
    plan = stored(store)
    wanted = key(**changes)
    assert f"; {plan.path.name} {reason}" in refusal(store, wanted)
    with pytest.raises(AssertionError, match="built again"):
        store.build_once(wanted, unexpected, ORIGIN)


def test_minor_versions_of_cuda_make_no_plan_stale(store: PlanStore) -> None:
    """Plans of version 0.1 have them in their sidecars, under names of their own."""
    older = stored(store, key(cuda="13.0"))
    here = key(cuda="13")
    assert store.load(here)[0] == store.load(key(cuda="13.2"))[0] == store.find_exact(here) == older
    assert older.key.platform.differences(here.platform) == ()
    assert store.build_once(here, unexpected, ORIGIN) == older
    device = CudaDevice("Orin", (8, 7), 8 << 30, "13.2", "13.1")
    assert Platform.of(TensorRt(ModuleType("tensorrt"), "tensorrt", "10.16.2"), device) == here.platform
    newer = store.build_once(here, builder(b"new"), ORIGIN, rebuild=True)
    assert store.find_exact(here) == newer


def test_a_plan_that_was_built_without_a_gpu_is_for_no_gpu(store: PlanStore) -> None:
    stored(store, key(cuda="none", device="none", compute_capability="none"))
    assert "was built without a GPU, not on Orin (8.7)" in refusal(store)


def test_a_plan_of_another_model_is_not_even_mentioned(store: PlanStore) -> None:
    stored(store, key(model="tiny.text"))
    assert refusal(store) == (
        "There is no engine of tiny in fp16 for tensorrt 10.16.2, CUDA 13.2, Orin (8.7), batch 8"
    )


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("unchecked", "has not been compared with the fp32 model yet"),
        ("below bar", "decides too differently from the fp32 model, and is kept out of use"),
    ],
)
def test_only_a_plan_that_decides_alike_is_used(store: PlanStore, state: Any, reason: str) -> None:
    plan = store.record_parity(store.build_once(KEY, builder(), ORIGIN), PARITY, state)
    assert f"{plan.path.name} {reason}" in refusal(store)
    with trial([plan]):
        assert store.load(KEY)[0] == plan
    assert reason in refusal(store)
    accepted = store.record_parity(plan, PARITY, "accepted")
    assert store.load(KEY)[0] == accepted == store.list()[0]


def test_a_plan_on_trial_comes_before_others_that_fit(store: PlanStore) -> None:
    better = stored(store)
    tried = store.build_once(key(profile=Profile(1, 8, 16)), builder(), ORIGIN)
    wanted = key(profile=Profile(4, 4, 4))
    with trial([tried]):
        assert store.load(wanted)[0] == tried
    assert store.load(wanted)[0] == better


def test_what_was_found_of_a_plan_is_not_recorded_with_another(store: PlanStore) -> None:
    plan = store.build_once(KEY, builder(), ORIGIN)
    store.build_once(KEY, builder(b"new"), ORIGIN, rebuild=True)
    with pytest.raises(EngineError, match="built anew"):
        store.record_parity(plan, {}, "passed")
    assert store.list()[0].state == "unchecked"


# --- removing ---------------------------------------------------------------------------------------------


def test_what_is_being_built_is_not_removed(store: PlanStore, tmp_path: Path) -> None:
    plan = stored(store)
    with (
        exclusive_lock(store.folder, plan.path.stem, lambda: None),
        pytest.raises(EngineError, match="by another process"),
    ):
        store.remove(plan.path)
    assert store.list() == (plan,)
