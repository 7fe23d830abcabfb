"""What commands share that still open models by themselves."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.cli.terminal import _bars, printable, report_skipped
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime.choose import RuntimeOptions, runtime_of

__all__ = ["RuntimeOptions", "open_runtime", "printable", "progress_bar", "report_skipped"]


def open_runtime(bundle: Bundle, options: RuntimeOptions, console: Console) -> Runtime:
    """Choose the runtime of a bundle, and say which."""
    return runtime_of(bundle, options)


def progress_bar(console: Console) -> Progress:
    """A progress bar for images or mosaics; silent where nobody watches."""
    bars = _bars(console)
    bars.disable = not console.is_terminal
    return bars
