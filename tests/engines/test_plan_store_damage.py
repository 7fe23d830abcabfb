"""Plans that were damaged, and builds that fail: refused with the reason, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_files import KEY, ORIGIN, builder, key, listening, names, refusal, stored, unexpected

from fgdd_engines.tensorrt_backend.build import Built, Profile
from fgdd_engines.tensorrt_backend.plans.sidecar import Plan
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.cli.networks import engine_words
from fgdd_fast.errors import EngineError

# --- what is refused --------------------------------------------------------------------------------------


def edit(plan: Plan, **changes: Any) -> None:
    data = json.loads(plan.sidecar.read_bytes())
    plan.sidecar.write_text(json.dumps({**data, **changes}))


def flip_a_byte(plan: Plan) -> None:
    content = bytearray(plan.path.read_bytes())
    content[len(content) // 2] ^= 1
    plan.path.write_bytes(content)


def rename(plan: Plan) -> None:
    plan.path.rename(plan.path.with_name("tiny-renamed.plan"))
    plan.sidecar.rename(plan.path.with_name("tiny-renamed.json"))


def swap_sidecar(plan: Plan) -> None:
    edit(plan, key=key(device="NVIDIA Thor").as_json())


DAMAGES: dict[str, tuple[Callable[[Plan], object], str]] = {
    "a flipped byte": (flip_a_byte, "has changed since it was built: its SHA-256 is"),
    "truncated": (lambda plan: os.truncate(plan.path, 100), "is truncated: 100 bytes of 7000 are there"),
    "longer": (lambda plan: os.truncate(plan.path, 7001), "has 7001 bytes, but 7000 were written"),
    "plan missing": (lambda plan: plan.path.unlink(), "the plan itself cannot be read: No such file"),
    "no sidecar": (lambda plan: plan.sidecar.unlink(), "missing, so nothing is known of this plan"),
    "no JSON": (lambda plan: plan.sidecar.write_bytes(b"\xff{"), "its sidecar cannot be read"),
    "no fields": (lambda plan: plan.sidecar.write_text('{"format": 1}'), "lacks or garbles a field: Key"),
    "another format": (lambda plan: edit(plan, format=2), "has format 2, and this version reads format 1"),
    "another key": (swap_sidecar, "its sidecar describes another engine, tiny-fp16-"),
    "another hash": (lambda plan: edit(plan, sha256="0" * 64), "has changed since it was built"),
    "a garbled state": (lambda plan: edit(plan, state="fine"), "lacks or garbles a field"),
    "renamed": (rename, "its sidecar describes another engine, tiny-fp16-"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_plan_is_refused_with_the_reason_and_built_again(store: PlanStore, name: str) -> None:
    damage, reason = DAMAGES[name]
    damage(stored(store))
    assert reason in refusal(store)
    said: list[str] = []
    with listening(said.append):
        store.build_once(KEY, builder(b"new"), ORIGIN)
    assert name == "renamed" or (reason in said[0] and said[0].endswith(": building it again"))
    assert store.find_exact(KEY) == store.list()[0]
    assert store.plan_bytes(store.list()[0]) == b"new"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlanStore, Path, bytes]:
    """A store with a plan, and what its sidecar held at first."""
    store = PlanStore(tmp_path_factory.mktemp("engines"))
    plan = stored(store)
    return store, plan.sidecar, plan.sidecar.read_bytes()


@given(data=st.data())
def test_no_sidecar_is_so_garbled_that_it_crashes(
    whole: tuple[PlanStore, Path, bytes], data: st.DataObject
) -> None:
    store, path, content = whole
    sidecar = json.loads(content)
    place = data.draw(st.sampled_from([sidecar, sidecar["key"], sidecar["layers"][0], sidecar["parity"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    path.write_text(json.dumps(sidecar))
    assert len(store.list()) + len(store.damaged()) == 1
    for found in store.list():
        engine_words.sidecar_lines(found, "", layers=True)


def test_a_damaged_plan_does_not_hide_another_that_fits(store: PlanStore) -> None:
    flip_a_byte(stored(store))
    other = stored(store, key(profile=Profile(1, 8, 8)))
    assert store.load(key(profile=Profile(4, 4, 4)))[0] == other


def test_a_plan_that_changes_after_it_was_found_is_not_loaded(store: PlanStore) -> None:
    stored(store)
    plan = store.load(KEY)[0]
    flip_a_byte(plan)
    with pytest.raises(EngineError, match="has changed since it was built"):
        store.plan_bytes(plan)
    plan.path.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        store.plan_bytes(plan)


def test_files_of_no_interest_are_no_hindrance(store: PlanStore) -> None:
    plan = stored(store)
    for name in ("notes.txt", "other-fp16-0.plan", "other.json", "README", ".hidden.plan"):
        (store.folder / name).write_bytes(b"\0")
    (store.folder / "folder.plan").mkdir()
    assert store.load(KEY)[0] == plan
    assert len(store.damaged()) == 4
    assert "other" not in refusal(store, key(device="NVIDIA Thor"))


# --- what goes wrong while building -----------------------------------------------------------------------


@pytest.mark.parametrize("error", [EngineError("out of memory"), KeyboardInterrupt(), MemoryError()])
def test_a_build_that_fails_leaves_nothing(store: PlanStore, error: BaseException) -> None:
    def fail(timing_cache: bytes) -> Built:
        raise error

    with pytest.raises(type(error)):
        store.build_once(KEY, fail, ORIGIN)
    assert names(store) == []


def test_a_file_system_that_takes_a_part_of_a_plan_leaves_the_older_one(store: PlanStore) -> None:
    plan = stored(store)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as a disk that becomes full meanwhile
    try:
        with pytest.raises(EngineError, match="cannot be written: File too large") as caught:
            store.build_once(KEY, builder(b"x" * 400_000), ORIGIN, rebuild=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(plan.path) in caught.value.problem
    assert "It needs 0.4 MB in" in caught.value.advice
    assert store.load(KEY)[0] == plan
    assert not [name for name in names(store) if name.startswith(".")]


def test_a_folder_that_cannot_be_written_is_told_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="cannot be written: Not a directory") as caught:
        PlanStore(tmp_path / "file" / "engines").build_once(KEY, unexpected, ORIGIN)
    assert "FGDD_FAST_CACHE" in caught.value.advice
