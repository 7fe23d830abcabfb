"""Plans: built once, kept whole, found by all that they depend on, and refused with the reason otherwise."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plan_files
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_files import CONTENT, KEY, LAYERS, ORIGIN, PARITY, builder, key, stored, unexpected

from fgdd_fast.cli import engine_words
from fgdd_fast.engines import plan_store
from fgdd_fast.engines.plan_choice import trial
from fgdd_fast.engines.plan_key import PlanKey
from fgdd_fast.engines.plan_lock import sole_writer
from fgdd_fast.engines.plan_sidecar import Plan
from fgdd_fast.engines.plan_store import PlanStore
from fgdd_fast.engines.tensorrt_build import Built, Profile
from fgdd_fast.errors import EngineError

OTHERS: dict[str, dict[str, Any]] = {
    "model": {"model": "other"},
    "weights": {"model_sha256": "b" * 64},
    "precision": {"precision": "fp32"},
    "flavour": {"flavour": "tensorrt-rtx"},
    "version": {"version": "10.16.3"},
    "cuda": {"cuda": "12.6"},
    "device": {"device": "NVIDIA Thor"},
    "capability": {"compute_capability": "11.0"},
    "profile": {"profile": Profile(1, 4, 9)},
    "size": {"axes": {"height": 320, "width": 640}},
}


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines")


def names(store: PlanStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def refusal(store: PlanStore, wanted: PlanKey = KEY) -> str:
    with pytest.raises(EngineError) as caught:
        store.find(wanted)
    assert "fgdd-fast engine build" in caught.value.advice
    return caught.value.problem


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


def test_the_default_folder_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path))
    assert PlanStore().folder == tmp_path / "engines"
    assert PlanStore().list() == PlanStore().damaged() == PlanStore().leftovers() == ()


@pytest.mark.parametrize("name", OTHERS)
def test_everything_in_the_key_is_in_the_files_name(name: str) -> None:
    assert key(**OTHERS[name]).stem != KEY.stem


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
        found = store.find(key(profile=Profile(batch, batch, batch)))
        assert found == plans[expected], batch
    assert "takes batches of 4 to 16, not of 17" in refusal(store, key(profile=Profile.parse("17")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ("weights", "was built of another version of the model"),
        ("precision", "is in fp16, not in fp32"),
        ("flavour", "was built by tensorrt, not by tensorrt-rtx"),
        ("version", "was built by tensorrt 10.16.2, not 10.16.3"),
        ("cuda", "was built with CUDA 13.2, not 12.6"),
        ("device", "was built on Orin (8.7), not on NVIDIA Thor (8.7)"),
        ("capability", "was built on Orin (8.7), not on Orin (11.0)"),
        ("profile", "takes batches of 1 to 8, not of 1 to 9"),
        ("size", "takes height 320 and width 320, not height 320 and width 640"),
    ],
)
def test_a_plan_never_stands_for_another(store: PlanStore, changes: str, reason: str) -> None:
    plan = stored(store)
    wanted = key(**OTHERS[changes])
    assert f"; {plan.path.name} {reason}" in refusal(store, wanted)
    with pytest.raises(AssertionError, match="built again"):
        store.build_once(wanted, unexpected, ORIGIN)


def test_a_plan_of_another_model_is_not_even_mentioned(store: PlanStore) -> None:
    stored(store, key(model="tiny.text"))
    assert refusal(store) == (
        "There is no engine of tiny in fp16 for tensorrt 10.16.2, CUDA 13.2, Orin (8.7), batch 8"
    )


def test_a_plan_that_was_built_without_a_gpu_is_for_no_gpu(store: PlanStore) -> None:
    stored(store, key(cuda="none", device="none", compute_capability="none"))
    assert "was built without a GPU, not on Orin (8.7)" in refusal(store)


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
        assert store.find(KEY) == plan
    assert reason in refusal(store)
    accepted = store.record_parity(plan, PARITY, "accepted")
    assert store.find(KEY) == accepted == store.list()[0]


def test_a_plan_on_trial_comes_before_others_that_fit(store: PlanStore) -> None:
    better = stored(store)
    tried = store.build_once(key(profile=Profile(1, 8, 16)), builder(), ORIGIN)
    wanted = key(profile=Profile(4, 4, 4))
    with trial([tried]):
        assert store.find(wanted) == tried
    assert store.find(wanted) == better


def test_what_was_found_of_a_plan_is_not_recorded_with_another(store: PlanStore) -> None:
    plan = store.build_once(KEY, builder(), ORIGIN)
    store.build_once(KEY, builder(b"new"), ORIGIN, rebuild=True)
    with pytest.raises(EngineError, match="built anew"):
        store.record_parity(plan, {}, "passed")
    assert store.list()[0].state == "unchecked"


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
    "no object": (lambda plan: plan.sidecar.write_text("[1]"), "lacks or garbles a field"),
    "no fields": (lambda plan: plan.sidecar.write_text('{"format": 1}'), "lacks or garbles a field: Key"),
    "another format": (lambda plan: edit(plan, format=2), "has format 2, and this version reads format 1"),
    "another key": (swap_sidecar, "its sidecar describes another engine, tiny-fp16-"),
    "another hash": (lambda plan: edit(plan, sha256="0" * 64), "has changed since it was built"),
    "a garbled key": (lambda plan: edit(plan, key={}), "lacks or garbles a field"),
    "a garbled state": (lambda plan: edit(plan, state="fine"), "lacks or garbles a field"),
    "a garbled profile": (
        lambda plan: edit(plan, key={**KEY.as_json(), "profile": "8:4:1"}),
        "lacks or garbles a field",
    ),
    "a garbled precision": (
        lambda plan: edit(plan, key={**KEY.as_json(), "precision": "fp4"}),
        "lacks or garbles a field",
    ),
    "garbled parity": (lambda plan: edit(plan, parity={"figures": 3}), "lacks or garbles a field"),
    "garbled layers": (lambda plan: edit(plan, layers=[3]), "lacks or garbles a field"),
    "renamed": (rename, "its sidecar describes another engine, tiny-fp16-"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_plan_is_refused_with_the_reason_and_built_again(store: PlanStore, name: str) -> None:
    damage, reason = DAMAGES[name]
    damage(stored(store))
    assert reason in refusal(store)
    said: list[str] = []
    store.build_once(KEY, builder(b"new"), ORIGIN, report=said.append)
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


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", "nul", '"format"', "{}"])
def test_no_json_is_so_odd_that_it_crashes(store: PlanStore, text: str) -> None:
    stored(store).sidecar.write_text(text)
    assert "its sidecar" in refusal(store)


def test_a_plan_from_elsewhere_without_its_sidecar_is_refused(store: PlanStore, tmp_path: Path) -> None:
    elsewhere = PlanStore(tmp_path / "elsewhere")
    path = stored(elsewhere).path
    store.folder.mkdir()
    shutil.copy(path, store.folder)
    assert "nothing is known of this plan" in refusal(store)
    assert [item.path.name for item in store.damaged()] == [path.name]


def test_a_damaged_plan_does_not_hide_another_that_fits(store: PlanStore) -> None:
    flip_a_byte(stored(store))
    other = stored(store, key(profile=Profile(1, 8, 8)))
    assert store.find(key(profile=Profile(4, 4, 4))) == other


def test_a_plan_that_changes_after_it_was_found_is_not_loaded(store: PlanStore) -> None:
    stored(store)
    plan = store.find(KEY)
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
    assert store.find(KEY) == plan
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


def test_a_build_that_fails_leaves_the_older_plan(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = stored(store)

    def refuse(path: Path, content: bytes) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(plan_store, "stage_file", refuse)
        with pytest.raises(EngineError, match="No space left on device") as caught:
            store.build_once(KEY, builder(b"new"), ORIGIN, rebuild=True)
    assert str(plan.path) in caught.value.problem
    assert "It needs 0.0 MB in" in caught.value.advice
    assert store.find(KEY) == plan
    assert not [name for name in names(store) if name.startswith(".")]


FULL_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import plan_files
from fgdd_fast.engines.plan_store import PlanStore
from fgdd_fast.errors import EngineError
store = PlanStore(Path(sys.argv[1]))
small = plan_files.stored(store)
try:
    store.build_once(plan_files.key(device="large"), plan_files.builder(b"x" * 400_000), plan_files.ORIGIN)
except EngineError as error:
    print(error)
assert store.find(plan_files.KEY) == small
print(sorted(path.name for path in store.folder.iterdir()))
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mounted = 'mount -t tmpfs -o size=256k tmpfs $0 && exec $1 -c "$2" $0 $3'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted]
    if not shutil.which("unshare") or subprocess.run([*command[:4], "true"], check=False).returncode:
        pytest.skip("this system lets nobody but root mount a small disk")
    arguments = [str(tmp_path), sys.executable, FULL_DISK, str(Path(__file__).parent)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if "mount" in done.stderr and "permission denied" in done.stderr:
        pytest.skip("this system lets nobody but root mount a small disk")
    assert done.returncode == 0, done.stderr
    message, listed = done.stdout.splitlines()
    assert "No space left on device" in message
    assert "It needs 0.4 MB" in message
    assert ".staging" not in listed
    assert ".lock" not in listed


def test_a_folder_that_cannot_be_written_is_told_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="cannot be written: Not a directory") as caught:
        PlanStore(tmp_path / "file" / "engines").build_once(KEY, unexpected, ORIGIN)
    assert "FGDD_FAST_CACHE" in caught.value.advice


# --- several processes ------------------------------------------------------------------------------------


def start(folder: Path, log: Path, go: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, plan_files.__file__, folder, log, go])


def wait_for(log: Path, line: str) -> None:
    deadline = time.monotonic() + 30
    while not (log.exists() and line in log.read_text()):
        assert time.monotonic() < deadline, f"{line!r} never came"
        time.sleep(0.01)


def test_two_processes_build_the_same_plan_once(store: PlanStore, tmp_path: Path) -> None:
    logs, go = [tmp_path / "one", tmp_path / "two"], tmp_path / "go"
    processes = [start(store.folder, logs[0], go)]
    wait_for(logs[0], "building")
    processes.append(start(store.folder, logs[1], go))
    wait_for(logs[1], "waiting")
    go.touch()
    assert [process.wait(30) for process in processes] == [0, 0]
    (plan,) = store.list()
    assert logs[0].read_text().splitlines() == ["building", f"has {plan.sha256}"]
    assert logs[1].read_text().splitlines() == [
        f"Another process builds {plan.path.name}: waiting",
        f"has {plan.sha256}",
    ]
    assert store.leftovers() == ()


def test_a_killed_build_leaves_a_cache_that_works(store: PlanStore, tmp_path: Path) -> None:
    older = stored(store, key(device="other"))
    log = tmp_path / "log"
    process = start(store.folder, log, tmp_path / "never")
    wait_for(log, "building")
    waiting = start(store.folder, tmp_path / "waiting", Path("/"))
    wait_for(tmp_path / "waiting", "waiting")
    process.kill()
    process.wait(30)
    assert waiting.wait(30) == 0  # the lock went with its holder
    assert "building" in (tmp_path / "waiting").read_text()
    assert {plan.path.stem for plan in store.list()} == {older.key.stem, KEY.stem}
    assert not [name for name in names(store) if name.startswith(".")]


def test_unfinished_files_of_a_killed_build_are_cleared_by_the_next(store: PlanStore, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import plan_files\n"
        "from fgdd_fast.engines import files, plan_store\n"
        "stage = plan_store.stage_file\n"
        "def slow(path, content):\n"
        "    stage(path, content[:100])\n"
        "    print('staged', flush=True)\n"
        "    time.sleep(60)\n"
        "plan_store.stage_file = slow\n"
        "plan_files.build_slowly(*map(plan_files.Path, sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, store.folder, tmp_path / "log", "/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"staged\n"
        stored(store, key(device="other"))  # cleans up, but not after the living
        unfinished = list(store.folder.glob(".*.staging/.*.part"))
        assert len(unfinished) == 1
        assert store.leftovers() == ()
        process.kill()
        process.wait(30)
    assert len(store.leftovers()) == 2  # the plan's, and the timing cache's
    assert store.list()[0].key.device == "other"
    assert "There is no engine" in refusal(store)
    stored(store, key(device="a third"))
    assert store.leftovers() == ()
    assert not unfinished[0].exists()
    assert not [name for name in names(store) if name.startswith(".")]


def test_a_rebuild_that_waited_for_another_takes_its_result(store: PlanStore) -> None:
    stored(store)
    began, waited = threading.Event(), threading.Event()

    def build(timing_cache: bytes) -> Built:
        began.set()
        assert waited.wait(30)
        return builder(b"new")(timing_cache)

    first = threading.Thread(target=lambda: store.build_once(KEY, build, ORIGIN, rebuild=True))
    first.start()
    assert began.wait(30)
    plan = store.build_once(KEY, unexpected, ORIGIN, rebuild=True, report=lambda _: waited.set())
    first.join(30)
    assert store.plan_bytes(plan) == b"new"


def test_engines_for_one_device_are_built_one_after_the_other(store: PlanStore) -> None:
    began, waited = threading.Event(), threading.Event()
    said: list[str] = []

    def build(timing_cache: bytes) -> Built:
        began.set()
        assert waited.wait(30)
        return builder(timing_cache=b"first")(timing_cache)

    def wait(line: str) -> None:
        said.append(line)
        waited.set()

    def build_next(timing_cache: bytes) -> Built:
        assert timing_cache == b"first"
        return builder()(timing_cache)

    first = threading.Thread(target=lambda: store.build_once(KEY, build, ORIGIN))
    first.start()
    assert began.wait(30)
    store.build_once(key(device="another"), builder(), ORIGIN)
    assert not said
    store.build_once(key(model="other"), build_next, ORIGIN, report=wait)
    first.join(30)
    assert said == ["Another engine is built for this device: waiting"]


def test_a_lock_has_one_holder_however_many_come_and_go(tmp_path: Path) -> None:
    holders, most = 0, 0

    def hold() -> None:
        nonlocal holders, most
        for _ in range(30):
            with sole_writer(tmp_path, "x", lambda: None) as staging:
                holders += 1
                most = max(most, holders)
                (staging / "file").touch(exist_ok=False)
                holders -= 1

    threads = [threading.Thread(target=hold) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1
    assert list(tmp_path.iterdir()) == []


# --- removing ---------------------------------------------------------------------------------------------


def test_removing_frees_what_it_says(store: PlanStore) -> None:
    plan, other = stored(store), stored(store, key(device="other"))
    size = plan.path.stat().st_size + plan.sidecar.stat().st_size
    assert store.remove(plan.path) == size
    assert store.remove(plan.path) == 0
    assert store.list() == (other,)
    assert store.clear(store.timing_caches()) == 2 * len(b"timings")
    assert names(store) == sorted([other.path.name, other.sidecar.name])


def test_what_is_being_built_is_not_removed(store: PlanStore, tmp_path: Path) -> None:
    plan = stored(store)
    with (
        sole_writer(store.folder, plan.path.stem, lambda: None),
        pytest.raises(EngineError, match="by another process"),
    ):
        store.remove(plan.path)
    assert store.list() == (plan,)
