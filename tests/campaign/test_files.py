"""Mutated files of every other kind that is read, each given to the commands that read it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
import tiny_pipeline as tiny
from campaign_scene import Scene
from campaigning import SEED, Tally, Try, number, run, supervise
from click.testing import CliRunner
from mutations import mutate_file
from tiny_grounded import write_grounded_bundle

from fgdd_fast.cli import main
from fgdd_fast.models.catalogue.catalogue import parse_catalogue

_RUN = "--device cpu --threads 2 --factor 2 --size 16 --crops 3"
_TEACHER = "--teacher {inputs}/tiny-teacher.onnx"
_MODELS = f"{_TEACHER} --foreground {{inputs}}/tiny-foreground.onnx {_RUN}"
_WARNING = re.compile(r"\.py:\d+: \w*Warning|Traceback")


class Kind(NamedTuple):
    """Files that may be damaged: by patterns; commands that read them; and what makes sound ones."""

    files: tuple[str, ...]
    commands: tuple[str, ...]
    make: Callable[[Scene, Path], object]


def from_commands(*lines: str) -> Callable[[Scene, Path], None]:
    def make(scene: Scene, work: Path) -> None:
        for line in lines:
            ended = run(line.format(inputs=scene.inputs, work=work).split(), scene.log)
            assert ended.code == 0, ended.said

    return make


def bundles(scene: Scene, work: Path) -> None:
    for file in scene.inputs.glob("tiny-*.*"):
        shutil.copy(file, work)


def grounded(scene: Scene, work: Path) -> None:
    write_grounded_bundle(work)
    (work / "prompts.json").write_text(
        json.dumps({"red": ["red", "a red"], "green": "green", "blue": "blue"})
    )


def lists(scene: Scene, work: Path) -> None:
    shutil.copytree(scene.inputs / "data", work / "data")
    rows = [(str(file.relative_to(work)), file.parent.name) for file in (work / "data").rglob("*.png")]
    (work / "a.csv").write_text(
        "\n".join(["path,label,split", *(f'"{path}",{name},train' for path, name in rows)])
    )
    (work / "b.txt").write_text("\n".join(f"{path} {name}" for path, name in rows))


def annotations(scene: Scene, work: Path) -> None:
    files = [file.relative_to(scene.inputs / "data") for file in (scene.inputs / "data").rglob("*.png")]
    images, objects = [], []
    for place, file in enumerate(files):
        height, width = tiny.coloured(scene.inputs / "data" / file).shape
        images.append({"id": place, "file_name": str(file), "width": width, "height": height})
        runs = {"size": [height, width], "counts": [5, height * width - 5]}
        shown: dict[str, object] = {"segmentation": [[1, 1, 20, 1, 20, 30, 1, 30]], "bbox": [1, 1, 19, 29]}
        objects.append(
            {
                "image_id": place,
                "category_id": place % 3,
                **shown,
                **({"segmentation": runs} if place % 4 else {}),
            }
        )
        label = work / "labels" / file.with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{place % 3} 0.5 0.5 0.4 0.3\n1 0.1 0.1 0.9 0.1 0.5 0.8\n")
    names = [{"id": place, "name": name} for place, name in enumerate(tiny.CLASSES)]
    (work / "coco.json").write_text(
        json.dumps({"images": images, "annotations": objects, "categories": names})
    )
    (work / "labels" / "data.yaml").write_text("names:\n  0: blue\n  1: green\n  2: red\n")
    (work / "data").symlink_to(scene.inputs / "data")
    tiny.write_masks(work)


def catalogues(scene: Scene, work: Path) -> None:
    own = json.loads(Path(parse_catalogue.__code__.co_filename).with_name("catalogue.json").read_text())
    for model in own["models"]:
        model["name"] = f"my-{model['name']}"
    (work / "catalogue.json").write_text(json.dumps(own))


def checkpoints(scene: Scene, work: Path) -> None:
    shutil.copytree(scene.inputs / "checkpoint", work / "checkpoint")
    (work / "names.txt").write_text("\n".join("abcde"))
    (work / "names.json").write_text(json.dumps(["x", "y", "z"]))


SETTINGS = '[measure]\ncrops = 3\nseed = 7\npool = 4\nresize = "area"\n\n[distill]\nipc = 1\nrule = "mean"\n'
_DISTIL = f"distill {{inputs}}/data {{work}}/out {_MODELS} --ipc 1 --store {{work}}/store"
_STREAM = f"stream {{inputs}}/data {{work}}/one --once {_MODELS} --ipc 1"
KINDS = {
    "bundles": Kind(
        ("*.json", "*.onnx"),
        (
            f"measure {{inputs}}/data {_MODELS}".replace("{inputs}/tiny", "{work}/tiny"),
            "teacher check {work}/tiny-teacher.onnx {inputs}/data --device cpu",
            "teacher fit {inputs}/data -o {work}/new.onnx --backbone {work}/tiny-backbone.onnx --device cpu",
        ),
        bundles,
    ),
    "Grounded SAM 2, prompts": Kind(
        ("*.json",),
        (
            f"measure {{inputs}}/data {_TEACHER} {_RUN} --foreground {{work}}/tiny-grounded.onnx "
            "--prompts {work}/prompts.json",
        ),
        grounded,
    ),
    "distilled sets, labels": Kind(
        ("out/manifest.json", "out/run.json", "out/labels/*", "out/images/*/*"),
        (
            "verify {work}/out {inputs}/data",
            "report {work}/out {inputs}/data -o {work}/page.html",
            "report {work}/out {inputs}/labelled -o {work}/page.html",
            "pack {work}/out {work}/new --to webdataset",
            "pack {work}/out {work}/new --to huggingface",
            "sheet {work}/out -o {work}/sheet.png",
            f"label {{work}}/out {_TEACHER} --epochs 4 --student-batch 2 --device cpu",
            "distill {inputs}/data {work}/new --from-manifest {work}/out/manifest.json",
            f"forget {{work}}/out red/03.png --data {{inputs}}/data {_TEACHER} --device cpu "
            "--foreground {inputs}/tiny-foreground.onnx",
        ),
        lambda scene, work: shutil.copytree(scene.inputs / "labelled", work / "out"),
    ),
    "stores": Kind(
        ("store/measurements.sqlite3",),
        (
            f"measure {{inputs}}/data {_MODELS} --store {{work}}/store",
            f"{_DISTIL} --overwrite --near-duplicates 4 --keep-foreground 0.2",
            f"{_DISTIL} --overwrite --ranking k-centre",
        ),
        from_commands(f"{_DISTIL} --near-duplicates 4 --keep-foreground 0.2"),
    ),
    "candidates": Kind(
        ("one.candidates",),
        (_STREAM, "merge {work}/one {work}/two -o {work}/merged"),
        from_commands(_STREAM, _STREAM.replace("/one", "/two")),
    ),
    "lists": Kind(
        ("a.csv", "b.txt"),
        tuple(
            f"{line} {{work}}/{name}"
            for line in (f"measure {_MODELS}", "check --quick")
            for name in ("a.csv", "b.txt")
        ),
        lists,
    ),
    "annotations": Kind(
        ("coco.json", "labels/*/*.txt", "labels/data.yaml", "masks/*/*.png"),
        tuple(
            f"measure {{inputs}}/data {_TEACHER} {_RUN} --foreground {name}"
            for name in ("coco:{work}/coco.json", "yolo:{work}/labels", "masks:{work}/masks")
        ),
        annotations,
    ),
    "catalogues": Kind(
        ("catalogue.json",),
        ("models list", "models list --licences", "models verify"),
        catalogues,
    ),
    "settings": Kind(
        ("settings.toml",),
        (
            f"measure {{inputs}}/data {_MODELS} --config {{work}}/settings.toml --dry-run",
            f"{_DISTIL} --config {{work}}/settings.toml --dry-run",
        ),
        lambda scene, work: (work / "settings.toml").write_text(SETTINGS),
    ),
    "checkpoints, names": Kind(
        ("checkpoint/*", "names.txt", "names.json"),
        (
            "export teacher {work}/checkpoint -o {work}/new.onnx --check-images 1 --classes {work}/names.txt",
            "export teacher {work}/checkpoint -o {work}/new.onnx --check-images 1 --force",
            "teacher rename {inputs}/tiny-teacher.onnx --names {work}/names.json -o {work}/new.onnx",
        ),
        checkpoints,
    ),
    "caches": Kind(
        ("cache/**/*.json", "cache/**/*.sqlite3"),
        (
            f"measure {{inputs}}/data {_MODELS}".replace("device cpu", "device auto"),
            "cache list",
            "engine list",
            "tune --reset --teacher {inputs}/tiny-teacher.onnx --foreground none",
        ),
        from_commands(f"measure {{inputs}}/data {_MODELS}".replace("device cpu", "device auto")),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_files(
    name: str, scene: Scene, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, sound, work = KINDS[name], tmp_path / "sound", tmp_path / "work"
    sound.mkdir()
    monkeypatch.setenv("FGDD_FAST_CACHE", str(sound / "cache"))
    kind.make(scene, sound)
    monkeypatch.setenv("FGDD_FAST_CACHE", str(work / "cache"))
    if name == "catalogues":
        monkeypatch.setenv("FGDD_FAST_CATALOGUE", str(work / "catalogue.json"))
    files = sorted(file for pattern in kind.files for file in sound.glob(pattern) if file.is_file())
    assert files

    def attempt(place: int) -> tuple[str, str]:
        random = Random(f"{SEED} {name} {place}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(sound, work, symlinks=True)
        file = random.choice(files)
        if place >= len(kind.commands):  # the first find whether each command takes what is sound
            mutate_file(work / file.relative_to(sound), file.read_bytes(), random)
        line = random.choice(kind.commands) if place >= len(kind.commands) else kind.commands[place]
        words = line.format(inputs=scene.inputs, work=work).split()
        result = CliRunner().invoke(main, words)
        if isinstance(result.exception, MemoryError):
            raise result.exception
        what = f"{file.name}: {words[0]}"
        if not isinstance(result.exception, SystemExit | None):
            return "foreign", f"{what}: {result.exception!r:.200}"
        if found := _WARNING.search(result.output):
            return "trace", f"{what}: {result.output[found.start() :][:300]}"
        if place < len(kind.commands):
            return "sound", result.output[-300:] if result.exit_code else ""
        said = result.exit_code == 0 or re.search(r"^(Error|Usage): ", result.output, re.MULTILINE)
        return ("read" if result.exit_code == 0 else "refused"), (
            "" if said else f"{what}: {result.output[-200:]}"
        )

    def make() -> Try:
        return attempt

    supervise(make, number("FILES", 1000), tally, tmp_path / "log")
