"""What `measure`, `distill` and `demo` share: open the models and the store, and measure a pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import TeacherError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, pool
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.images.views import ScoreView, default_view
from fgdd_fast.measurement.measurer import Measured, Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import ForegroundChoice, choose_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundModel
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Runtime, Teacher, check_classes, check_features
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.models.teacher_opening import open_teacher
from fgdd_fast.output.manifest import Model
from fgdd_fast.runtime.choose import Requested, choose_runtime
from fgdd_fast.selection.records import Tile
from fgdd_fast.selection.select import PLAIN, SelectionSettings


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """The options that say how models are run, named as on the command line."""

    device: Requested
    precision: Precision
    threads: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(RuntimeOptions):
    """The options of `measure`, named as on the command line."""

    foreground: str
    prompts: Path | None
    box_threshold: float | None
    teacher: str | None
    pool: int | None
    crops: int
    size: int
    factor: int
    score_view: ScoreView | None
    resize: ResizeMethod
    seed: int
    store: Path


@dataclass(frozen=True)
class Session:
    """An open pipeline over one pool.

    Attributes:
        dataset: the folder as scanned.
        images: the pool.
        choice: which foreground model it is, and how it is asked.
        foreground, teacher: the models.
        measurer: measures the pool, and reads its records.
    """

    dataset: DataSet
    images: tuple[SourceImage, ...]
    choice: ForegroundChoice
    foreground: ForegroundModel
    teacher: Teacher
    measurer: Measurer

    @property
    def runtime(self) -> str:
        """Name, version and precision of what runs the models; free of the number of threads."""
        teacher = self.teacher.engine.arithmetic + (", tiles" if self.teacher.bundle.tile_of else "")
        return " + ".join({self.foreground.description: None, teacher: None})

    @property
    def models(self) -> Mapping[str, Model]:
        """The models by their role, for the manifest; a tile form stands for its teacher."""
        teacher = self.teacher.bundle
        return {
            "foreground": Model(self.choice.name, self.foreground.sha256),
            "teacher": Model(teacher.name, teacher.tile_of or teacher.sha256),
        }

    @property
    def paths(self) -> Mapping[str, Path]:
        """The file of each source."""
        return {image.source: image.path for image in self.images}


def open_runtime(bundle: Bundle, options: RuntimeOptions, console: Console) -> Runtime:
    """Choose the runtime of a bundle, and say which."""
    say = partial(_say, console)
    choice = choose_runtime(bundle, options.device, options.precision, options.threads, say)
    say(f"{bundle.onnx.stem}: {choice.runtime.device} ({choice.reason})")
    return choice.runtime


def _say(console: Console, line: str) -> None:
    console.print(escape(line), highlight=False, soft_wrap=True, style="dim")


@contextmanager
def open_session(
    dataset: DataSet, options: MeasureOptions, console: Console, selection: SelectionSettings = PLAIN
) -> Iterator[Session]:
    """Check the models against a data set, and open everything that measures its pool.

    Args:
        dataset: the images.
        options: how they are measured.
        console: told which runtimes are used.
        selection: what has to be measured for it is measured as well.

    Raises:
        FgddError: a bundle, a runtime or the store cannot be used.
    """
    if options.teacher is None:
        raise TeacherError(
            "No teacher is named",
            f"Fit one on these images: fgdd-fast teacher fit {dataset.root} -o teacher.onnx   "
            "Then add: --teacher teacher.onnx",
        )
    images = pool(dataset, options.pool, options.seed)
    choice = choose_foreground(
        options.foreground,
        dataset.classes,
        prompts=None if options.prompts is None else read_prompts(options.prompts),
        box_threshold=options.box_threshold,
    )
    teacher_bundle = find_bundle(options.teacher, "teacher")
    check_classes(teacher_bundle, dataset.classes)
    if selection.needs_features:
        check_features(teacher_bundle)
    tile_size = options.size // options.factor
    settings = MeasureSettings(
        crops=options.crops,
        seed=options.seed,
        resize=options.resize,
        batch=options.batch,
        threads=options.threads,
        shares=selection.needs_shares,
        hashes=selection.needs_hashes,
    )
    with ExitStack() as stack:
        store = stack.enter_context(Store(options.store))
        foreground = open_foreground(
            choice,
            runtime=lambda bundle: open_runtime(bundle, options, console),
            batch=options.batch,
            resize=options.resize,
            threads=options.threads,
        )
        stack.enter_context(closing(foreground))
        teacher = open_teacher(
            teacher_bundle,
            runtime=lambda bundle: open_runtime(bundle, options, console),
            view=options.score_view or default_view(tile_size, teacher_bundle.preprocessing.width),
            tile_size=tile_size,
            batch=options.batch * VIEWS_PER_INFERENCE,
            notice=partial(_say, console),
        )
        stack.enter_context(closing(teacher))
        measurer = Measurer(foreground, teacher, settings, store, dataset.classes)
        yield Session(dataset, images, choice, foreground, teacher, measurer)


def measure_pool(session: Session, console: Console) -> Measured:
    """Measure what is missing of the pool, showing progress."""
    with progress_bar(console) as bar:
        task = bar.add_task("Measuring", total=len(session.images))
        return session.measurer.measure(session.images, lambda: bar.advance(task))


def measure_features(session: Session, tiles: Sequence[Tile], console: Console) -> None:
    """Measure what is missing of the teacher's features of tiles, showing progress."""
    missing = session.measurer.features.missing(tiles)
    with progress_bar(console) as bar:
        task = bar.add_task("Features", total=len(missing))
        session.measurer.features.measure(missing, session.paths, lambda: bar.advance(task))


def progress_bar(console: Console) -> Progress:
    """A progress bar for images or mosaics; silent where nobody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def report_skipped(skipped: Sequence[Skipped], console: Console, limit: int = 20) -> None:
    """List images that were left out, with the reasons."""
    if not skipped:
        return
    console.print(f"[yellow]{len(skipped)} skipped:[/yellow]")
    for item in skipped[:limit]:
        line = f"  {printable(item.source)}: {printable(item.reason)}"
        console.print(line, highlight=False, soft_wrap=True)
    if len(skipped) > limit:
        console.print(f"  … and {len(skipped) - limit} more")


def printable(text: str) -> str:
    """Text that any terminal can show: bytes that are no UTF-8 are escaped, and so is rich's markup."""
    return escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))
