from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_export.classifier.bundle import read_class_names
from fgdd_fast.errors import SettingsError

WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Z")), min_size=1)
NAMES = st.lists(st.lists(WORDS, min_size=1).map(" ".join), min_size=1)


@given(names=NAMES, line_end=st.sampled_from(["\n", "\r\n"]), final=st.sampled_from(["", "\n", "\n\n"]))
def test_names_come_back(names: list[str], line_end: str, final: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if not names[0].startswith("["):
            text = Path(folder, "names.txt")
            text.write_bytes(line_end.join(names).encode() + final.encode())
            assert read_class_names(text) == tuple(names)
        data = Path(folder, "names.json")
        data.write_text(json.dumps(names), encoding="utf-8")
        assert read_class_names(data) == tuple(names)
        assert read_class_names(data.rename(Path(folder, "names"))) == tuple(names)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("hat\nshoe\n", encoding="utf-8-sig")
    assert read_class_names(path) == ("hat", "shoe")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no class names"),
        (b"\n \n", "no class names"),
        (b"hat\n\nshoe\n", "Name 2 .* is empty"),
        (b"h\xe4t\n", "no UTF-8"),
        (b'["hat", "shoe"', "no JSON"),
        (b'["hat", 3]', "no JSON list of names"),
        (b"[]", "no class names"),
        (b"[" * 100_000, "no JSON"),
        (b'["hat", " "]', "Name 2 .* is empty"),
        (b'["", ""]', "no class names"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=problem):
        read_class_names(path)


def test_what_is_no_file_or_no_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_class_names(tmp_path / "absent.txt")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_class_names(tmp_path)
    path = tmp_path / "names.json"
    path.write_text('{"0": "hat"}', encoding="utf-8")
    with pytest.raises(SettingsError, match="no JSON list"):
        read_class_names(path)
