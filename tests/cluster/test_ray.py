"""A data set distilled by several processes of a local Ray cluster is the same, also where one is killed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_distillation import assert_refused, contents, distill
from watched_progress import Watched

import fgdd_fast
from fgdd_fast.measurement import measurer
from fgdd_fast.runtime.choose import RuntimeOptions

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fgdd-fast[ray]'")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # or it leaves a token in the home folder
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def workers() -> list[int]:
    """The process identifiers of this process's workers, whose parent is a child of it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            if title.startswith(b"ray::Worker") and _parent(_parent(int(folder.name))) == os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue  # it ended
    return found


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


class Killer(Watched):
    """A progress that kills a worker after the first images, or labels."""

    killed: int | None = None

    def note(self, name: str, done: int) -> None:
        super().note(name, done)
        if self.killed is None and name in ("Measuring", "Labelling"):
            self.killed = workers()[0]
            os.kill(self.killed, signal.SIGKILL)


def test_a_killed_worker_changes_nothing(
    workplace: Path,
    local_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(measurer, "_SHARD", 4)
    (workplace / "data/red/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert distill(workplace, rule="otsu").exit_code == 0
    options: dict[str, Any] = {
        "teacher": workplace / "tiny-teacher.onnx",
        "foreground": str(workplace / "tiny-foreground.onnx"),
        "crops": 3,
        "size": 16,
        "store": str(workplace / "another"),
    }
    killer = Killer()
    fgdd_fast.distill(
        workplace / "data",
        workplace / "workers",
        ipc=1,
        rule="otsu",
        runtime=RuntimeOptions(device="cpu", threads=1, executor="ray"),
        progress=killer,
        **options,
    )
    assert killer.killed is not None
    assert "A worker died; what it was at is done by another" in caplog.text
    assert contents(workplace / "workers") == contents(workplace / "out")
    measured = [done for name, done in killer.steps if name == "Measuring"]
    assert (measured[-1], killer.totals["Measuring"]) == (25, 25)
    # What is known is not measured again; nor is what was only moved.
    (workplace / "data").rename(workplace / "moved")
    runtime = RuntimeOptions(device="cpu", threads=1, executor="ray")
    with fgdd_fast.open_pipeline(workplace / "moved", runtime=runtime, **options) as pipeline:
        again = pipeline.measure()
    assert (again.measured, again.reused, len(again.skipped)) == (0, 24, 1)


def test_labels_by_workers_of_which_one_is_killed(workplace: Path, local_cluster: None) -> None:
    assert distill(workplace).exit_code == 0
    teacher, killer = workplace / "tiny-teacher.onnx", Killer()
    local = RuntimeOptions(device="cpu", threads=1)
    fgdd_fast.make_labels(workplace / "out", teacher, epochs=40, student_batch=2, runtime=local)
    expected = contents(workplace / "out" / "labels")
    shutil.rmtree(workplace / "out" / "labels")
    runtime = replace(local, executor="ray")
    fgdd_fast.make_labels(
        workplace / "out", teacher, epochs=40, student_batch=2, runtime=runtime, progress=killer
    )
    assert killer.killed is not None
    assert contents(workplace / "out" / "labels") == expected


def test_an_address_without_a_cluster_is_refused_at_once(workplace: Path, local_cluster: None) -> None:
    ray.shutdown()
    assert_refused(
        distill(workplace, executor="ray:127.0.0.1:1"), "The Ray cluster 127.0.0.1:1 cannot be reached"
    )
