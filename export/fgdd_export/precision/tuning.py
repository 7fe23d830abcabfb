"""Find the fastest arithmetic whose decisions agree, on the user's own photographs: `fgdd-fast tune`.

Variants that this machine gains from are made in a temporary folder, calibrated on some photographs, and
judged on others, as are all other ways to run the network here. Those that agree are laid beside the network,
and the verdict is left in the cache, for `--device auto`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Literal, get_args

from fgdd_engines.backends import find_backend
from fgdd_engines.base import PRECISIONS, Device, Precision
from fgdd_engines.bundle.bundle import VARIANTS, Bundle, Variant, write_bundle
from fgdd_engines.progress import SILENT, Progress, Task
from fgdd_export.precision.conversion import Converted, convert_to_half, convert_to_int8
from fgdd_export.precision.quantisation import FORMS
from fgdd_fast.errors import BundleError, EngineError, SettingsError
from fgdd_fast.images.dataset import DataSet, SourceImage, scan
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import find_network
from fgdd_fast.models.network import Runtime, check_classes
from fgdd_fast.options import DEFAULT_FOREGROUND, NO_FOREGROUND
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.runtime.batches import images_at_once
from fgdd_fast.runtime.choose import choose_runtime, devices_here, find_candidates, verdict_key
from fgdd_fast.runtime.machine import read_machine
from fgdd_fast.runtime.parity import REFERENCE, Comparison
from fgdd_fast.runtime.sample_images import SampleImage, separate_samples
from fgdd_fast.runtime.tolerances import TOLERANCES, ParityReport, Tolerance, shortfalls_of
from fgdd_fast.runtime.trials import FULL_COMPARISON, Trial, remove_tunings, try_one, write_tuning
from fgdd_fast.runtime.variants import TEXT, find_variants

Lower = Literal["int8", "fp16", "bf16"]
LOWER: tuple[Lower, ...] = get_args(Lower)
# What is accepted; or what mirroring the photographs changes, where that is more.
ACCEPTED = {**TOLERANCES["lower precision"], "same_class": Tolerance(0.95, at_least=True)}
_SEARCHED = 24  # images on which nodes that have to stay in fp32 are looked for
_INT8_UNITS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
_TUNED = "tuned_on"  # in the source of a variant that this module laid beside a network

Samples = tuple[SampleImage, ...]


@dataclass(frozen=True)
class TuningRow:
    """What became of one way to run a network.

    Attributes:
        network: the name of the bundle's file without its suffix.
        device, precision: the way; no device where no variant could be made.
        calibrated_on: the images by which an int8 variant was calibrated; empty for everything else.
        figures: how its decisions compare with those of fp32 in ONNX Runtime on the processor.
        speed: how many times as fast as that it is, each with one thread or stream; 0 where it did not run.
        shortfalls: why it may not be taken: its decisions, or that it is far slower than another; else empty.
        kept: whether its decisions agree, and no variant of the same precision was laid there instead.
        used: whether `--device auto` takes it from now on.
    """

    network: str
    device: Device
    precision: Precision
    calibrated_on: str
    figures: Mapping[str, float]
    speed: float
    shortfalls: tuple[str, ...]
    kept: bool = False
    used: bool = False


@dataclass(frozen=True)
class Tuning:
    """What `tune` found.

    Attributes:
        rows: each way that was tried, by network.
        mirrored: by network, how fp32's decisions on mirrored photographs compare with its own.
        data: the name of the folder of photographs.
        images: how many were compared.
        processor: of this machine.
    """

    rows: tuple[TuningRow, ...]
    mirrored: Mapping[str, Mapping[str, float]]
    data: str
    images: int
    processor: str


def tune(
    data: str | Path | DataSet,
    *,
    teacher: str | Path | None = None,
    foreground: str | Path | None = DEFAULT_FOREGROUND,
    calibrate: str | Path | None = None,
    precisions: Collection[Lower] | None = None,
    images: int = 64,
    progress: Progress = SILENT,
) -> Tuning:
    """Make the variants that run faster here, keep those that decide as fp32 does, and let `auto` use them.

    A teacher's cropped-input graphs are tuned with it. What was tuned before goes; a variant that was made
    otherwise is replaced where a new one agrees, and else is not used by `auto`.

    Args:
        data: a folder with one folder of images for each class, or one that was scanned.
        teacher: a teacher's bundle, which knows the classes.
        foreground: the foreground model; None, or `none`, for none.
        calibrate: a folder that `distill` wrote: its images calibrate int8 as well, and so do as many of
            `data`. No source of its tiles is among the photographs that decisions are compared on.
        precisions: of `int8`, `fp16` and `bf16`; by default those that this machine gains from.
        images: photographs to calibrate on, and as many others to compare on, at least 1. A network of more
            than 100 MB is compared on fewer.
        progress: told how many ways were tried.

    Returns:
        A row for each way that was tried.

    Raises:
        SettingsError: no network is named, or there is no such precision.
        FgddError: the photographs or a network cannot be used, or nothing can be written.
    """
    wanted = _gainful() if precisions is None else tuple(precisions)
    if unknown := sorted({*wanted} - {*LOWER}):
        raise SettingsError(f"There is no lower precision {unknown[0]!r}", f"These are: {', '.join(LOWER)}.")
    dataset = data if isinstance(data, DataSet) else scan(Path(data))
    networks = _find_networks(teacher, foreground)
    for network in networks:
        if network.role == "teacher":
            check_classes(network, dataset.classes)
    compared, calibration = _draw(dataset, None if calibrate is None else Path(calibrate), images)
    rows, mirrored, name = list[TuningRow](), dict[str, Mapping[str, float]](), dataset.root.resolve().name
    for network in networks:
        with progress.task(f"Tuning {network.onnx.stem}") as task:
            tuner = _Tuner(network, name, compared, task)
            rows += tuner.run(wanted, calibration)
            mirrored[network.onnx.stem] = tuner.mirrored
    return Tuning(tuple(rows), mirrored, name, len(compared), read_machine().processor)


def reset_tuning(*, teacher: str | Path | None, foreground: str | Path | None) -> dict[str, tuple[int, int]]:
    """Remove what `tune` kept of networks, and return how many records and variants that were, by network.

    Raises:
        FgddError: a network cannot be found, or a variant of it cannot be removed.
    """
    found = _find_networks(teacher, foreground)
    return {each.onnx.stem: (remove_tunings(each), _remove_tuned(each, VARIANTS)) for each in found}


def _find_networks(teacher: str | Path | None, foreground: str | Path | None) -> list[Bundle]:
    """The networks that are named, a teacher's cropped-input graphs after it."""
    found: list[Bundle] = []
    if foreground is not None and str(foreground) != NO_FOREGROUND:
        found.append(find_network(str(foreground)))
        if found[0].role != "foreground":
            raise SettingsError(f"{found[0].name} is a {found[0].role}, not a foreground model")
    if teacher is not None:
        known = find_bundle(str(teacher), "teacher")
        found += [known, *known.cropped_graphs()]
    if not found:
        raise SettingsError("No network is named", "Name one with --teacher or --foreground.")
    return found


