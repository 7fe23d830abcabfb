"""The ways along the path `foreground` with Grounded SAM 2."""

from __future__ import annotations

from importlib import import_module

from fgdd_bench.harness.ways import Column, Task, Way
from fgdd_bench.ours.grounded import GroundedProduct
from fgdd_bench.references.grounded.subject import GroundedSubject
from fgdd_engines.optional_imports import import_optional

_PACKAGES = ("torch", "transformers", "tokenizers", "PIL")  # of the references


def open_grounded(column: Column, task: Task, subject: GroundedSubject) -> Way:
    """Open one of the ways.

    Args:
        column: whose.
        task: what every way is given.
        subject: the model, and what is looked for with it.

    Raises:
        MissingExtraError: a package is not installed.
        BundleError: the bundle or a checkpoint cannot be used.
        SettingsError: the bundle was not exported from these checkpoints, or a class cannot be looked for.
        EngineError: a network cannot be opened, compiled or run.
    """
    if column == "product":
        return GroundedProduct(task, subject)
    for package in _PACKAGES:
        import_optional(package, "bench")
    way: Way
    if column == "published":
        way = import_module("fgdd_bench.references.grounded.published").PublishedGrounded(task, subject)
    else:
        way = import_module("fgdd_bench.references.grounded.fair").FairGrounded(task, subject, column=column)
    return way
