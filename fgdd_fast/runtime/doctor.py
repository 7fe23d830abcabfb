"""What this machine can run, what is installed and kept on it, and the steps that add what is missing."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from fgdd_engines.backends import DEVICES, find_backend
from fgdd_engines.paths import cache_folder
from fgdd_engines.plugins import STUDENTS, find_plugins
from fgdd_engines.probing.probes import Probe, probe_all
from fgdd_fast.models.factory import FamilyState, list_families
from fgdd_fast.runtime.machine import Jetson, Machine, Nvidia, read_jetson, read_machine, read_nvidia

_PACKAGE = "fgdd-fast"
_CACHE_FOLDERS = ("models", "store", "sources", "engines", "agreement")
# The extras that are for a task; those that are for a device are advised by its probe.
_TASKS = {
    "models": "prepare the catalogue's models and fit teachers",
    "prompts": "ask Grounded SAM 2 for classes by their names",
    "export": "turn PyTorch networks into bundles",
    "evaluate": "train students",
    "pack": "repack distilled data sets for Hugging Face's datasets",
    "bench": "measure against PyTorch",
}


@dataclass(frozen=True)
class Extra:
    """An optional extra of this package.

    Attributes:
        name: its name.
        missing: its requirements that are not met, as `package>=version`; none where it is installed.
    """

    name: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class ModelState:
    """A model of the catalogue.

    Attributes:
        name, role: as in the catalogue.
        state: `absent`, `ok`, `outdated` or `damaged`.
        reason: why, where it is one of the last two.
    """

    name: str
    role: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Cache:
    """The folder of what can be fetched, made or measured again.

    Attributes:
        folder: where it is; it may not exist yet.
        sizes: bytes in each of its folders.
    """

    folder: str
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Step:
    """Something that would add what is missing.

    Attributes:
        purpose: what one could do then.
        command: the command, or what to do in words.
    """

    purpose: str
    command: str


@dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        versions: version of each package that matters; None for one that is not installed.
        machine, nvidia, jetson: the machine; `jetson` is None on another.
        devices: which devices run, in the order of `DEVICES`, then those of plug-ins.
        extras: the extras of this package.
        models: the models of the catalogue.
        cache: the cache folder.
        foregrounds: the families of foreground models.
        students: who offers each student architecture; a plug-in's is not imported for that.
    """

    versions: Mapping[str, str | None]
    machine: Machine
    nvidia: Nvidia
    jetson: Jetson | None
    devices: tuple[Probe, ...]
    extras: tuple[Extra, ...]
    models: tuple[ModelState, ...]
    cache: Cache
    foregrounds: tuple[FamilyState, ...] = ()
    students: Mapping[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What would add what is missing, each step once; devices that nothing would make run have none."""
        devices: dict[str, list[str]] = {}
        for probe in self.devices:
            if probe.advice:
                devices.setdefault(probe.advice, []).append(probe.device)
        steps = [Step(f"run models on {' and '.join(names)}", advice) for advice, names in devices.items()]
        steps += [
            Step(_TASKS[extra.name], f"pip install '{_PACKAGE}[{extra.name}]'")
            for extra in self.extras
            if extra.missing and extra.name in _TASKS
        ]
        if wanting := [model.name for model in self.models if model.state != "ok"]:
            steps.append(Step("have the catalogue's models", f"fgdd-fast models pull {' '.join(wanting)}"))
        return tuple(steps)

    def to_json(self) -> dict[str, Any]:
        """Return the report and its steps as what `json` can write; the keys are the attributes."""
        return {**asdict(self), "steps": [asdict(step) for step in self.steps]}


def examine(models: Sequence[ModelState], students: Sequence[str] = ()) -> Report:
    """Look at this machine: run something on each device, and read everything else.

    Args:
        models: the state of the catalogue's models.
        students: names of the student architectures that are built in.
    """
    return Report(
        versions={package: _version(package) for package in _distributions()},
        machine=read_machine(),
        nvidia=read_nvidia(),
        jetson=read_jetson(),
        devices=probe_all(),
        extras=_own_extras(),
        models=tuple(models),
        cache=read_cache(cache_folder()),
        foregrounds=list_families(),
        students=dict.fromkeys(students, _PACKAGE)
        | {name: str(plugin) for name, plugin in find_plugins(STUDENTS).items()},
    )


def _distributions() -> tuple[str, ...]:
    """The packages whose versions matter, by the names that pip knows them by."""
    backends = (name for device in DEVICES for name in find_backend(device).distributions)
    return tuple(dict.fromkeys((_PACKAGE, "numpy", "opencv-python", *backends, "torch")))


def _own_extras() -> tuple[Extra, ...]:
    """The extras of this package; none where it runs from a checkout that pip does not know."""
    try:
        return read_extras(metadata(_PACKAGE).get_all("Provides-Extra") or (), requires(_PACKAGE) or ())
    except PackageNotFoundError:
        return ()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_extras(names: Iterable[str], requirements: Iterable[str]) -> tuple[Extra, ...]:
    """Find which requirements of each extra are not met.

    Args:
        names: the extras.
        requirements: as a package's metadata lists them, such as `onnx>=1.16; extra == "models"`. Of the
            versions only the lowest is compared, and of other conditions only the machine's architecture.
    """
    missing: dict[str, list[str]] = {name: [] for name in names}
    for requirement in requirements:
        wanted, _, marker = (part.strip() for part in requirement.partition(";"))
        machine = re.search(r"platform_machine\s*==\s*[\"']([^\"']+)[\"']", marker)
        if machine and machine[1] != platform.machine():
            continue
        for name in re.findall(r"\bextra\s*==\s*[\"']([^\"']+)[\"']", marker):
            if wanted not in missing[name] and not _is_met(wanted):
                missing[name].append(wanted)
    return tuple(Extra(name, tuple(lacking)) for name, lacking in missing.items())


def _is_met(requirement: str) -> bool:
    """Whether `package>=version` is installed, and not older."""
    package = re.match(r"\s*([\w.-]+)", requirement)
    installed = _version(package[1]) if package else None
    lowest = re.search(r">=\s*([\d.]+)", requirement)
    return installed is not None and (lowest is None or _release(installed) >= _release(lowest[1]))


def _release(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at their end."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    release = [int(number) for number in numbers[0].split(".")] if numbers else []
    while release and release[-1] == 0:
        release.pop()
    return tuple(release)


def read_cache(folder: Path) -> Cache:
    """Measure the folders of the cache; the well-known ones are listed even where they do not exist."""
    try:
        found = {entry.name for entry in folder.iterdir() if entry.is_dir()}
    except OSError:
        found = set()
    names = [*_CACHE_FOLDERS, *sorted(found - set(_CACHE_FOLDERS))]
    return Cache(str(folder), {name: _size(folder / name) for name in names})


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; what cannot be read, or is removed meanwhile, does not count."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += (Path(parent) / file).lstat().st_size
            except OSError:
                continue
    return total
