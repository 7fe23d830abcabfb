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
import cv2
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fgdd_bench.machine.environment import command_line, environment
from fgdd_engines.base import PRECISIONS
from fgdd_fast.cli.options import device_option
from fgdd_fast.cli.terminal import console_progress, logged_to
from fgdd_fast.errors import DataError, FgddError, OutputError
from fgdd_fast.images.dataset import DataSet, SourceImage, pool, scan

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

POSITIVE = click.IntRange(min=1)


class Study:
    """A run of a study: it knows the command and the machine, tells how far it is, and reports.

    Args:
        command: the words that it was started with.
        output: the file of the result; None where none is wanted.

    Raises:
        OutputError: the file could not be written at the end.
    """

    def __init__(self, command: Sequence[str], output: Path | None) -> None:
        if output is not None and (output.is_dir() or not output.parent.is_dir()):
            raise OutputError(f"{output} cannot be written", "Name a file in a folder that is there.")
        self._output = output
        self._command = command_line(command)
        self._environment = environment()
        self._progress = console_progress(Console(stderr=True))

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Give the items one by one, showing on stderr how many are done.

        Args:
            items: what is worked through.
            what: in a word or two, what is done.
            total: how many they are; needed where they have no length.
        """
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
            part = self._output.with_name(f".{self._output.name}.part")
            try:
                part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                part.replace(self._output)
            except OSError as error:
                raise OutputError(f"{self._output} cannot be written: {error.strerror}") from error
        if show:
            self.show(rows, columns)

    @staticmethod
    def show(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        """Print a table; see `report`."""
        table = Table()
        for name, form in columns.items():
            table.add_column(name.replace("_", " "), justify="right" if form else "left")
        for row in rows:
            table.add_row(*(_cell(row[name], form) for name, form in columns.items()))
        Console().print(table)


def _cell(value: Any, form: str) -> str:
    return "—" if value is None else escape(format(value, form))


def study(function: F) -> click.Command:
    """Make a function, with its options, the command of a study.

    Errors of this project end it in one line, and Ctrl-C and SIGTERM leave nothing behind; OpenCV runs with
    one thread meanwhile, as in the pipeline.
    """

    @functools.wraps(function)
    def run(output: Path | None, **options: Any) -> None:
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            with logged_to(Console(stderr=True)):
                function(Study(given_words(f"benchmarks.studies.{_name(function)}"), output), **options)
        except (FgddError, OSError) as error:
            raise click.ClickException(str(error)) from error
        finally:
            cv2.setNumThreads(threads)
            signal.signal(signal.SIGTERM, before)

    where = click.Path(path_type=Path)
    output = click.Option(["--json", "output"], type=where, help="Where the result is written.")
    command = click.command(name=_name(function))(run)
    command.params.append(output)
    return command


def _name(function: Callable[..., Any]) -> str:
    return Path(function.__code__.co_filename).stem


def given_words(module: str) -> list[str]:
    """Return the words of the current click command that runs as a module, with the options given."""
    context = click.get_current_context()
    words = ["python", "-m", module]
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        elif parameter.multiple:
            words += [word for item in value for word in (parameter.opts[0], str(item))]
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [parameter.opts[0], text]
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
    """Scan a folder, and draw images of each class.

    Args:
        data: the folder.
        per_class: images of each class, at most; None for all.

    Raises:
        DataError: the folder is missing, or holds no images.
    """
    dataset = scan(data)
    images = pool(dataset, per_class, 0)
    if not images:
        raise DataError(f"There are no images in {data}", "Name a folder with one sub-folder for each class.")
    return dataset, images
