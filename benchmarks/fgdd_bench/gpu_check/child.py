"""The process in which checks run, so that a driver that crashes or hangs takes nothing else with it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from fgdd_bench.gpu_check import engines, pipelines
from fgdd_bench.gpu_check.kit import Kit, open_kit
from fgdd_bench.gpu_check.registry import CHECKS, AbsentError, Case
from fgdd_bench.harness.result import rounded
from fgdd_fast.errors import FgddError, MissingExtraError

__all__ = ["engines", "pipelines"]  # their checks are registered when they are imported


def run_case(kit: Kit, case: Case) -> dict[str, Any]:
    """Return what became of a case: its state, what is said of it, and its figures."""
    state, words, figures = "ok", "", dict[str, Any]()
    try:
        found = CHECKS[case.check].run(kit, case)
        state, words = ("failed", "; ".join(found.wrong)) if found.wrong else ("ok", found.words)
        figures = rounded(dict(found.figures))
    except (AbsentError, MissingExtraError) as error:
        state, words = "absent", str(error)
    except FgddError as error:
        state, words = "failed", str(error)
    except Exception as error:  # of a library, which may raise anything
        state, words = "failed", f"{type(error).__name__}: {error}"
    return {"state": state, "words": words, "figures": figures}


def _main(folder: str, models: str, cases: str) -> None:
    """Run cases, and print the outcome of each as a line of JSON; whatever libraries print goes elsewhere."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        kit = open_kit(Path(folder), Path(models))
        for case in json.loads(cases):
            answers.write(f"{json.dumps(run_case(kit, Case(**case)))}\n")
            answers.flush()
    os._exit(0)  # what libraries do while a process ends is not waited for


if __name__ == "__main__":
    _main(*sys.argv[1:])
