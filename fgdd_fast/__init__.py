"""Foreground-aware dataset distillation: a folder of labelled images becomes a tiny data set.

    with fgdd_fast.open_pipeline("DATA", teacher="teacher.onnx") as pipeline:
        pipeline.measure()
        plan = pipeline.plan(ipc=10)    # which tiles would be taken, and why
        pipeline.write(plan, "OUT")

Names are imported when they are first used, so that importing this package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

# Each public name, and the module that it is imported from.
PUBLIC = {
    "Pipeline": "fgdd_fast.pipeline",
    "distill": "fgdd_fast.distilling",
    "open_pipeline": "fgdd_fast.distilling",
    "stream": "fgdd_fast.streaming.stream",
    "merge": "fgdd_fast.streaming.merging",
    "pack_bundles": "fgdd_fast.packing.board",
    "unpack_bundles": "fgdd_fast.packing.board",
    "PRESETS": "fgdd_fast.options",
    "compare_foregrounds": "fgdd_fast.comparison",
    "draw_contact_sheet": "fgdd_fast.output.report",
    "write_report": "fgdd_fast.report_page.report",
    "open_distilled": "fgdd_fast.output.distilled",
    "check_data": "fgdd_fast.checking.check",
    "open_data": "fgdd_fast.checking.opening",
    "fit_teacher": "fgdd_fast.models.fitting",
    "check_teacher": "fgdd_fast.models.fitting",
    "rename_teacher": "fgdd_fast.renaming",
    "pull_model": "fgdd_export.catalogue.prepare",
    "tune": "fgdd_export.precision.tuning",
    "RuntimeOptions": "fgdd_fast.runtime.choose",
    "Progress": "fgdd_engines.progress",
    "FgddError": "fgdd_fast.errors",
    "evaluate": "fgdd_fast.students.evaluation",
    "make_labels": "fgdd_fast.labels.making",
    "pack": "fgdd_fast.packing.pack",
    "verify": "fgdd_fast.trust.verifying",
    "remake": "fgdd_fast.trust.remaking",
    "forget": "fgdd_fast.trust.forgetting",
}

__all__ = [*PUBLIC, "__version__"]  # noqa: PLE0604 - the names above


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
