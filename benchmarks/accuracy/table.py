"""The table of a file of results, as Markdown, and all its figures as JSON.

python -m benchmarks.accuracy.table FILE.jsonl [--markdown TABLE.md] [--json RESULT.json]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.accuracy.analysis import (
    FEWEST_SEEDS,
    Analysis,
    Cell,
    Comparison,
    Verdict,
    analyse,
    images_in_words,
)
from benchmarks.accuracy.intervals import CONFIDENCE, RESAMPLES, Difference, Interval, Spread
from benchmarks.accuracy.results import Results, read_results
from benchmarks.accuracy.rows import CONTROLS, FULL_DATA, RANDOM, RDED, Row, parse_row, rded_for
from fgdd_bench.harness.result import rounded, to_text
from fgdd_bench.reporting.report import NOTHING
from fgdd_fast.errors import FgddError

MEASURES = f"""\
Accuracies and differences are shares, from 0 to 1, after the last epoch: mean ± sample standard deviation
over all students of a row (selection seeds times training seeds). Differences are paired: the same seeds, the
same validation images; in square brackets a bootstrap interval of {CONFIDENCE:.0%}, of {RESAMPLES:,}
resamples of selection seeds, of training seeds within each, and of images, together. "Few seeds" is Student's
interval with the degrees of freedom that so few selection seeds leave. IOR, HLR and LRS are DD-Ranking's
(arXiv 2505.13300): how much better than random whole images, both with soft labels; how far from students of
all real data, both with hard labels; and both together, with equal weights. Unlike DD-Ranking, no learning
rate is searched, and no best epoch chosen."""


def markdown(results: Results) -> str:
    """Return the tables of a file of results.

    Raises:
        DataError: a line is damaged.
    """
    analysis = analyse(results)
    parts = [
        "# Accuracy of students",
        *_head(results),
        "## Does the foreground itself pay?",
        statement(analysis.verdicts),
        _table(_verdict_rows(analysis)),
    ]
    for architecture in dict.fromkeys(cell.architecture for cell in analysis.cells):
        cells = [cell for cell in analysis.cells if cell.architecture == architecture]
        parts += [f"## {architecture}: ceilings", _table(_ceiling_rows(results, cells))]
        for ipc in sorted({cell.ipc for cell in cells} - {0}):
            here = [cell for cell in cells if cell.ipc == ipc]
            parts += [
                f"## {architecture}: {images_in_words(ipc)}",
                _table(_row_rows(here, analysis.comparisons)),
            ]
            parts += [_table(_class_rows(results, here))]
        compared = [found for found in analysis.comparisons if found.architecture == architecture]
        parts += [f"## {architecture}: differences", _table(_comparison_rows(compared))]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(results: Results) -> dict[str, Any]:
    """Return all figures of a file of results, as JSON values.

    Raises:
        DataError: a line is damaged.
    """
    analysis = analyse(results)
    figures: dict[str, Any] = rounded(
        {
            "conditions": {name: value for name, value in results.conditions.items() if name != "validation"},
            "runs": list(results.runs),
            "teachers": [{name: line[name] for name in ("shown", "top1")} for line in results.teachers],
            "cells": [asdict(cell) for cell in analysis.cells],
            "comparisons": [asdict(comparison) for comparison in analysis.comparisons],
            "verdicts": [
                {**asdict(verdict), "pays": verdict.pays, "pays_with_few_seeds": verdict.pays_with_few_seeds}
                for verdict in analysis.verdicts
            ],
        }
    )
    return figures


def _head(results: Results) -> Iterator[str]:
    """What was compared, on what, and how it is repeated."""
    conditions = results.conditions
    data, validation, teacher = (conditions[name] for name in ("data", "validation", "teacher"))
    labelled = conditions["label_epochs"]
    compiled = ", compiled" if conditions["recipe"]["compile"] else ""
    epochs = f"{conditions['epochs']} epochs (RDED: 300)"
    if labelled < conditions["epochs"]:
        epochs += f", of which the first {labelled} were labelled and their views seen again and again"
    yield (
        f"{data['images']:,} images of {data['name']} (pool {conditions['pool']} a class), judged on "
        f"{validation['images']:,} of {validation['name']}; {len(conditions['classes'])} classes; "
        f"{conditions['size']} pixels, {conditions['factor']} x {conditions['factor']} tiles an image, "
        f"{conditions['crops']} candidate crops; foreground {conditions['foreground']['name']}; teacher "
        f"{teacher['name']} ({teacher['sha256'][:12]}), labels by {teacher['labels_by']}; students: "
        f"{epochs}, {conditions['recipe']['arithmetic']}{compiled}, {conditions['students_by']}."
    )
    if results.runs:
        machine = results.runs[-1]["environment"]
        packages = ", ".join(
            f"{name} {machine['packages'][name]}"
            for name in ("torch", "onnxruntime", "openvino", "numpy", "opencv-python")
        )
        yield (
            f"Last run on {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"{machine['system']}, Python {machine['python']}; {packages}; load average "
            f"{machine['load_average'][0]} at its beginning. Commands, in turn:"
        )
        commands = dict.fromkeys(run["command"] for run in results.runs)
        yield "```\n" + "\n".join(commands) + "\n```"
    yield MEASURES


def statement(verdicts: Sequence[Verdict]) -> str:
    """Return the plain answer: which rows beat both RDED and their own shuffled control."""
    judged = [verdict for verdict in verdicts if verdict.pays is not None]
    if not judged:
        return "No row of the method has RDED and its shuffled control beside it: nothing can be said."
    sure = [verdict for verdict in judged if verdict.pays_with_few_seeds]
    bootstrap = [verdict for verdict in judged if verdict.pays and not verdict.pays_with_few_seeds]
    chance = len(judged) * (1 - CONFIDENCE) / 2
    sentences = [
        f"Of {len(judged)} judgements, {len(sure)} find RDED and the row's own shuffled control both beaten "
        f"by more than either interval{_named(sure)}.",
        f"By more than the bootstrap interval alone: {len(bootstrap)} more{_named(bootstrap)}.",
        f"Chance alone would let about {chance:.1f} of them beat their shuffled control.",
    ]
    if not sure:
        sentences.insert(1, "So there is no sound evidence here that the foreground itself pays.")
    if min(verdict.selection_seeds for verdict in judged) < FEWEST_SEEDS:
        sentences.append(f"Some have fewer than {FEWEST_SEEDS} selection seeds: take those for a trial.")
    return " ".join(sentences)


def _named(verdicts: Sequence[Verdict]) -> str:
    names = (
        f"{verdict.row} ({verdict.architecture}, {images_in_words(verdict.ipc)}, {verdict.labels} labels)"
        for verdict in verdicts
    )
    return f": {', '.join(names)}" if verdicts else ""


def _verdict_rows(analysis: Analysis) -> Iterator[list[str]]:
    yield [
        *("row", "students", "labels", "images", "over RDED", "over its shuffled control"),
        *("over all whole", "pays?"),
    ]
    for verdict in analysis.verdicts:
        yield [
            verdict.row,
            verdict.architecture,
            verdict.labels,
            images_in_words(verdict.ipc),
            _difference(verdict.over_rded),
            _difference(verdict.over_shuffled),
            _difference(verdict.over_whole),
            _pays(verdict),
        ]


def _pays(verdict: Verdict) -> str:
    if verdict.pays is None:
        return NOTHING
    if verdict.pays_with_few_seeds:
        return "yes"
    return "by the bootstrap alone" if verdict.pays else "no"


def _ceiling_rows(results: Results, cells: Sequence[Cell]) -> Iterator[list[str]]:
    yield ["what", "top-1", "balanced"]
    for line in results.teachers:
        yield [f"teacher, shown {line['shown']}", _share(line["top1"]), NOTHING]
    for cell in cells:
        if cell.row == FULL_DATA:
            name = f"students of all real data, hard labels, {results.conditions['full_epochs']} epochs"
            yield [name, _spread(cell.top1), _spread(cell.balanced)]


def _row_rows(cells: Sequence[Cell], comparisons: Sequence[Comparison]) -> Iterator[list[str]]:
    """Every row of an architecture and number of images, with what decides about it."""
    places = {
        (found.pairing.first, found.pairing.second): found.difference
        for found in comparisons
        if (found.architecture, found.labels, found.ipc) == (cells[0].architecture, "soft", cells[0].ipc)
    }
    yield [
        *("row", "whole tiles", "students", "top-1", "balanced", "hard labels"),
        *("IOR", "HLR", "LRS", "over RDED"),
        *(f"over {control}" for control in CONTROLS),
        "over all whole",
    ]
    for cell in cells:
        row = parse_row(cell.row)
        rded = next((name for name in rded_for(row) if (cell.row, name) in places), RDED)
        opponents = [rded]
        if isinstance(row, Row):
            opponents += [
                *(row.control(control).name for control in CONTROLS),
                row.always("always-full").name,
            ]
        differences = [_difference(places.get((cell.row, opponent))) for opponent in opponents]
        yield [
            _title(cell.row),
            _share(cell.whole),
            str(cell.top1.count),
            _spread(cell.top1),
            _spread(cell.balanced),
            NOTHING if cell.hard is None else _spread(cell.hard),
            *(_signed(value) for value in (cell.ior, cell.hlr)),
            _share(cell.lrs),
            *(differences + [NOTHING] * 4)[:4],
        ]


def _class_rows(results: Results, cells: Sequence[Cell]) -> Iterator[list[str]]:
    """The share of each class's validation images that is answered right."""
    yield ["right of each class", *results.conditions["classes"]]
    for cell in cells:
        yield [_title(cell.row), *(_share(value) for value in cell.by_class)]


