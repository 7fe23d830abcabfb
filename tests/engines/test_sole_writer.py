"""Plans that several processes and threads build, and processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import plan_files
import pytest
from plan_files import KEY, ORIGIN, builder, key, listening, names, refusal, stored, unexpected

from fgdd_engines.file_lock import exclusive_lock, find_leftovers
from fgdd_engines.tensorrt_backend.build import Built
from fgdd_engines.tensorrt_backend.plans.store import PlanStore


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
        f"sys.path.insert(0, {str(Path(__file__).parents[1] / 'support')!r})\n"
        "import plan_files\n"
        "from fgdd_engines.tensorrt_backend.plans import store as plan_store\n"
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
    with listening(lambda _: waited.set()):
        plan = store.build_once(KEY, unexpected, ORIGIN, rebuild=True)
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
    with listening(wait):
        store.build_once(key(model="other"), build_next, ORIGIN)
    first.join(30)
    assert said == ["Another engine is built for this device: waiting"]


def test_a_lock_has_one_holder_however_many_come_and_go(tmp_path: Path) -> None:
    holders, most = 0, 0

    def hold() -> None:
        nonlocal holders, most
        for _ in range(30):
            with exclusive_lock(tmp_path, "x", lambda: None) as staging:
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


def test_whoever_looks_for_leftovers_is_no_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that begins while another looks neither waits nor gives up."""
    (tmp_path / ".x.lock").touch()
    looking, began = threading.Event(), threading.Event()
    close = os.close

    def close_later(handle: int) -> None:
        if threading.current_thread() is looker and not looking.is_set():
            looking.set()
            assert began.wait(30)
        close(handle)

    def wait() -> None:
        began.set()
        raise AssertionError("it waits")

    looker = threading.Thread(target=find_leftovers, args=(tmp_path,))
    monkeypatch.setattr(os, "close", close_later)
    looker.start()
    assert looking.wait(30)
    with exclusive_lock(tmp_path, "x", wait):
        began.set()
        looker.join(30)
        assert find_leftovers(tmp_path) == ()
