"""Names of classes that read alike are one, whichever system wrote them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import tiny_pipeline as tiny

from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import TeacherError
from fgdd_fast.models.network import Runtime, Teacher, check_classes
from fgdd_fast.models.prompts import phrases_of

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_a_name_finds_itself_first_and_then_what_reads_alike() -> None:
    places = ByClassName.places(["dog", DECOMPOSED, COMPOSED])
    assert (places[DECOMPOSED], places[COMPOSED], places["dog"]) == (1, 2, 0)
    assert ByClassName({DECOMPOSED: 7})[COMPOSED] == 7
    assert COMPOSED in ByClassName({DECOMPOSED: 7})
    assert "cafe" not in places
    with pytest.raises(KeyError):
        places["cafe"]
    assert ByClassName({"caf\udce9": 1})["caf\udce9"] == 1


def test_a_teacher_of_composed_names_knows_decomposed_folders(tmp_path: Path) -> None:
    bundle = tiny.teacher_bundle(tmp_path, classes=("blue", COMPOSED, "red"))
    check_classes(bundle, ["blue", DECOMPOSED])
    teacher = Teacher(bundle, Runtime("cpu", "fp32", 1), view="resize", tile_size=16, batch=1)
    assert teacher.label(DECOMPOSED) == 1
    teacher.close()
    with pytest.raises(TeacherError, match="does not know 'cafe'"):
        check_classes(bundle, ["cafe"])


def test_prompts_are_found_alike() -> None:
    assert phrases_of(DECOMPOSED, {COMPOSED: ("a coffee house",)}) == ("a coffee house",)
