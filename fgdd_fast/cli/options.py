"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from fgdd_engines.backends import DEVICES, find_backend
from fgdd_engines.base import PRECISIONS
from fgdd_engines.bundle.files import write_file
from fgdd_engines.errors import FgddError
from fgdd_engines.paths import cache_folder
from fgdd_fast.cli import completion as offered
from fgdd_fast.cli.terminal import json_file, json_is_printed, keep_json_in
from fgdd_fast.images.near_duplicates import BITS
from fgdd_fast.images.tiles import SCORE_VIEWS
from fgdd_fast.models.factory import FAMILIES, SPELLINGS
from fgdd_fast.options import DEFAULT_FOREGROUND, PRESETS, Effort
from fgdd_fast.output.folder import writing
from fgdd_fast.runtime.batches import Batch
from fgdd_fast.runtime.choose import RuntimeOptions, available_processors
from fgdd_fast.selection.ranking import RANKINGS, RANKINGS_HELP
from fgdd_fast.selection.select import KEEP_FOREGROUND

F = TypeVar("F", bound=Callable[..., Any])

SIZE, FACTOR = 224, 2  # of mosaics


def pool_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Parse a number of images per class; `all` is None."""
    if value == "all":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number of images nor 'all'.")
    return int(value)


def batch_size(ctx: click.Context, param: click.Parameter, value: str) -> Batch:
    """Parse a number of images an inference, or `auto`."""
    if value == "auto":
        return "auto"
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number of images nor 'auto'.")
    return int(value)


def folder() -> click.Path:
    """A folder; whether it exists is checked by the code that reads it, which says more."""
    return click.Path(path_type=Path)


def combined(*options: Callable[[F], F]) -> Callable[[F], F]:
    """One decorator for several options, listed in the order given."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def default_store() -> Path:
    """Where measurements are kept when no store is named."""
    return cache_folder() / "store"


def runtime_of_options(options: dict[str, Any]) -> RuntimeOptions:
    """Take the options of `runtime_options` out of a command's options."""
    return RuntimeOptions(**{it.name: options.pop(it.name, it.default) for it in fields(RuntimeOptions)})


def device_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check a backend's name. Plug-ins are looked up for a name that is not built in, never for help."""
    if value not in ("auto", *DEVICES):
        try:
            find_backend(value)
        except FgddError as error:
            raise click.ClickException(str(error)) from error
    return value


def device_option(name: str, text: str) -> Callable[[F], F]:
    """An option for the device of a model, which may be a plug-in's."""
    devices = f"[{'|'.join(['auto', *DEVICES])}]"
    return click.option(
        name, callback=device_name, metavar=devices, default="auto", show_default=True, help=text
    )