def _comparison_rows(comparisons: Sequence[Comparison]) -> Iterator[list[str]]:
    yield [
        "row",
        "against",
        "labels",
        "images",
        "difference",
        "few seeds",
        "seeds ahead",
        "answer",
        "question",
    ]
    for found in comparisons:
        difference = found.difference
        yield [
            _title(found.pairing.first),
            _title(found.pairing.second),
            found.labels,
            images_in_words(found.ipc),
            _difference(difference),
            _interval(difference.small_sample),
            f"{difference.ahead} of {difference.selection_seeds}",
            _outcome(difference),
            found.pairing.question,
        ]


def _outcome(difference: Difference) -> str:
    """A comparison in a word."""
    words = {1: "yes", -1: "no, worse", 0: "not told apart"}
    sides = [difference.bootstrap.side]
    if difference.small_sample is not None:
        sides.append(difference.small_sample.side)
    if sides[0] and 0 in sides:
        return f"{words[sides[0]]}, by the bootstrap alone"
    return words[sides[0]]


def _table(rows: Iterator[list[str]]) -> str:
    """A Markdown table; empty where there is nothing below the headings."""
    headings, *body = rows
    if not body:
        return ""
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *body))


def _title(row: str) -> str:
    if row in rded_for(parse_row(row)):
        return f"RDED ({row})"
    return {RANDOM: "random whole images", "random-crops": "random crops"}.get(row, row)


