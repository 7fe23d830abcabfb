"""Make soft labels: a teacher's answers to every image, every tile, and every view of the epochs.

A logit depends on its view alone, so labels are the same however often the work was stopped.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.cluster.cluster import Cluster
from fgdd_fast.cluster.connecting import workers_for
from fgdd_fast.images.tiles import SCORE_VIEWS, ScoreView
from fgdd_fast.labels.compression import parse_compression
from fgdd_fast.labels.index import LabelIndex, LabelledViews, LabelSubject
from fgdd_fast.labels.labeller import Labeller
from fgdd_fast.labels.teacher import check_labelling_teacher, teacher_model
from fgdd_fast.labels.training_views import ViewRecipe, default_batch, draw_epoch
from fgdd_fast.labels.writing import LabelWriter, open_writer
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.network import Runtime, Teacher
from fgdd_fast.output.distilled import DistilledSet, Pictures, open_distilled
from fgdd_fast.output.folder import MANIFEST
from fgdd_fast.parallel import single_threaded_opencv
from fgdd_fast.runtime.batches import views_at_once
from fgdd_fast.runtime.choose import RuntimeOptions, runtime_of

EPOCHS = 300  # RDED's training
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Settings:
    """Which labels are made.

    Attributes:
        epochs: how many epochs of training views are labelled; 0 for images and tiles alone.
        views: how the views are drawn, shown, and their logits kept.
        tile_view: how a tile is shown to the teacher.
        batch: views an inference.
    """

    epochs: int
    views: LabelledViews
    tile_view: ScoreView
    batch: int


def make_labels(
    out: str | os.PathLike[str],
    teacher: str | os.PathLike[str],
    *,
    epochs: int = EPOCHS,
    size: int | None = None,
    student_batch: int | None = None,
    cutmix: bool = True,
    seed: int = 0,
    view: ScoreView = "resize",
    score_view: ScoreView | None = None,
    compress: str = "float16",
    other_teacher: bool = False,
    overwrite: bool = False,
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
) -> LabelIndex:
    """Store what is missing of a teacher's soft labels of a distilled data set, in its folder `labels`.

    The images are held in memory; workers of a cluster read what they need of them. When the work is stopped,
    the same call goes on from there.

    Args:
        out: the folder of the distilled data set.
        teacher: name or path of the bundle that it was distilled with.
        epochs: how many epochs of views are labelled; 0 for images and tiles alone. None is ever dropped.
        size: side of a student's view in pixels; the images' own by default.
        student_batch: views that are mixed together; RDED's for so many images and classes by default.
        cutmix: whether views are mixed.
        seed: of the views, at least 0.
        view: how the teacher is shown a view: `resize`, brought to its input, or `native`, at its own size.
        score_view: how it is shown a tile; by default as it was when the data set was distilled.
        compress: how logits are kept: `float16`, `int8`, or `top:K`; see `compression`.
        other_teacher: whether the teacher may be another one than the data set was distilled with.
        overwrite: whether labels made otherwise are replaced, instead of refused.
        runtime: how the teacher runs; the fastest way that decides as the reference does by default.
        progress: shows how many images, tiles and views are labelled.

    Returns:
        The index of what is there now.

    Raises:
        TeacherError: the teacher is another one, or does not know the classes by name and by sight.
        FgddError: see `fgdd_fast.errors`; what was finished is kept.
    """
    distilled, options = open_distilled(Path(out)), runtime or RuntimeOptions()
    bundle = find_bundle(str(teacher), "teacher")
    check_labelling_teacher(bundle, distilled, other_teacher=other_teacher)
    recipe = _recipe(distilled, size, student_batch, seed, cutmix)
    views = LabelledViews(recipe, view, parse_compression(compress))
    views.compression.check(len(distilled.manifest.classes))
    with single_threaded_opencv(), workers_for(options, [bundle]) as (cluster, options):
        chosen = runtime_of(bundle, options, progress)
        batch = views_at_once(chosen.device, options.batch)
        settings = _Settings(epochs, views, score_view or _scored_view(distilled), batch)
        return _label(distilled, bundle, chosen, settings, cluster, overwrite=overwrite, progress=progress)


def _recipe(
    distilled: DistilledSet, size: int | None, batch: int | None, seed: int, cutmix: bool
) -> ViewRecipe:
    """How views are drawn; sizes that cannot be are refused before the long work."""
    classes = len(distilled.manifest.classes)
    images_per_class = max(len(distilled) // max(classes, 1), 1)
    recipe = ViewRecipe(
        size=size or distilled.size,
        factor=distilled.factor,
        batch=batch or default_batch(classes, images_per_class),
        seed=seed,
        cutmix=cutmix,
    )
    draw_epoch(recipe, 0, distilled.size, 0)
    return recipe


def _scored_view(distilled: DistilledSet) -> ScoreView:
    """How the teacher was shown tiles when they were chosen."""
    known = {str(view): view for view in SCORE_VIEWS}
    return known.get(str(distilled.manifest.settings.get("score_view")), SCORE_VIEWS[0])


def _label(
    distilled: DistilledSet,
    bundle: Bundle,
    runtime: Runtime,
    settings: _Settings,
    cluster: Cluster | None,
    *,
    overwrite: bool,
    progress: Progress,
) -> LabelIndex:
    """Make what is missing of the labels, and return their index."""

    def open_teacher(view: ScoreView, side: int) -> Teacher:
        return Teacher(bundle, runtime, view=view, tile_size=side, batch=settings.batch)

    with ExitStack() as stack:
        whole = stack.enter_context(closing(open_teacher("resize", distilled.size)))
        subject = _subject(distilled, whole, settings.tile_view)
        wanted = LabelIndex(subject, settings.views if settings.epochs else None, settings.epochs)
        writer = stack.enter_context(open_writer(distilled.folder, wanted, overwrite=overwrite))
        views, missing, lacks_images = writer.index.views, writer.index.missing, writer.index.lacks_images
        total = len(distilled) * (len(missing) + (1 + distilled.factor**2) * lacks_images)
        task = stack.enter_context(progress.task("Labelling", total))
        here = total and cluster is None
        images = distilled.read_all() if here else Pictures(distilled)
        labeller = Labeller(distilled, images, writer, runtime.threads, task.advance, cluster)
        begin = time.perf_counter()
        try:
            if lacks_images:
                with closing(open_teacher(settings.tile_view, distilled.tile_size)) as tiles:
                    labeller.label_images(whole, tiles)
            if missing and views is not None:
                network = whole
                if views.shown != "resize":
                    network = stack.enter_context(closing(open_teacher(views.shown, views.recipe.size)))
                labeller.label_epochs(network, views, missing)
        except KeyboardInterrupt:
            _tell_kept(writer)
            raise
        if subject.other_teacher:
            _log.warning("%s is not the teacher that %s was distilled with", bundle.name, distilled.folder)
        seconds = time.perf_counter() - begin
        rate = f" in {seconds:.1f} s, {total / seconds:.1f} a second" if total else ""
        _log.info("%d images, tiles and views labelled%s", total, rate)
        return writer.index


def _tell_kept(writer: LabelWriter) -> None:
    index = writer.index
    _log.info("%d of %d epochs are labelled and kept", index.epochs - len(index.missing), index.epochs)


def _subject(distilled: DistilledSet, teacher: Teacher, tile_view: ScoreView) -> LabelSubject:
    model, manifest = teacher_model(teacher.bundle), distilled.manifest
    fingerprint = {name: value for name, value in teacher.fingerprint.items() if name != "size"}
    return LabelSubject(
        manifest=file_sha256(distilled.folder / MANIFEST),
        images=distilled.hashes(),
        classes=manifest.classes,
        teacher=model,
        other_teacher=model.sha256 != manifest.models["teacher"].sha256,
        runtime=fingerprint,
        tile_view=tile_view,
    )
