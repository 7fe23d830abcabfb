"""Distil a stream: each class keeps its best tiles so far, and OUT is whole at every checkpoint."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from fgdd_engines.file_lock import exclusive_lock
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.distilling import open_pipeline
from fgdd_fast.errors import SettingsError, StoreError, TeacherError
from fgdd_fast.images.dataset import DataSet
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.options import MeasureOptions, PlanOptions, foreground_for, stored_settings
from fgdd_fast.output.folder import check_output, writing
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.selection.images_per_class import check_named_classes
from fgdd_fast.streaming.bounds import check_streamable
from fgdd_fast.streaming.budgets import Budgets
from fgdd_fast.streaming.candidate_format import candidates_path, check_same
from fgdd_fast.streaming.candidates import Candidates
from fgdd_fast.streaming.checkpoint import HOW
from fgdd_fast.streaming.labels import BY_NAME, FOLDER, TEACHER, label_function
from fgdd_fast.streaming.run import Run, Streamed, StreamOptions
from fgdd_fast.streaming.sources import open_source

NEAR = 4  # bits in which frames of a video or of a camera that count once differ at most
_NOT_OF_A_STREAM = ("pool", "store", "foreground_effort")
Named = str | Path | Iterable[tuple[str, bytes]]


def stream(
    source: Named,
    out: str | Path,
    *,
    overwrite: bool = False,
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Streamed:
    """Distil a stream of images into OUT, which is complete and valid at every checkpoint.

    Candidates lie in the file `OUT.candidates`. A run that was stopped, in whatever way, goes on from its
    last checkpoint when it is called again.

    Args:
        source: a folder, a video file, `camera:0`, `-` for standard input, or pairs of a name and the bytes
            of an image file. On standard input four bytes before each image, most significant first, say
            how many bytes it has.
        out: the folder to write.
        overwrite: whether a stream that was distilled into `out` before is forgotten, or an older distilled
            data set replaced.
        runtime: how the models run; the batch is 1 unless one is given.
        progress: told of each frame.
        options: the attributes of `StreamOptions`, of `fgdd_fast.options.PlanOptions`, and those of
            `fgdd_fast.options.MeasureOptions` but for `pool`, `store` and `foreground_effort`.
            `near_duplicates` drops frames that are nearly the same as one of the 256 before; for a video
            and a camera it is 4 by default.

    Raises:
        SettingsError: something cannot be done on a stream, or OUT was begun with other settings.
        DataError: the source cannot be read, or no class has enough images in the end.
        FgddError: see `fgdd_fast.errors`. What came before is in OUT then.
    """
    reading, deciding, measuring = _sorted_options(source, options)
    settings = deciding.settings(measuring)
    _check(settings)
    opened = open_source(source, once=reading.once, every=reading.every, patience=reading.patience)
    allowed = {name: getattr(reading, name) for name in ("memory", "fps", "power")}
    budgets = Budgets(**allowed, live=opened.live)
    label_of = label_function(reading.labels or FOLDER)
    runtime = replace(runtime or RuntimeOptions(), one_foreground_stream=reading.memory is not None)
    out, kept = Path(out), candidates_path(Path(out))
    check_output(out, _root(source), overwrite=overwrite or kept.exists())
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    disk = None if reading.disk is None else reading.disk << 20
    with (
        exclusive_lock(out.parent, kept.name, partial(_refuse, kept)),
        _models(_root(source), measuring, settings, runtime) as pipeline,
    ):
        check_named_classes(settings.ipc, settings.ipc_by_class, pipeline.dataset.classes)
        how = _how(pipeline, settings, reading)
        for name in (kept.name, f"{kept.name}-journal") if overwrite else ():
            kept.with_name(name).unlink(missing_ok=True)
        with closing(Candidates(kept, settings, reservoir=reading.reservoir, disk=disk)) as candidates:
            advice = "Give the same settings, or another OUT, or begin anew: --overwrite"
            check_same(candidates.fact(HOW) or how, how, kept, advice)
            candidates.keep_fact(HOW, how)
            run = Run(pipeline, settings, reading, candidates, budgets, out, source=opened, label_of=label_of)
            return run.run(progress)


def _check(settings: MosaicSettings) -> None:
    """Refuse what cannot be done on a stream."""
    if settings.resize == "reduced":
        raise SettingsError(
            "A stream cuts its tiles when it measures, of all pixels", "Choose --resize area, or pil."
        )
    if settings.most_bytes is not None:
        raise SettingsError(
            "How many images per class fit into so many bytes cannot be known of a stream",
            "Give a number: --ipc 10. --disk limits what is kept beside OUT.",
        )
    check_streamable(settings.rule, settings.selection.ranking)


@contextmanager
def _models(
    root: Path, measuring: MeasureOptions, settings: MosaicSettings, runtime: RuntimeOptions
) -> Iterator[Pipeline]:
    """The models in a pipeline without images, for all classes that the teacher knows."""
    if measuring.teacher is None:
        raise TeacherError("No teacher is named", "Add: --teacher BUNDLE")
    dataset = DataSet(root, find_bundle(str(measuring.teacher), "teacher").classes or (), (), ())
    runtime = replace(runtime, batch=1) if runtime.batch == "auto" else runtime
    given = {each.name: getattr(measuring, each.name) for each in fields(MeasureOptions)}
    given["foreground"] = measuring.foreground or foreground_for(settings)
    with (
        tempfile.TemporaryDirectory(prefix="fgdd-fast-") as store,
        open_pipeline(dataset, runtime=runtime, **{**given, "store": store}) as pipeline,
    ):
        yield pipeline


def _refuse(kept: Path) -> None:
    raise StoreError(f"Another stream is using {kept}", "Let that end first, or choose another OUT.")


def _sorted_options(
    source: Named, options: dict[str, Any]
) -> tuple[StreamOptions, PlanOptions, MeasureOptions]:
    """The options by what they are for, with the defaults of a source."""
    for name in _NOT_OF_A_STREAM:
        if name in options:
            raise SettingsError(f"'{name}' does not apply to a stream", "Leave it out.")
    sorted_out: list[dict[str, Any]] = []
    for kind in (StreamOptions, PlanOptions):
        names = {each.name for each in fields(kind)} & options.keys()
        sorted_out.append({name: options[name] for name in names})
        options = {name: value for name, value in options.items() if name not in names}
    reading, deciding = StreamOptions(**sorted_out[0]), PlanOptions(**sorted_out[1])
    named = not isinstance(source, str | Path) or Path(source).is_dir()
    if reading.labels is None:
        reading = replace(reading, labels=FOLDER if named else TEACHER)
    if deciding.near_duplicates is None and not named and str(source) != "-":
        deciding = replace(deciding, near_duplicates=NEAR)
    return reading, deciding, MeasureOptions(pool=None, **options)


def _root(source: Named) -> Path:
    """What OUT has to be apart from."""
    of_files = isinstance(source, str | Path) and str(source) != "-" and not str(source).startswith("camera:")
    return Path(str(source)) if of_files else Path(os.devnull)


def _how(pipeline: Pipeline, settings: MosaicSettings, reading: StreamOptions) -> dict[str, Any]:
    """Everything that decides which tiles are taken, as the manifest says it."""
    foreground, labels = pipeline.foreground, reading.labels or FOLDER
    looks = {json.dumps(dict(foreground.fingerprint(name))) for name in pipeline.dataset.classes}
    if labels == TEACHER and len(looks) > 1:
        raise SettingsError(
            f"The foreground model {foreground.name} looks for the class of each image, which the teacher is "
            "to tell",
            "Choose another --foreground, or label the images otherwise: --labels",
        )
    stored = stored_settings(
        settings,
        pipeline.options,
        box_threshold=pipeline.choice.box_threshold,
        score_view=pipeline.teacher.view,
        batch=pipeline.scored_batch,
        foreground_batch=pipeline.foreground_batch,
    )
    plain = labels in (FOLDER, TEACHER) or labels.startswith(BY_NAME)
    stored |= {"crops_by": "content", "reservoir": reading.reservoir, "labels": labels if plain else "list"}
    if labels == TEACHER:
        stored["confident"] = reading.confident
    how = {
        "settings": stored,
        "models": {role: astuple(model) for role, model in pipeline.models.items()},
        "prompts": dict(pipeline.choice.prompts),
        "runtime": pipeline.description,
    }
    return dict(json.loads(json.dumps(how)))  # as it is kept