def _share(value: float | None) -> str:
    return NOTHING if value is None or value != value else f"{value:.3f}"  # noqa: PLR0124 - NaN


def _signed(value: float | None) -> str:
    return NOTHING if value is None else f"{value:+.3f}"


def _spread(found: Spread) -> str:
    return f"{found.mean:.3f}" + ("" if found.deviation is None else f" ± {found.deviation:.3f}")


def _difference(found: Difference | None) -> str:
    if found is None:
        return NOTHING
    return f"{found.mean:+.3f} [{_interval(found.bootstrap)}]"


def _interval(found: Interval | None) -> str:
    return NOTHING if found is None else f"{found.low:+.3f}, {found.high:+.3f}"


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.jsonl")
@click.option("--markdown", "text_file", type=click.Path(path_type=Path), help="Where the table is written.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Where all figures are written.")
def main(file: Path, text_file: Path | None, json_file: Path | None) -> None:
    """Print the table of a file of results of the accuracy benchmark."""
    try:
        results = read_results(file)
        text = markdown(results)
        if json_file is not None:
            json_file.write_text(to_text(as_json(results)), encoding="utf-8")
        if text_file is not None:
            text_file.write_text(text, encoding="utf-8")
    except (FgddError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(text, nl=False)


if __name__ == "__main__":
    main()
