"""No command runs code that lies in the current folder: every child Python looks where its parent does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAP = "open({marker!r}, 'a').write(__file__ + '\\n')\n"
NAMES = ["pip", "tempfile", "json", "runpy", "fgdd_fast", "selectors", "multiprocessing", "pkgutil"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules that would shadow others, and leave a mark if one of them ran."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in NAMES:
        text = TRAP.format(marker=str(tmp_path / "marker"))
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def run(hostile: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code as an installed command runs: from a script of another folder, in the hostile one."""
    script = hostile.parent / "script.py"
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "FGDD_FAST_CACHE": str(hostile.parent / "cache"), "PIP_NO_INDEX": "1"}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        [sys.executable, script], cwd=hostile, env=environment, capture_output=True, text=True, check=False
    )


def test_the_trap_works(hostile: Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--version"], cwd=hostile, check=False)
    assert (hostile.parent / "marker").exists()


COMMAND = "import sys; from fgdd_fast.cli import main; sys.argv[1:] = {words!r}; main()"
SERVER = """\
from concurrent.futures import ProcessPoolExecutor
from fgdd_bench.machine.processes import worker_context
if __name__ == '__main__':
    with ProcessPoolExecutor(1, worker_context()) as pool:
        assert pool.submit(abs, -1).result() == 1
"""


@pytest.mark.parametrize(
    ("code", "word"),
    [
        pytest.param(
            COMMAND.format(words=["models", "pull", "saliency-u2netp"]), "pip's package index", id="pull"
        ),
        pytest.param(COMMAND.format(words=["doctor"]), "", id="doctor"),
        pytest.param(
            SERVER,
            "",
            id="workers",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no PYTHONSAFEPATH"),
        ),
    ],
)
def test_nothing_of_the_current_folder_is_run(hostile: Path, code: str, word: str) -> None:
    result = run(hostile, code)
    assert not (hostile.parent / "marker").exists(), result.stderr
    assert word in result.stderr
    if not word:
        assert result.returncode == 0, result.stderr