def _gainful() -> tuple[Lower, ...]:
    """The precisions that this machine may gain from: a processor needs instructions for int8."""
    on_gpu = not find_backend(devices_here()[0]).on_processor
    int8 = on_gpu or bool(_INT8_UNITS & {*read_machine().vector_units})
    return LOWER if int8 else LOWER[1:]


def _draw(data: DataSet, distilled: Path | None, count: int) -> tuple[Samples, dict[str, Samples]]:
    """Photographs to compare on; and images to calibrate on, by where they come from."""
    name = data.root.resolve().name
    if distilled is None:
        compared, others = separate_samples(data, count)
        return compared, {f"{len(others)} of {name}": others}
    opened = open_distilled(distilled)
    used = {tile.source for image in opened.manifest.images for tile in image.tiles}
    compared, others = separate_samples(data, count, without=used)
    count, own = min(len(others), len(opened)), list[SampleImage]()
    for place in (each * len(opened) // count for each in range(count)):  # all classes have their share
        listed = opened.manifest.images[place]
        image = SourceImage(listed.file, listed.class_name, distilled)
        own.append(SampleImage(opened.read(place), image))
    given = distilled.resolve().name
    return compared, {f"{count} of {given}": tuple(own), f"{count} of {name}": others[:count]}


@dataclass(frozen=True)
class _Attempt:
    """A network's variants in a precision, in a temporary folder, and how they did on each device."""

    precision: Lower
    converted: tuple[Converted, ...]
    rows: tuple[TuningRow, ...]

    @property
    def rank(self) -> tuple[int, float]:
        """Lowest for what agrees on most devices and then best; from 0 on where it agrees on none."""
        agreeing = [_parity(row, 0).excess for row in self.rows if not row.shortfalls]
        return -len(agreeing), min(agreeing, default=0.0)


class _Tuner:
    """Tunes one network."""

    def __init__(self, network: Bundle, data: str, compared: Samples, task: Task) -> None:
        size = max(network.onnx.stat().st_size, FULL_COMPARISON)
        self._images = max(len(compared) * FULL_COMPARISON // size, 1)
        self._network, self._data, self._task = network, data, task
        self._comparison = Comparison(network, compared[: self._images])
        self._rate, self._best = self._comparison.of_reference().images_per_second, 0.0
        self.mirrored = self._comparison.mirrored()
        self._accepted = {
            name: limit if name == "with_foreground" else limit.widened(self.mirrored.get(name, limit.limit))
            for name, limit in ACCEPTED.items()
        }

    def run(self, wanted: Sequence[Lower], calibration: Mapping[str, Samples]) -> Iterator[TuningRow]:
        """Make variants, judge all ways to run the network, keep what agrees, and leave the record."""
        with tempfile.TemporaryDirectory() as folder:
            attempts = [*self._attempts(wanted, calibration, Path(folder))]
            kept = self._keep(wanted, attempts)
        plain = [way for way in find_candidates(self._network) if not way.variants]
        plain.sort(key=lambda way: -PRECISIONS.index(way.precision))
        standing = [*self._judge([way for way in plain if way.precision in ("fp32", "tf32", *wanted)])]
        standing = [*reversed(standing), *(row for attempt in kept for row in attempt.rows)]
        trials = (
            Trial(row.device, row.precision, row.speed * self._rate, row.shortfalls, row.figures)
            for row in standing
            if row.figures  # what did not run, or not to the end, is left to whoever asks for it
        )
        key = verdict_key(self._network, find_candidates(self._network))
        write_tuning(self._network, key, f"{self._images} images of {self._data}", trials)
        taken = choose_runtime(self._network, "auto", "auto", 1).runtime
        for row in standing:
            used = (row.device, row.precision) == (taken.device, taken.precision)
            yield replace(row, kept=not row.shortfalls, used=used)
        yield from (row for attempt in attempts if attempt not in kept for row in attempt.rows)

    def _judge(self, ways: Sequence[Runtime], calibrated_on: str = "") -> Iterator[TuningRow]:
        """Compare ways with the reference, and race them against it; what is far slower not to the end."""
        for way in ways:
            batch = images_at_once(self._network, way.device)
            trial = try_one(self._comparison, way, batch, 0.0 if way.variants else self._best)
            self._task.advance()
            if trial is None:  # this processor does not compute in it
                continue
            speed = trial.images_per_second / self._rate
            shortfalls = trial.shortfalls  # where it could not run, or not to the end
            if trial.figures:
                shortfalls = shortfalls_of(trial.figures, self._accepted)
                speed = 1.0 if way == REFERENCE else self._comparison.race(way, batch=batch)
            if not shortfalls:
                self._best = max(self._best, trial.images_per_second)
            name = self._network.onnx.stem
            yield TuningRow(name, way.device, way.precision, calibrated_on, trial.figures, speed, shortfalls)

    def _attempts(
        self, wanted: Sequence[Lower], calibration: Mapping[str, Samples], folder: Path
    ) -> Iterator[_Attempt]:
        """Make each variant that a device here takes without building anything, and judge it there."""
        for precision in wanted:
            backends = {device: find_backend(device) for device in devices_here()}
            found = {name: one.variants.get(precision) for name, one in backends.items() if one.built is None}
            devices = {device: variant for device, variant in found.items() if variant is not None}
            origins = calibration if precision == "int8" else {"": [*calibration.values()][-1]}
            for origin, images in origins.items() if devices else ():
                place = Path(tempfile.mkdtemp(dir=folder))
                attempt = self._attempt(precision, origin, images, devices, place, force=True)
                if attempt.converted and not attempt.rank[0]:  # some nodes may have to stay in fp32
                    attempt = self._attempt(precision, origin, images, devices, place, force=False)
                yield attempt

    def _attempt(
        self,
        precision: Lower,
        origin: str,
        images: Samples,
        devices: Mapping[Device, Variant],
        folder: Path,
        *,
        force: bool,
    ) -> _Attempt:
        staged, searched = _linked(self._network, folder), images[: 2 if force else _SEARCHED]
        try:
            if precision == "int8":
                forms = [form for form in FORMS if form in devices.values()]
                converted = convert_to_int8(staged, searched, images, forms=forms, force=force)
            else:
                converted = convert_to_half(staged, precision, searched, force=force)
        except (BundleError, EngineError, SettingsError) as error:
            row = TuningRow(self._network.onnx.stem, "", precision, origin, {}, 0.0, (error.problem,))
            return _Attempt(precision, (), (row,))
        ways = [
            Runtime(device, precision, 1, find_variants(staged, variant))
            for device, variant in devices.items()
        ]
        return _Attempt(precision, converted, tuple(self._judge(ways, origin)))

    def _keep(self, wanted: Sequence[Lower], attempts: Sequence[_Attempt]) -> list[_Attempt]:
        """Lay the best attempt in each precision beside the network; what was tuned before goes."""
        kept = list[_Attempt]()
        for precision in wanted:
            _remove_tuned(self._network, [each for each in VARIANTS if each.partition("-")[0] == precision])
            rivals = [one for one in attempts if one.precision == precision]
            best = min(rivals, key=lambda one: one.rank, default=None)
            if best is not None and best.rank[0]:
                kept.append(best)
                for each in best.converted:
                    self._publish(each.bundle, next(row for row in best.rows if not row.shortfalls))
        return kept

    def _publish(self, variant: Bundle, row: TuningRow) -> None:
        source, parity = {**variant.source, _TUNED: self._data}, _parity(row, self._images).as_json()
        onnx = self._network.onnx.with_name(variant.onnx.name)
        write_bundle(replace(variant, onnx=onnx, source=source, parity=parity), variant.graph())


def _parity(row: TuningRow, images: int) -> ParityReport:
    return ParityReport(row.figures, "lower precision", images)


def _linked(network: Bundle, folder: Path) -> Bundle:
    """The same network in a folder of links to its files, where variants can be written."""
    for path in network.onnx.parent.glob(f"{escape(network.onnx.stem)}.*"):
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return replace(network, onnx=folder / network.onnx.name)


def _remove_tuned(network: Bundle, variants: Sequence[Variant]) -> int:
    """Remove those variants of a network's graphs that were tuned, and return how many there were."""
    graphs = [network, *(network.part(name) for name in network.parts if name != TEXT)]
    found = [graph.find_variant(variant) for graph in graphs for variant in variants]
    tuned = [each for each in found if each is not None and _TUNED in each.source]
    for each in tuned:
        try:
            each.sidecar.unlink()
            each.onnx.unlink()
        except OSError as error:
            raise BundleError(f"The variant {each.onnx} cannot be removed: {error.strerror}") from error
    return len(tuned)
