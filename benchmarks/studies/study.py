"""What every study shares: options, photographs, progress, the result file, the table, errors in one line.

A study is one file, `benchmarks/studies/NAME.py`, run from the root of a checkout as
`python -m` and its dotted name. To add one, copy the shape of `views.py`: a docstring with the question,
the command and the result file, and a function under `@study` whose first argument is a `Study`. It calls
`report` with its rows as dictionaries, once or, where rows take long, after each; the file is written whole.
"""

from __future__ import annotations

import functools
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fgdd_bench.machine.environment import command_line, environment
from fgdd_engines.base import PRECISIONS
from fgdd_fast.cli.options import device_option, write_json
from fgdd_fast.cli.terminal import console_progress, logged_to
from fgdd_fast.errors import DataError, FgddError, OutputError
from fgdd_fast.images.dataset import DataSet, SourceImage, pool, scan
from fgdd_fast.parallel import single_threaded_opencv

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

POSITIVE = click.IntRange(min=1)


class Study:
    """A run of a study: it knows the command and the machine, tells how far it is, and reports.

    The result goes into `output`, if any; an OutputError where that could not be written at the end.
    """

    def __init__(self, command: Sequence[str], output: Path | None) -> None:
        if output is not None and (output.is_dir() or not output.parent.is_dir()):
            raise OutputError(f"{output} cannot be written", "Name a file in a folder that is there.")
        self._output = output
        self._command = command_line(command)
        self._environment = environment()
        self._progress = console_progress(Console(stderr=True))

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Give the items one by one, showing on stderr how many of `total`, or of their length, are done."""
        count = total if total is not None else len(items) if isinstance(items, Sequence) else None
        with self._progress.task(what, count) as task:
            for item in items:
                yield item
                task.advance()

    def report(
        self,
        rows: Sequence[Mapping[str, Any]],
        columns: Mapping[str, str],
        *,
        show: bool = True,
        **facts: Any,
    ) -> None:
        """Write the result, and print the table.

        Args:
            rows: JSON values by name, the same names in all.
            columns: what the table shows of them, with the format of each, such as `.1%`; empty for text.
            show: whether the table is printed; not after each of several calls.
            facts: whatever else the result says, JSON values.
        """
        if self._output is not None:
            result = {"command": self._command, **facts, "environment": self._environment, "rows": list(rows)}
            write_json(self._output, json.dumps(result, indent=1, ensure_ascii=False))
        if show:
            self.show(rows, columns)

    @staticmethod
    def show(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        """Print a table; see `report`."""
        table = Table()
        for name, form in columns.items():
            table.add_column(name.replace("_", " "), justify="right" if form else "left")
        for row in rows:
            cells = ((row[name], form) for name, form in columns.items())
            table.add_row(*("—" if value is None else escape(format(value, form)) for value, form in cells))
        Console().print(table)


def study(function: F) -> click.Command:
    """Make a function, with its options, the command of a study.

    Errors of this project end it in one line, and Ctrl-C and SIGTERM leave nothing behind; OpenCV runs with
    one thread meanwhile, as in the pipeline.
    """

    @functools.wraps(function)
    def run(output: Path | None, **options: Any) -> None:
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            with logged_to(Console(stderr=True)), single_threaded_opencv():
                function(Study(given_words(f"benchmarks.studies.{name}"), output), **options)
        except (FgddError, OSError) as error:
            raise click.ClickException(str(error)) from error
        finally:
            signal.signal(signal.SIGTERM, before)

    place, studies = Path(function.__code__.co_filename).with_suffix(""), Path(__file__).parent
    parts = place.relative_to(studies).parts if place.is_relative_to(studies) else (place.name,)
    name = ".".join(dict.fromkeys(parts))  # a folder is run by its name, as its study of that name
    where = click.Path(path_type=Path)
    command = click.command(name=name)(run)
    command.params.append(click.Option(["--json", "output"], type=where, help="Where the result is written."))
    return command


def given_words(module: str) -> list[str]:
    """Return the words of the current click command that runs as a module, with the options given."""
    context = click.get_current_context()
    words = ["python", "-m", module]
    for parameter in context.command.params:
        name, option = parameter.name or "", parameter.opts[0]
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(option if value else parameter.secondary_opts[0])
        elif parameter.multiple:
            words += [word for item in value for word in (option, str(item))]
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return words


def data_argument(function: F) -> F:
    """Add the argument DATA, a folder of photographs; see `read_images`."""
    return click.argument("data", type=click.Path(path_type=Path))(function)


def number_option(name: str, default: int | None, text: str = "") -> Callable[[F], F]:
    """Return a decorator that adds an option for a whole number from 1 on."""
    return click.option(name, type=POSITIVE, default=default, show_default=default is not None, help=text)


def runtime_options(function: F) -> F:
    """Add `--device`, `--precision` and `--threads`, as `fgdd-fast` has them."""
    for option in (
        number_option("--threads", 2, "Processor threads."),
        click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True),
        device_option("--device", "Runs the models."),
    ):
        function = option(function)
    return function


def read_images(data: Path, per_class: int | None = None) -> tuple[DataSet, tuple[SourceImage, ...]]:
    """Scan a folder, and draw so many images of each class, or all; a DataError where there are none."""
    dataset = scan(data)
    images = pool(dataset, per_class, 0)
    if not images:
        raise DataError(f"There are no images in {data}", "Name a folder with one sub-folder for each class.")
    return dataset, images
