"""Try every way to run a bundle: does it decide as the reference does, and how fast?

On drawn pictures that is done unasked. What `fgdd-fast tune` finds on photographs is left in the cache as a
record, which holds for one graph with its variants, on one machine, with the runtimes as they are: all of
that is its key, so a record of anything else is never found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgdd_engines.base import PRECISIONS, Device, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.files import write_file
from fgdd_engines.bundle.schema import SchemaError, array, number, one_of, read_json, record, string, table
from fgdd_engines.paths import cache_folder
from fgdd_fast.errors import EngineError, SettingsError
from fgdd_fast.models.factory import asked_by_class
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime.batches import Batch, images_at_once
from fgdd_fast.runtime.parity import REFERENCE, Comparison, TooSlowError
from fgdd_fast.runtime.sample_images import SampleImage, drawn_sample_images
from fgdd_fast.runtime.tolerances import TOLERANCES

PICTURES = 12
FEWEST_PICTURES = 2
FAR_SLOWER = 0.5  # of the speed of one that agrees: no noise makes up for it
# A network larger than this is shown fewer pictures in proportion, so that comparing takes a minute or two.
FULL_COMPARISON = 100_000_000  # bytes of the ONNX file
TUNING = "tuning"  # the folder of records in the cache


def _figure(value: object, where: str) -> None:
    if not isinstance(value, float | int):  # any is, infinite ones and nan as well
        raise SchemaError(f"{where} is no number")


_FIELDS = record(
    {
        **{"device": string(), "precision": one_of(*PRECISIONS), "images_per_second": number(0)},
        **{"shortfalls": array(string()), "figures": table(_figure)},
    }
)
_TUNING = record({"images": string(), "trials": array(_FIELDS)})
RULES = PICTURES, FEWEST_PICTURES, FULL_COMPARISON, TOLERANCES  # what verdicts follow from


@dataclass(frozen=True)
class Trial:
    """What became of one way to run a bundle.

    Attributes:
        device, precision: the way.
        images_per_second: by one thread or stream; 0 where it could not run.
        shortfalls: the figures by which its decisions differ too much, or why it could not run; empty where
            it may be taken.
        figures: how its decisions compare with the reference's.
    """

    device: Device
    precision: Precision
    images_per_second: float
    shortfalls: tuple[str, ...]
    figures: Mapping[str, float]

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.device} {self.precision}"


def comparison_images(bundle: Bundle) -> tuple[SampleImage, ...]:
    """Drawn pictures: scenes of named things for a model that is asked for a class by its name."""
    size = bundle.onnx.stat().st_size
    count = max(min(PICTURES, PICTURES * FULL_COMPARISON // size), FEWEST_PICTURES)
    return drawn_sample_images(count, named=asked_by_class(bundle))


def try_all(
    bundle: Bundle, candidates: Sequence[Runtime], images: Sequence[SampleImage], batch: Batch = "auto"
) -> list[Trial]:
    """Compare every way to run a bundle with the reference, on the same images, at the batch it will take.

    A processor that does not compute in some precision is no way to run it. What is far slower than another
    that agrees is not compared to the end.
    """
    comparison = Comparison(bundle, images, REFERENCE)
    trials: dict[int, Trial] = {}
    # The lowest precision first: as a rule it is the fastest, and the others need not be waited for.
    for place, way in sorted(enumerate(candidates), key=lambda item: -PRECISIONS.index(item[1].precision)):
        best = max((each.images_per_second for each in trials.values() if not each.shortfalls), default=0.0)
        trial = try_one(comparison, way, images_at_once(bundle, way.device, batch), best)
        if trial is not None:
            trials[place] = trial
    return [trials[place] for place in sorted(trials)]


def try_one(comparison: Comparison, candidate: Runtime, batch: int, best: float = 0.0) -> Trial | None:
    """Compare one way with the reference; None where the processor does not compute in this precision.

    Args:
        comparison: with the reference.
        candidate: the way.
        batch: images an inference.
        best: images a second of another way; one that is far slower is not compared to the end.
    """
    way = candidate.device, candidate.precision
    try:
        if candidate == REFERENCE and batch == 1:
            found = comparison.of_reference()
        else:
            found = comparison.compare(candidate, batch=batch, slowest=FAR_SLOWER * best)
    except SettingsError:
        return None
    except TooSlowError as slow:
        share = slow.images_per_second / best
        return Trial(*way, slow.images_per_second, (f"about {share:.2f} of the speed of others",), {})
    except EngineError as error:
        return Trial(*way, 0.0, (f"cannot run it: {error.problem}",), {})
    return Trial(*way, found.images_per_second, found.parity.shortfalls, found.parity.figures)


def read_trials(content: bytes) -> list[Trial]:
    """Return trials that `asdict` made JSON of; ValueError where they are none."""
    return _trials(read_json(content, array(_FIELDS)))


def _trials(rows: Iterable[Mapping[str, Any]]) -> list[Trial]:
    return [Trial(**{**row, "shortfalls": tuple(row["shortfalls"])}) for row in rows]


def write_tuning(bundle: Bundle, key: str, images: str, trials: Iterable[Trial]) -> None:
    """Keep in the cache what became of each way to run a bundle on some `images`, in words such as "8 of x".

    Raises:
        EngineError: the cache cannot be written.
    """
    record, path = {"images": images, "trials": [asdict(each) for each in trials]}, _path(bundle, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(record, indent=2).encode())
    except OSError as error:
        raise EngineError(f"The record {path} cannot be written: {error.strerror}") from error


def read_tuning(bundle: Bundle, key: Callable[[], str]) -> tuple[str, list[Trial]]:
    """Return what `write_tuning` kept; nothing where there is no record of this key.

    The key is asked for only if the bundle has any record.
    """
    if _records(bundle):
        try:
            found = read_json(_path(bundle, key()).read_bytes(), _TUNING)
            return found["images"], _trials(found["trials"])
        except (OSError, ValueError, TypeError):  # of other versions, another machine; or damaged
            pass
    return "", []


def remove_tunings(bundle: Bundle) -> int:
    """Remove all records of a bundle, and return how many there were."""
    records = _records(bundle)
    for path in records:
        path.unlink(missing_ok=True)
    return len(records)


def _path(bundle: Bundle, key: str) -> Path:
    return cache_folder() / TUNING / f"{bundle.onnx.stem[:40]}.{bundle.sha256[:12]}.{key[:16]}.json"


def _records(bundle: Bundle) -> list[Path]:
    return [*(cache_folder() / TUNING).glob(f"*.{bundle.sha256[:12]}.*.json")]
