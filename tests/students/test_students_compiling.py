"""Students that PyTorch compiles, each test in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


COMPILED = """
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch._dynamo
from tiny_students import RECIPE, STUDENT, soft_training_set, validation_set
from watched_progress import Watched

from fgdd_fast.students.training.loop import train_students


def train(recipe, **options):
    return train_students(soft_training_set(), validation_set(), [STUDENT], recipe, **options)[0]


limit = torch._dynamo.config.recompile_limit
recipe, kept = replace(RECIPE, compile=True), Path(sys.argv[1])
one = train(recipe)
assert one.losses[0] == pytest.approx(train(RECIPE).losses[0], rel=1e-3)
assert one.accuracy > 0.8
with pytest.raises(KeyboardInterrupt):
    train(recipe, checkpoints=kept, save_every=0, progress=Watched(stop_at=3))
other = train(recipe, checkpoints=kept)
assert (one.losses, one.curve) == (other.losses, other.curve)
assert torch._dynamo.config.recompile_limit == limit
"""

UNCOMPILED = """
from dataclasses import replace

from fgdd_fast.errors import SettingsError
from tiny_students import RECIPE, STUDENT, soft_training_set, validation_set
from fgdd_fast.students.training.loop import train_students

try:
    train_students(soft_training_set(), validation_set(), [STUDENT], replace(RECIPE, compile=True))
except SettingsError as error:
    print(error)
"""


def run_apart(
    program: str, cache: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in its own process: PyTorch's compiler trips over what other tests have imported."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)} | variables,
        cwd=Path(__file__).parents[1] / "support",
        capture_output=True,
        text=True,
        check=False,
    )


def test_compiled_students_learn_alike_whether_stopped_or_not(tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("there is no C++ compiler, which torch.compile needs")
    run = run_apart(COMPILED, tmp_path / "programs", str(tmp_path / "kept"))
    assert run.returncode == 0, run.stderr


def test_without_a_compiler_students_say_what_to_do(tmp_path: Path) -> None:
    run = run_apart(UNCOMPILED, tmp_path, CXX="no-such-compiler")
    assert run.returncode == 0, run.stderr
    assert "could not compile a student" in run.stdout
    assert "C++ compiler" in run.stdout
    assert "--compile" in run.stdout