def json_option() -> Callable[[F], F]:
    """The result as JSON; see `give`."""

    def take(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
        keep_json_in(value)

    return click.option(
        "--json",
        expose_value=False,
        type=click.Path(path_type=Path, allow_dash=True),
        is_flag=False,
        flag_value="-",
        callback=take,
        metavar="[FILE]",
        help="Write the result as JSON to FILE; without FILE, print it, and all else to standard error.",
    )


def give(result: Any) -> bool:
    """Print a result as JSON, or write it to a file, as `--json` asks; return whether it does.

    Raises:
        OutputError: it cannot be written.
    """
    file = json_file()
    if json_is_printed():
        click.echo(json.dumps(result, indent=1))
    elif file is not None:
        write_json(file, json.dumps(result, indent=1))
    return file is not None


def write_json(file: Path, text: str) -> None:
    """Write a result to a file, which is replaced whole.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(file):
        write_file(file, f"{text}\n".encode())


def seed_option() -> Callable[[F], F]:
    """The seed of every random choice."""
    return click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."
    )


def runtime_options() -> Callable[[F], F]:
    """How models are run."""
    return combined(
        device_option(
            "--device",
            "cpu is ONNX Runtime, the reference; auto takes the fastest whose decisions agree with it; "
            "cuda:1 is the second GPU.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="auto",
            show_default=True,
            help="Arithmetic; int8, and fp16 and bf16 on a GPU, take a variant made by 'fgdd-fast convert'. "
            "tf32 is fp32 with short products, on NVIDIA's GPUs.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            default=available_processors,
            show_default="all processors",
            help="Processor threads.",
        ),
        click.option(
            "--batch",
            callback=batch_size,
            default="auto",
            show_default=True,
            metavar="N|auto",
            help="Images an inference; auto is 1 on a CPU, where more gains little, and what suits a network "
            "on a GPU. Another batch measures anew.",
        ),
    )


def resize_option(*more: str) -> Callable[[F], F]:
    """How images are resized: two ways, and more."""
    return click.option(
        "--resize",
        type=click.Choice(["area", "pil", *more]),
        default="area",
        show_default=True,
        help="area is OpenCV's; pil agrees with Pillow's antialiased bilinear."
        + " reduced measures JPEGs of 8 megapixels and more at a fraction of their size." * bool(more),
    )


def foreground_options(default: str | None = DEFAULT_FOREGROUND) -> Callable[[F], F]:
    """The foreground model, and how it is asked for a class; without a default, the rule's needs decide."""
    shown = default or f"{DEFAULT_FOREGROUND} where --rule asks for a foreground, else none"
    return combined(
        click.option(
            "--foreground",
            default=default,
            show_default=shown,
            metavar="NAME|BUNDLE|masks:FOLDER|none",
            shell_complete=offered.models(*FAMILIES, role="foreground"),
            help=f"Foreground model: {SPELLINGS}, one of the catalogue or of a plug-in, or a bundle.",
        ),
        click.option(
            "--prompts",
            type=folder(),
            metavar="FILE",
            help="What Grounded SAM 2 looks for in each class, instead of its folder's name.",
        ),
        click.option(
            "--box-threshold",
            type=click.FloatRange(0, 1),
            metavar="SCORE",
            show_default="the bundle's own",
            help="Score above which Grounded SAM 2 takes a box.",
        ),
    )


def selection_options() -> Callable[[F], F]:
    """Which tiles are chosen of what was measured."""
    return combined(
        click.option(
            "--ranking",
            type=click.Choice([*RANKINGS]),
            default="loss",
            show_default=True,
            help=f"Which tiles of a class are taken. {RANKINGS_HELP}.",
        ),
        click.option(
            "--keep-foreground",
            type=click.FloatRange(0, 1),
            show_default=f"{KEEP_FOREGROUND:g}; 0 with always-patch, which is RDED then",
            metavar="SHARE",
            help="Take crops that keep this share of their image's foreground; of an image without one, "
            "the crop that keeps most; others only where a class is too small.",
        ),
        click.option(
            "--least-area",
            type=click.FloatRange(0, 1),
            default=0.0,
            show_default=True,
            metavar="SHARE",
            help="Take crops that cover this share of their image, likewise.",
        ),
        click.option(
            "--near-duplicates",
            type=click.IntRange(0, BITS),
            metavar="DISTANCE",
            help="Keep one of a class's images that are nearly the same: their perceptual hashes differ in "
            f"at most so many of {BITS} bits. 2 finds copies of another size or quality.",
        ),
    )


def preset_option() -> Callable[[F], F]:
    """Settings that go together; those given besides come first."""

    def take(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        known = ctx.default_map or {}  # of a file of settings, in which single ones come before its preset
        named_there = ctx.get_parameter_source("preset") is ParameterSource.DEFAULT_MAP
        ctx.default_map = {**PRESETS[value], **known} if named_there else {**known, **PRESETS[value]}

    return click.option(
        "--preset",
        type=click.Choice([*PRESETS]),
        callback=take,
        is_eager=True,
        expose_value=False,
        help="Settings that go together, which other options override. "
        + "; ".join(f"{name}: {_spelled(settings)}" for name, settings in PRESETS.items())
        + ".",
    )


def _spelled(settings: Mapping[str, Any]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def effort_option() -> Callable[[F], F]:
    """At how many images the foreground model looks."""
    return click.option(
        "--foreground-effort",
        type=click.Choice(get_args(Effort)),
        default="exact",
        show_default=True,
        help="exact: it looks at all images; decide: a quicker one does, and it where that matters.",
    )


def measure_options(*, streamed: bool = False) -> Callable[[F], F]:
    """What is measured of the pool, or of a stream, which has neither pool nor store; with which models."""
    pool = click.option(
        "--pool",
        callback=pool_size,
        default="300",
        show_default=True,
        metavar="N|all",
        help="Images considered per class.",
    )
    where, text = "in the cache folder", "Folder that keeps what was measured."
    store = click.option("--store", type=folder(), default=default_store, show_default=where, help=text)
    return combined(
        foreground_options(None),
        *(() if streamed else (effort_option(),)),
        click.option(
            "--teacher",
            metavar="BUNDLE",
            shell_complete=offered.models(role="teacher"),
            help="Teacher: a bundle made by 'fgdd-fast teacher fit'.",
        ),
        *(() if streamed else (pool,)),
        click.option(
            "--crops",
            type=click.IntRange(min=1),
            default=5,
            show_default=True,
            help="Candidate crops of each image.",
        ),
        click.option(
            "--size",
            type=click.IntRange(min=1),
            default=SIZE,
            show_default=True,
            help="Side of a mosaic in pixels.",
        ),
        click.option(
            "--factor",
            type=click.IntRange(min=1),
            default=FACTOR,
            show_default=True,
            help="Tiles along each side of a mosaic.",
        ),
        click.option(
            "--score-view",
            type=click.Choice(SCORE_VIEWS),
            show_default="pad; resize for tiles below half of the teacher's side",
            help="How the teacher is shown a tile: zero-padded (as RDED does), enlarged, or at its own size.",
        ),
        resize_option("reduced"),
        seed_option(),
        *(() if streamed else (store,)),
        runtime_options(),
    )
