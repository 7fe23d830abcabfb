"""A distilled data set of the candidates of a stream as they are: decided and written as a folder's is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.output.folder import output_folder, write_image
from fgdd_fast.output.hashes import write_hashes
from fgdd_fast.output.manifest import DistilledImage, Manifest, Model, build, write
from fgdd_fast.output.mosaic import arrange, compose, encode
from fgdd_fast.output.run_record import RunLog, record_run, write_run_record
from fgdd_fast.planning import ClassPlan, MosaicSettings, Plan
from fgdd_fast.selection.images_per_class import parse_images_per_class
from fgdd_fast.selection.select import SelectionSettings, choose, find_candidates
from fgdd_fast.selection.thresholds import Rule, parse_rule, threshold_of
from fgdd_fast.streaming.bounds import RANKINGS
from fgdd_fast.streaming.candidates import Candidates

HOW, COUNTS, SKIPPED = "how", "counts", "skipped"  # names of facts


@dataclass(frozen=True)
class Written:
    """What a checkpoint wrote.

    Attributes:
        plan: what was decided for each class, of whose images a sample stands for all.
        manifest: what is in OUT.
        short: classes that have too few images yet, with the reason.
    """

    plan: Plan
    manifest: Manifest
    short: Mapping[str, str]


def decide(candidates: Candidates, settings: MosaicSettings) -> tuple[Plan, dict[str, str]]:
    """Decide which tiles represent each class that has enough images; of the others return the reason.

    Raises:
        DataError: no class has enough images yet.
    """
    plans: list[ClassPlan] = []
    short: dict[str, str] = {}
    for name in candidates.classes:
        try:
            plans.append(decide_class(candidates, name, settings))
        except DataError as error:
            short[name] = error.problem
    if not plans:
        counts = candidates.fact(COUNTS) or {}
        came = [f"{count} {what}" for what, count in counts.items() if count]
        raise DataError(
            "; ".join(["No class has enough images yet", *list(short.values())[:3], *came]),
            "Go on with the same command, lower --ipc or --factor, or label the images otherwise: --labels",
        )
    skipped = tuple(Skipped(*each) for each in candidates.fact(SKIPPED) or ())
    return Plan(settings, tuple(plans), skipped), short


def write_checkpoint(
    candidates: Candidates, out: Path, settings: MosaicSettings, log: RunLog, *, threads: int
) -> Written:
    """Decide, and replace OUT.

    Args:
        candidates: of the stream; `HOW` and `COUNTS` are among their facts.
        out: the folder, which appears whole or stays as it was.
        settings: how tiles are chosen.
        log: what is noted for the record of the run.
        threads: of the run, for its record.

    Raises:
        DataError: no class has enough images yet.
        OutputError: OUT cannot be written.
    """
    plan, short = decide(candidates, settings)
    with output_folder(out, overwrite=True) as partial:
        images = list(_write_mosaics(candidates, plan, partial))
        manifest = _manifest(candidates, plan, images)
        write(manifest, partial)
        write_hashes(partial)
        warnings = [f"The class '{name}' is not among them yet: {reason}" for name, reason in short.items()]
        record = record_run(log, plan, (), None, threads=threads)
        record = replace(record, warnings=(*record.warnings, *warnings))
        write_run_record(record, partial)
    return Written(plan, manifest, short)


def decide_class(candidates: Candidates, name: str, settings: MosaicSettings) -> ClassPlan:
    """Decide as for a folder, with the threshold of the sample."""
    sample = candidates.sample(name)
    rule = settings.rule
    if rule.needs_foreground:
        rule = Rule("fixed", threshold_of(rule, [each.occupancy for each in sample]))
    limits = replace(settings.selection, near_duplicates=None)  # a stream has dropped them
    records = candidates.records(name)
    count = settings.tiles_of(name)
    found = find_candidates(records, rule, count, settings.seed, limits)
    selection = choose(found, count, RANKINGS[limits.ranking])
    nothing = sum(each.occupancy == 0 for each in sample)
    if not candidates.is_complete(name):
        nothing = round(nothing / len(sample) * candidates.seen(name))
    selection = replace(selection, nothing_found=nothing)
    return ClassPlan(
        name,
        tuple(each.draw.hex() for each in sample),
        tuple(each.occupancy for each in sample),
        tuple(each.loss for each in sample),
        selection,
        arrange(selection.tiles, settings.ipc_of(name), settings.factor),
    )


def _write_mosaics(candidates: Candidates, plan: Plan, folder: Path) -> Iterator[DistilledImage]:
    settings = plan.settings
    for name, mosaic in plan.mosaics:
        tiles = [candidates.tile(name, tile.sha256, tile.box) for tile in mosaic.tiles]
        content = encode(compose(tiles, settings.factor), settings.format)
        file = write_image(folder, name, mosaic.index, content, settings.format)
        yield DistilledImage(file, name, mosaic.tiles)


def _manifest(candidates: Candidates, plan: Plan, images: Sequence[DistilledImage]) -> Manifest:
    how, names = candidates.fact(HOW), [part.name for part in plan.classes]
    prompts = ByClassName(how["prompts"])
    return build(
        image_count=sum(candidates.seen(name) for name in names),
        settings=how["settings"],
        prompts={name: tuple(prompts[name]) for name in names} if prompts else {},
        models={role: Model(*each) for role, each in how["models"].items()},
        selections={part.name: part.selection for part in plan.classes},
        images=images,
        skipped=plan.skipped,
        runtime=how["runtime"],
    )


def settings_from(how: Mapping[str, Any]) -> MosaicSettings:
    """Return how tiles were chosen, from what a file of candidates says of it."""
    kept = how["settings"]
    selection = SelectionSettings(
        kept["ranking"], kept.get("keep_foreground", 0.0), kept.get("least_area", 0.0)
    )
    ipc, by_class = parse_images_per_class(kept["ipc"])
    plain = {name: kept[name] for name in ("factor", "size", "seed", "resize", "format")}
    rule = parse_rule(kept["rule"])
    return MosaicSettings(ipc=ipc, ipc_by_class=by_class, rule=rule, selection=selection, **plain)
