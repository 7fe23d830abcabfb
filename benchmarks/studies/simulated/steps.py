"""The steps of `simulated`, each for a process of its own; they go on from what earlier ones left on disk."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.studies.simulated.made import HEIGHT, WIDTH, Made, picture
from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import Skipped, SourceImage, pool, scan
from fgdd_fast.images.decode import read_file
from fgdd_fast.images.tiles import read_tile
from fgdd_fast.labels.compression import FLOAT16
from fgdd_fast.labels.index import LabelIndex, LabelledViews, LabelSubject
from fgdd_fast.labels.labeller import Labeller
from fgdd_fast.labels.training_views import ViewRecipe, default_batch
from fgdd_fast.labels.writing import open_writer
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.store import Store
from fgdd_fast.options import MeasureOptions, PlanOptions
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.folder import MANIFEST, RUN_RECORD
from fgdd_fast.output.manifest import DistilledImage, Model, build, write
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.output.mosaic import arrange, compose, encode
from fgdd_fast.output.run_record import RunLog, record_run, write_run_record
from fgdd_fast.output.writing import write_mosaics
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import MosaicSettings, Plan, decide
from fgdd_fast.selection.records import ImageRecord, Tile

Row = dict[str, Any]
_RULE, _EPOCHS, _SAMPLE = "quantile:0.3", 2, 4000  # epochs of labels; items that are read


class Watch:
    """Seconds of several things, those of the processor for them, and the memory at their end."""

    def __init__(self) -> None:
        self.facts: Row = {}
        self._begin = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        """Note the seconds since the last lap, and the peak of memory so far."""
        now = time.perf_counter(), time.process_time()
        values = now[0] - self._begin[0], now[1] - self._begin[1], peak()
        names = (f"{name}_{what}" for what in ("seconds", "processor_seconds", "peak"))
        self.facts |= dict(zip(names, values, strict=True))
        self._begin = now


def peak() -> int:
    """Bytes of memory at the peak of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(made: Made, step: str) -> Row:
    """Run a step, and return what it took."""
    before, begin, processor = peak(), time.perf_counter(), time.process_time()
    facts = STEPS[step](made)
    seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    usage = {
        "seconds": seconds,
        "processor_seconds": processor,
        "memory_before": before,
        "peak_memory": peak(),
    }
    return {"step": step, **usage, **facts}


def look(made: Made) -> Row:
    """Find the images, and draw the pool."""
    watch = Watch()
    dataset = scan(made.data)
    watch.lap("scan")
    images = pool(dataset, made.pool, 0)
    watch.lap("pool")
    return {"images": len(dataset.images), "pool": len(images), **watch.facts}


def missing(made: Made) -> Row:
    """Find that of all images all is known."""
    with Store(made.folder / "store") as store:
        pipeline = made.open(store)
        watch = Watch()
        found = pipeline.measurer(settings_of(pipeline, made).selection).measure(pipeline.images)
        watch.lap("missing")
        return {"known": found.reused, "unknown": len(pipeline.images) - found.reused, **watch.facts}


class _Timed:
    """Reads records, and tells what that took of the processor."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer
        self.features = measurer.features
        self.seconds = 0.0

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """See `Measurer.records`; all of a class at once."""
        begin = time.process_time()
        found = list(self._measurer.records(images))
        self.seconds += time.process_time() - begin
        return iter(found)


def settings_of(pipeline: Pipeline, made: Made) -> MosaicSettings:
    """Return how is decided."""
    return PlanOptions(ipc=made.ipc, rule=_RULE, keep_foreground=0.7).settings(pipeline.options)


def plan_of(pipeline: Pipeline, made: Made) -> tuple[Plan, float]:
    """Decide, and return the processor's seconds that reading took of it."""
    settings = settings_of(pipeline, made)
    timed = _Timed(pipeline.measurer(settings.selection))
    return decide(pipeline.dataset, pipeline.images, timed, settings), timed.seconds


def choose(made: Made) -> Row:
    """Decide on the tiles of all classes, and write the manifest."""
    out = made.folder / "out"
    out.mkdir(exist_ok=True)
    with Store(made.folder / "store") as store:
        pipeline = made.open(store)
        watch = Watch()
        plan, reading = plan_of(pipeline, made)
        watch.lap("decide")
        rest = watch.facts["decide_processor_seconds"] - reading
        watch.facts |= {"reading_processor_seconds": reading, "deciding_processor_seconds": rest}
        names = ((name, mosaic, f"{name}_{mosaic.index:05d}.png") for name, mosaic in plan.mosaics)
        images = [DistilledImage(f"images/{name}/{file}", name, each.tiles) for name, each, file in names]
        built = build(
            image_count=len(pipeline.images),
            settings={"size": 224, "factor": 2, "score_view": "resize"},
            prompts={},
            models={role: Model("made", "0" * 64) for role in ("foreground", "teacher")},
            selections={part.name: part.selection for part in plan.classes},
            images=images,
            skipped=plan.skipped,
            runtime="made up",
        )
        write(built, out)
        watch.lap("manifest")
    size = (out / MANIFEST).stat().st_size
    return {"tiles": 4 * len(images), "manifest_bytes": size, **watch.facts}


def record(made: Made) -> Row:
    """Decide, and write the record of the run."""
    with Store(made.folder / "store") as store:
        pipeline = made.open(store)
        plan, _ = plan_of(pipeline, made)
        watch = Watch()
        reader = pipeline.measurer(plan.settings.selection)
        write_run_record(record_run(RunLog(), plan, pipeline.images, reader, threads=2), made.folder)
        watch.lap("record")
    return {"record_bytes": (made.folder / RUN_RECORD).stat().st_size, **watch.facts}


