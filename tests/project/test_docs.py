"""The documents: what they show in Python runs, links lead somewhere, every public name is described."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_distillation import distill

import fgdd_fast
from fgdd_engines.backends import DEVICES, find_backend
from fgdd_fast.cli import main

ROOT = Path(__file__).resolve().parents[2]
README, API, STUDENTS = (ROOT / name for name in ("README.md", "docs/api.md", "docs/students.md"))
DOCUMENTS = (
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
    *(ROOT / "examples").glob("*.md"),
)


def python_blocks(document: Path) -> Iterator[tuple[int, str]]:
    """The line on which each block of Python begins, and the block."""
    text = document.read_text(encoding="utf-8")
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start(1)), found[1]


def run_blocks(document: Path, names: dict[str, object]) -> None:
    """Run a document's blocks one after another, in one namespace; a traceback shows the document's line."""
    for line, block in python_blocks(document):
        exec(compile("\n" * line + block, str(document), "exec"), names)


@pytest.mark.slow
def test_what_the_api_page_shows_runs(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run_blocks(API, {"__name__": "api"})
    printed = capsys.readouterr().out
    assert "100.0% of 12 held-out images are right" in printed
    assert "6 mosaics; 0 images could not be used" in printed
    assert "100.0% of the images take the same path" in printed
    assert "Writing: 3 of 3" in printed
    assert "is too small" in printed
    made = (
        *("sheet.png", "distilled/report.html", "distilled/labels/labels.json"),
        *("packed/manifest.json", "watched/manifest.json"),
    )
    assert [name for name in made if not (photographs / name).is_file()] == []


def test_what_the_readme_shows_runs(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.teacher_bundle(photographs, name="teacher")
    (block,) = (block for _, block in python_blocks(README))
    exec(compile(block.replace("ipc=10", "ipc=1"), str(README), "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.count("images are kept whole from occupancy 0.") == len(tiny.CLASSES)
    assert (photographs / "distilled" / "manifest.json").is_file()


def test_what_the_tutorial_shows_runs(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "tutorial.md"
    shown = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in shown for line in block.splitlines() if "evaluate" not in line]  # minutes
    assert len(lines) > 8
    for line in lines:
        result = CliRunner().invoke(main, shlex.split(line.replace("DATA", "photographs"))[1:])
        assert result.exit_code == 0, f"{line}: {result.output}"
    capsys.readouterr()
    run_blocks(page, {"__name__": "tutorial"})
    whole = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(whole) == 3
    assert whole[0] > whole[1]


def test_the_training_loop_of_the_page_on_students_is_short_and_teaches(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    (loop,) = (block for _, block in python_blocks(STUDENTS) if "from fgdd_fast.data import" in block)
    assert len(loop.splitlines()) < 40
    tiny.write_squares(photographs / "data", 8)
    tiny.foreground_bundle(photographs)
    teacher = tiny.teacher_bundle(photographs).onnx
    assert distill(photographs, "distilled", ipc=2, factor=1).exit_code == 0
    fgdd_fast.make_labels("distilled", teacher, epochs=8)
    (photographs / "validation").rename(photographs / "photographs" / "validation")
    torch.manual_seed(0)
    capsys.readouterr()
    exec(compile(loop, str(STUDENTS), "exec"), {"__name__": "training_loop"})
    said = re.fullmatch(r"(\d+) of 12 held-out photographs are recognised\n", capsys.readouterr().out)
    assert said is not None
    assert int(said[1]) > 6  # guessing gets a third


def test_the_study_of_the_contributors_page_runs(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (study,) = (block for _, block in python_blocks(ROOT / "CONTRIBUTING.md") if "@study" in block)
    (photographs / "occupancies.py").write_text(study, encoding="utf-8")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the study's own handler would stay
    monkeypatch.setattr(sys, "argv", ["occupancies.py", "photographs", "--json", "occupancies.json"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path("occupancies.py", run_name="__main__")
    assert "0.516" in capsys.readouterr().out
    result = json.loads((photographs / "occupancies.json").read_text(encoding="utf-8"))
    assert [row["class"] for row in result["rows"]] == list(tiny.CLASSES)


def test_every_public_name_has_a_section_with_one_example() -> None:
    sections = re.split(r"^## ", API.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    examples = {section.split("\n")[0].strip("`"): section.count("```python") for section in sections}
    assert examples == dict.fromkeys(fgdd_fast.PUBLIC, 1)


def test_the_page_on_running_has_every_device() -> None:
    page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if re.match(r"\| `[a-z]", line)]
    shown = {
        device.strip(" `"): (set(re.findall(r"[a-z]+\d+", precisions)), extra.strip(" `"))
        for device, _, precisions, extra in rows
    }
    backends = {device: find_backend(device) for device in DEVICES}
    assert shown == {name: (set(known.variants), known.extra) for name, known in backends.items()}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def anchors(document: Path) -> set[str]:
    """The names by which the headings of a document are reached."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_page_of_errors_is_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / ".ci" / "errors_page"))["page"]()
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == made, "run: python .ci/errors_page"
