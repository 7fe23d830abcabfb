"""Every check is registered once, described, and costs no more than it says."""

from __future__ import annotations

import re
from pathlib import Path

from odd_data import numbered, put_pictures

import fgdd_fast
from fgdd_fast.checking.check import check_data
from fgdd_fast.checking.findings import Finding, matching
from fgdd_fast.checking.registry import CHECKS, NEEDS
from fgdd_fast.checking.seen import Seen
from fgdd_fast.images.dataset import survey

PAGE = Path(__file__).resolve().parents[2] / "docs/checking.md"


def test_the_page_lists_every_check_with_its_severity() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (error|warning|note) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert dict(rows) == {check.code: check.severity for check in CHECKS.values()}


def test_names_alone_open_no_file(tmp_path: Path) -> None:
    data = survey(put_pictures(tmp_path, {"cat": numbered(3), "dog": numbered(3)}))
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    for check in CHECKS.values():
        if check.needs == "names":
            assert list(check.run(Seen(data, data.images, data))) == [], check.code
    assert check_data(data, data, needs="names") == ()


def test_every_kind_of_look_is_had_in_an_instant_where_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for needs in NEEDS:
        assert [each.code for each in fgdd_fast.check_data(tmp_path, tmp_path, needs=needs)] == [
            "empty-class"
        ]


def test_a_severity_stands_for_what_is_worse_as_well() -> None:
    found = [Finding(code, code, "", "") for code in ("error", "warning", "note")]  # type: ignore[arg-type]
    assert len(matching(found, ["note"])) == 3
    assert [each.code for each in matching(found, ["warning"])] == ["error", "warning"]
    leak = Finding("leak", "note", "", "")
    assert matching([leak], ["leak", "error"]) == (leak,)
    assert matching([leak], ["error"]) == ()
