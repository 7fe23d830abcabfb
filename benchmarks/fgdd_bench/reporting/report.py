"""The tables of a result, as Markdown; numbers in words for every report.

python -m fgdd_bench.reporting.report RESULT.json...
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fgdd_bench.harness.result import upgraded
from fgdd_fast.errors import DataError, FgddError

Result = Mapping[str, Any]

NOTHING = "—"
SHOWN = ("fair", "compiled", "published")  # the references, in the order in which they are shown
NAMES: Mapping[str, str] = {
    "ours": "fgdd-fast",
    "fair": "fair PyTorch",
    "compiled": "compiled PyTorch",
    "published": "published style",
    "fp32": "fp32, ONNX Runtime",
}
PATHS: Mapping[str, str] = {
    "decode": "decode and crop",
    "foreground": "foreground",
    "teacher": "scoring",
    "compose": "compose",
    "all": "the whole",
}


def percent(value: float | None) -> str:
    """Return a share in words; `NOTHING` for what is unknown."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """Return three digits that count, with thousands apart; `NOTHING` for what is unknown."""
    if value is None:
        return NOTHING
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def times(value: float) -> str:
    """Return a ratio in words."""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(figures: Mapping[str, float], form: Callable[[float], str]) -> str:
    """Return a median with the lowest and the highest."""
    return f"{form(figures['median'])} ({form(figures['lowest'])} to {form(figures['highest'])})"


# What the figures of parity are called, and how they are written.
FIGURES: Mapping[str, tuple[str, Callable[[float | None], str]]] = {
    "same_path": ("same path", percent),
    "same_crop": ("same crop chosen", percent),
    "same_or_near_crop": ("same crop, or one within 0.02 nats of the best", percent),
    "mean_regret": ("mean regret of the crop chosen, nats", number),
    "same_tiles": ("same tiles selected", percent),
    "with_foreground": ("images with a foreground", percent),
    "mean_occupancy_error": ("occupancy error, mean", number),
    "largest_occupancy_error": ("occupancy error, largest", number),
    "mean_mask_iou": ("mask IoU, mean", number),
    "lowest_mask_iou": ("mask IoU, lowest", number),
    "mean_box_iou": ("box IoU, mean", number),
    "matched_boxes": ("boxes with a partner", percent),
    "mean_score_error": ("box score error, mean", number),
    "loss_rank_correlation": ("rank correlation of losses", number),
    "mean_loss_error": ("loss error, mean, nats", number),
    "largest_loss_error": ("loss error, largest, nats", number),
    "mean_tile_error": ("tile error, mean, grey levels", number),
    "largest_tile_error": ("tile error, largest, grey levels", number),
    "mean_mosaic_error": ("mosaic error, mean, grey levels", number),
    "largest_mosaic_error": ("mosaic error, largest, grey levels", number),
}


def references(result: Result) -> list[str]:
    """Return the references of a result, in the order in which they are shown."""
    return [name for name in SHOWN if any(name in path["implementations"] for path in result["paths"])]


def summary(result: Result) -> str:
    """Return what was measured, and on what, in a line."""
    data, settings, machine = result["data"], result["settings"], result["environment"]
    threads = settings["threads"]
    return (
        f"{data['images']} images of {data['name']}, {settings['crops']} crops each, {machine['processor']}, "
        f"{threads} {'thread' if threads == 1 else 'threads'}, {settings['repeats']} turns"
    )


def markdown(result: Result) -> str:
    """Return the tables of a result."""
    parts = [
        summary(result) + ". Ratios are medians of those within a turn, with the lowest and the highest.",
        _table(headline_rows(result)),
        _table(_implementations(result)),
        _table(_stages(result)),
        _table(_parity(result)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; empty where there is nothing below the headings."""
    headings, *body = rows
    if not body:
        return ""
    rule = [
        "---:" if any(cell[:1].isdecimal() for cell in cells) else "---" for cells in zip(*body, strict=True)
    ]
    clean = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (headings, rule, *body))
    return "\n".join(f"| {' | '.join(row)} |" for row in clean)


