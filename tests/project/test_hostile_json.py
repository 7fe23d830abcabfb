"""Whatever a JSON file of this project holds, it is read, or refused with an error that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipeline as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutated_json import mutated
from tiny_distilled import write_distilled, write_labels

from fgdd_engines.bundle.bundle import load_bundle
from fgdd_fast.errors import FgddError
from fgdd_fast.labels.stored import open_labels
from fgdd_fast.labels.tensors import pack, unpack
from fgdd_fast.labels.training_views import ViewRecipe
from fgdd_fast.models.catalogue.catalogue import parse_catalogue
from fgdd_fast.models.network import Runtime, Teacher
from fgdd_fast.models.prompts import Prompting, phrases_of, prompt_text, read_prompts
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.manifest import serialise
from fgdd_fast.packing.huggingface import card
from fgdd_fast.packing.samples import Pack

BUNDLES = Path(__file__).parents[1] / "written_by_0_1" / "models"
CATALOGUE = Path(parse_catalogue.__code__.co_filename).with_name("catalogue.json")
fuzzed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def held(use: Callable[[], Any]) -> None:
    """Use a file; either outcome is right."""
    try:
        use()
    except FgddError as error:
        assert error.problem  # noqa: PT017


@pytest.mark.parametrize("name", ["teacher", "tiny-foreground", "tiny-grounded"])
def test_sidecars(name: str, tmp_path: Path) -> None:
    for file in BUNDLES.glob(f"{name}.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    sidecar = tmp_path / f"{name}.json"

    @fuzzed
    @given(text=mutated(json.loads(sidecar.read_text())))
    def check(text: str) -> None:
        sidecar.write_text(text)
        held(lambda: use(sidecar))

    check()


def use(sidecar: Path) -> None:
    bundle = load_bundle(sidecar)
    if bundle.prompting is not None:
        prompting = Prompting.of(bundle, "foreground")
        assert prompt_text(("cat",), prompting.form)
    for part in bundle.parts:
        bundle.part(part)
    for file in bundle.files:
        bundle.file(file)
    if bundle.role == "teacher":
        teacher = Teacher(bundle, Runtime("cpu", "fp32", 1), view="pad", tile_size=32, batch=1)
        try:
            teacher.show(tiny.square("red", 0.5, (32, 32)))
        finally:
            teacher.close()
    bundle.find_cropped_graph(32)
    bundle.find_variant("int8")


@pytest.mark.parametrize("file", ["manifest.json", "labels/labels.json"])
def test_manifests_and_descriptions_of_labels(file: str, tmp_path: Path) -> None:
    distilled = write_distilled(tmp_path / "out")
    write_labels(distilled, ViewRecipe(size=8, factor=2, batch=2, seed=0, cutmix=True), epochs=1)
    path = distilled.folder / file

    @fuzzed
    @given(text=mutated(json.loads(path.read_bytes())))
    def check(text: str) -> None:
        path.write_text(text)
        held(lambda: use_distilled(distilled.folder))

    check()


def use_distilled(out: Path) -> None:
    distilled = open_distilled(out)
    serialise(distilled.manifest)
    distilled.read_all()
    card(Pack(distilled, 10**6))
    labels = open_labels(distilled)
    labels.tiles()
    for epoch in range(labels.epochs):
        labels.epoch(epoch)


@fuzzed
@given(text=mutated(json.loads(CATALOGUE.read_text())))
def test_catalogues(text: str) -> None:
    held(lambda: parse_catalogue(text, "The catalogue", Path("folder")))


@fuzzed
@given(text=mutated({"cat": ["a cat", "kitten"], "dog": "a dog"}))
def test_prompts(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(text)
    held(lambda: phrases_of("cat", read_prompts(path)))


_LABELS = {"box": np.zeros((2, 4), "uint16"), "logits": np.zeros((2, 3), "float16")}
HEADER, _, ARRAYS = b"".join(pack(_LABELS))[8:].partition(b"}}")


@fuzzed
@given(text=mutated(json.loads(HEADER + b"}}")), length=st.integers(-9, 9))
def test_headers_of_label_files(text: str, length: int) -> None:
    header = text.encode()
    try:
        arrays = unpack(max(0, len(header) + length).to_bytes(8, "little") + header + ARRAYS)
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        assert all(array.nbytes <= len(ARRAYS) + len(header) for array in arrays.values())
