"""What a result says of its machine: enough to repeat it, and nothing that names it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from fgdd_bench.machine.environment import command_line, environment, thread_settings


def test_this_machine_without_its_names() -> None:
    found = environment()
    text = json.dumps(found)
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["packages"]["numpy"] != "absent"  # type: ignore[index]
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text
    assert "/" not in text.replace("N/A", "")
    assert len(socket.gethostname()) < 4 or socket.gethostname() not in text


def test_clocks_and_their_governors(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name : A\ncpu MHz\t\t: 2596.148\n\ncpu MHz\t\t: 1800.5\n")
    for core in range(2):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text("powersave\n")
    assert environment(tmp_path)["clocks"] == {"mhz": [2596, 1800], "governors": ["powersave"]}
    assert environment(tmp_path / "nowhere")["clocks"] == {"mhz": [], "governors": []}


def test_threads_as_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = thread_settings()
    assert found["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in found
    assert found["affinity"] == len(os.sched_getaffinity(0))


def test_a_command_without_folders() -> None:
    words = [
        "fgdd-fast",
        "bench",
        "/home/me/data/train/",
        "--json=/tmp/x.json",
        "--foreground",
        "masks:/a/b",
        "../c",
    ]
    assert command_line(words) == "fgdd-fast bench train --json=x.json --foreground masks:b c"
    assert command_line(["bench", "/", "--stages", "decode,teacher"]) == "bench / --stages decode,teacher"