def headline_rows(result: Result) -> Iterator[list[str]]:
    """Yield how many times as fast as each reference; none for a path whose answers differ."""
    others = references(result)
    yield ["path", *(f"against {NAMES[name]}" for name in others), "images/s", "answers"]
    for path in result["paths"]:
        if path["passed"]:
            ratios = [path["speedup"].get(name) for name in others]
            shown = [NOTHING if ratio is None else spread(ratio, times) for ratio in ratios]
            rate = number(path["implementations"]["ours"]["images_per_second"]["median"])
            yield [PATHS[path["path"]], *shown, rate, "agree" if path["parity"] else "not compared"]
        else:
            verdict = f"no speed-up: {'; '.join(path['failures'])}"
            yield [PATHS[path["path"]], *[NOTHING] * (len(others) + 1), verdict]


def _implementations(result: Result) -> Iterator[list[str]]:
    """Yield each implementation from end to end."""
    rates = ["images/s", "processor s/image", "bound by", "busy", "of its limit", "load, s"]
    yield ["path", "implementation", "arithmetic", *rates]
    for path in filter(_accepted, result["paths"]):
        for name in filter(path["implementations"].__contains__, ("ours", *SHOWN)):
            one = path["implementations"][name]
            yield [
                PATHS[path["path"]],
                NAMES[name],
                one["arithmetic"],
                spread(one["images_per_second"], number),
                number(one["processor_seconds_per_image"]),
                one["bound_by"] or NOTHING,
                percent(one["busy"]),
                percent(share_of_limit(path, name)),
                number(one["load_seconds"]),
            ]


def share_of_limit(path: Mapping[str, Any], name: str) -> float | None:
    """Return what is reached, for each core, of the limit of a path; None where it has none."""
    return path["limit"]["shares_per_core"][name]["median"] if "limit" in path else None


def _stages(result: Result) -> Iterator[list[str]]:
    """Yield each of our stages alone."""
    yield ["path", "stage", "images/s a core", "p50, ms", "p90, ms", "p99, ms", "share", "of its limit"]
    for path in filter(_accepted, result["paths"]):
        for stage in path["implementations"]["ours"]["stages"]:
            yield [
                PATHS[path["path"]],
                stage["name"],
                number(stage["images_per_second_per_core"]),
                *map(number, stage["latency_ms"].values()),
                percent(stage["share"]),
                percent(stage["limit"]["share"]) if "limit" in stage else NOTHING,
            ]


def _accepted(path: Mapping[str, Any]) -> bool:
    return bool(path["passed"])


def _parity(result: Result) -> Iterator[list[str]]:
    """Yield how our answers compare with those of the others, and what is accepted."""
    columns = ["fp32", *references(result)]
    yield ["path", "figure", *(NAMES[name] for name in columns)]
    for path in result["paths"]:
        for label, cells in parity_rows(path, columns):
            yield [PATHS[path["path"]], label, *map(_judged, cells)]


def parity_rows(
    path: Mapping[str, Any], columns: Sequence[str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each figure of a path: what it is called, and cells with `value`, `tolerance` and `failed`."""
    found = [path["parity"].get(name, {"figures": {}, "tolerances": {}, "failed": []}) for name in columns]
    names = {name for parity in path["parity"].values() for name in parity["figures"]}
    for name in sorted(names, key=list(FIGURES).index):
        label, form = FIGURES[name]
        yield (
            label,
            [
                {
                    "value": form(parity["figures"][name]) if name in parity["figures"] else "",
                    "tolerance": parity["tolerances"].get(name, ""),
                    "failed": name in parity["failed"],
                }
                for parity in found
            ],
        )


def _judged(cell: Mapping[str, Any]) -> str:
    if not cell["tolerance"]:
        return str(cell["value"])
    return f"{'**failed** ' if cell['failed'] else ''}{cell['value']} ({cell['tolerance']})"


def read_result(file: Path) -> Result:
    """Read a result.

    Raises:
        DataError: it is none.
    """
    try:
        result = upgraded(json.loads(file.read_text(encoding="utf-8")))
        summary(result)
        result["paths"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not a result of fgdd-fast bench", "Make one with --json.") from error
    return dict(result)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULT.json...")
def main(files: tuple[Path, ...]) -> None:
    """Print the tables of results of `fgdd-fast bench`."""
    try:
        parts = []
        for file in files:
            result = read_result(file)
            parts.append(f"## {file.stem}\n\n`{result['command']}`\n\n{markdown(result)}")
        click.echo("\n".join(parts), nl=False)
    except FgddError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