def read(made: Made) -> Row:
    """Read the manifest."""
    return {"mosaics": len(read_manifest(made.folder / "out" / MANIFEST).images)}


def mosaics(made: Made) -> Row:
    """Write the mosaics of some classes, whose tiles are whole images."""
    classes, count = made.names[:8], made.ipc * 4
    sha256, box = read_file(made.data / made.sources(classes[0])[0]).sha256, Box(0, 0, WIDTH, HEIGHT)
    chosen = {
        name: arrange(
            [Tile(each, sha256, box, "full", 0.5, 0.5, 1.0) for each in made.sources(name)[:count]],
            made.ipc,
            2,
        )
        for name in classes
    }
    settings = PlanOptions(ipc=made.ipc).settings(MeasureOptions(teacher="made"))
    pairs = [(name, mosaic) for name, found in chosen.items() for mosaic in found]
    plan = cast(Plan, SimpleNamespace(settings=settings, mosaics=pairs))
    paths = {tile.source: made.data / tile.source for _, each in pairs for tile in each.tiles}
    watch = Watch()
    written = sum(1 for _ in write_mosaics(plan, paths, made.folder / "sample", threads=2))
    watch.lap("writing")
    return {"mosaics": written, **watch.facts}


def labels(made: Made) -> Row:
    """Label all images, their tiles, and the views of two epochs, by a teacher that knows without looking."""
    out = made.folder / "out"
    _link_mosaics(made, out)
    watch = Watch()
    distilled = open_distilled(out)
    watch.lap("opening")
    classes, count = distilled.manifest.classes, len(distilled)
    recipe = ViewRecipe(distilled.size, 2, default_batch(len(classes), made.ipc), seed=0)
    views = LabelledViews(recipe, "resize", FLOAT16)
    model = distilled.manifest.models["teacher"]
    digest = file_sha256(out / MANIFEST)
    subject = LabelSubject(digest, distilled.hashes(), classes, model, False, {}, "resize")
    whole, tiles = (_teacher(classes, np.repeat(distilled.labels, times)) for times in (1, 4))
    with open_writer(out, LabelIndex(subject, views, _EPOCHS), overwrite=True) as writer:
        images = distilled.read_all()
        watch.lap("reading")
        labeller = Labeller(distilled, images, writer, 2, lambda: None)
        labeller.label_images(whole, tiles)
        watch.lap("images_and_tiles")
        labeller.label_epochs(_teacher(classes, distilled.labels), views, range(_EPOCHS))
        watch.lap("epochs")
    sizes = {file.stem: file.stat().st_size for file in sorted((out / "labels").glob("*.safetensors"))}
    return {"mosaics": count, "epochs": _EPOCHS, "file_bytes": sizes, **watch.facts}


def _link_mosaics(made: Made, out: Path) -> None:
    """Make the files of all mosaics, which are one and the same, unless they are there."""
    if (out / "images").exists():
        return
    photograph, one = made.folder / "picture.jpg", out / "mosaic.png"
    photograph.write_bytes(picture())
    sha256, sides = (
        read_file(photograph).sha256,
        (Box(0, 0, HEIGHT, HEIGHT), Box(WIDTH - HEIGHT, 0, HEIGHT, HEIGHT)),
    )
    pixels = [read_tile(photograph, sha256, box, 112, "area") for box in (*sides, *sides)]
    one.write_bytes(encode(compose(pixels, 2), "png"))
    for image in read_manifest(out / MANIFEST).images:
        file = out / image.file
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(one, file)
    one.unlink()


def _teacher(classes: tuple[str, ...], answers: Any) -> Any:
    """A teacher that gives noise and, in turn, is right."""
    generator, place = np.random.default_rng(0), 0

    def logits(pictures: Any) -> Any:
        nonlocal place
        rows = generator.standard_normal((len(pictures), len(classes)), np.float32)
        right = answers[(place + np.arange(len(rows))) % len(answers)]
        rows[np.arange(len(rows)), right] = 10
        place += len(rows)
        return rows

    places = {name: index for index, name in enumerate(classes)}
    facts: Mapping[str, Any] = {
        "show": lambda picture: picture,
        "label": places.__getitem__,
        "logits": logits,
    }
    return SimpleNamespace(**facts, streams=1, batch=64, bundle=SimpleNamespace(name="made"))


def _reader(kind: str, **options: Any) -> Callable[[Made], Row]:
    """A step that opens a reader for PyTorch, and reads a sample of its items, in no order."""

    def step(made: Made) -> Row:
        watch = Watch()
        data = import_module("fgdd_fast.data")  # it needs PyTorch
        watch.lap("importing")
        opened = getattr(data, kind)(made.folder / "out", **options)
        watch.lap("opening")
        order = np.random.default_rng(0).permutation(len(opened))[:_SAMPLE].tolist()
        for place in order:
            opened[place]
        watch.lap("reading")
        return {"items": len(opened), "read": len(order), **watch.facts}

    return step


STEPS: dict[str, Callable[[Made], Row]] = {
    "files": Made.make_files,
    "store": Made.fill_store,
    "scan": look,
    "missing": missing,
    "decide": choose,
    "record": record,
    "manifest": read,
    "mosaics": mosaics,
    "labels": labels,
    "images": _reader("DistilledImages"),
    "tiles": _reader("DistilledTiles", soft_labels=True),
    "views": _reader("DistilledViews"),
}
