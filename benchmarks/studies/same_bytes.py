"""Do two versions of the project write the same bytes, on one machine, each in an environment of its own?

    python -m benchmarks.studies.same_bytes --before PYTHON --after PYTHON --clothing FOLDER --work DIR

Each PYTHON has one version installed, and runs it as `PYTHON -m fgdd_fast`, with device, precision, batch and
threads given, fresh stores and a cache of its own. Where a case takes models or data that another one makes,
both versions get what `before` made. Every file that a case leaves is compared byte for byte, but for stores,
records of runs and reports; JSON may differ in versions, in seconds, and in the names that `RENAMED_KEYS`
lists. With `--reuse-before` what `before` made in DIR stays, and only `after` runs.

This needs the standard library, click and NumPy; it imports nothing of the project, which it runs twice.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.studies.same_cases import CASES, NEEDS, CaseError, Given, Version, prepare_cache

# Keys of JSON files (settings of the manifest among them) that `after` calls otherwise: old name, new name.
RENAMED_KEYS: Mapping[str, str] = {}
# Words of the command line that `after` spells otherwise. The old ones stay accepted, so that both versions
# are given these; with `--new-spelling` `after` is given the new ones.
RENAMED_WORDS: Mapping[str, str] = {}

TIMES = {"seconds", "environment"}  # keys of JSON files whose values no two runs share
VERSIONED = {"tool", "made_with", "with", "runtime", "features", "version"}  # keys below which versions stand
VERSION = re.compile(r"\d+(\.\d+)+[\w.+-]*")
# What is not compared: stores, the record of a run, which holds its times, the page that shows them, and the
# hashes of what is compared.
LEFT_OUT = {"store", "run.json", "report.html", "SHA256SUMS"}
ADDED = ("demo/masks/",)  # what `after` writes besides: the true masks of the demo's pictures
ADDED_KEYS = {"same_class"}  # keys of JSON files that `after` has besides: a figure of a teacher's variants


def plain(data: Any, renamed: Mapping[str, str], *, versioned: bool = False) -> Any:
    """Return the content of a JSON file without times, with versions masked and keys renamed."""
    if isinstance(data, dict):
        return {
            renamed.get(key, key): plain(value, renamed, versioned=versioned or key in VERSIONED)
            for key, value in data.items()
            if key not in TIMES | ADDED_KEYS
        }
    if isinstance(data, list):
        return [plain(value, renamed, versioned=versioned) for value in data]
    return VERSION.sub("VERSION", data) if versioned and isinstance(data, str) else data


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Name the places where the contents of two JSON files differ; the order of keys counts."""
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        for key in one:
            yield from differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{where}[{place}]")
    elif json.dumps(one) != json.dumps(other):
        names = [list(each) if isinstance(each, dict) else each for each in (one, other)]
        yield f"{where or 'whole'}: {names[0]!r:.80} became {names[1]!r:.80}"


def difference(before: Path, after: Path) -> str:
    """Say how two files differ; empty where they do not, and `versions` where JSON does in these alone."""
    one, other = before.read_bytes(), after.read_bytes()
    if one == other:
        return ""
    if before.suffix == ".json":
        contents = plain(json.loads(one), RENAMED_KEYS), plain(json.loads(other), {})
        for content in contents:
            if type(content.get("format")) is int:
                content["format"] = "VERSION"
        return next(differences(*contents), "versions")
    pairs = enumerate(zip(one, other, strict=False))
    place = next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
    return f"byte {place:,}, of {len(one):,} and {len(other):,} bytes"


def compare(before: Path, after: Path) -> tuple[int, int, list[str]]:
    """Compare two folders: files, those that differ in versions alone, and what is wrong."""
    names = [
        {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not LEFT_OUT & set(path.relative_to(folder).parts)
        }
        for folder in (before, after)
    ]
    wrong = [f"{name}: only before" for name in sorted(names[0] - names[1])]
    added = (name for name in sorted(names[1] - names[0]) if not name.startswith(ADDED))
    wrong += [f"{name}: only after" for name in added]
    found = {name: difference(before / name, after / name) for name in sorted(names[0] & names[1])}
    wrong += [f"{name}: {text}" for name, text in found.items() if text not in ("", "versions")]
    return len(found), list(found.values()).count("versions"), wrong


def make(version: Version, name: str, given: Given) -> float:
    """Run a case in an empty folder, and return how many seconds it took."""
    shutil.rmtree(version.folder / name, ignore_errors=True)
    (version.folder / f"{name}.log").unlink(missing_ok=True)
    (version.folder / name).mkdir(parents=True)
    begin = time.monotonic()
    CASES[name](version, given)
    return time.monotonic() - begin


@click.command()
@click.option("--before", required=True, type=click.Path(exists=True, path_type=Path), metavar="PYTHON")
@click.option("--after", required=True, type=click.Path(exists=True, path_type=Path), metavar="PYTHON")
@click.option("--clothing", type=click.Path(path_type=Path), help="Photographs, one folder a class.")
@click.option("--miniatures", type=click.Path(path_type=Path), help="By default those of the tests.")
@click.option("--models", type=click.Path(path_type=Path), help="A cache folder with pulled models.")
@click.option("--work", type=click.Path(path_type=Path), help="Where everything is made; kept.")
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="This case; may be repeated.")
@click.option("--reuse-before", is_flag=True, help="Run 'before' only where DIR lacks what it makes.")
@click.option("--new-spelling", is_flag=True, help="Give 'after' the new spellings of options.")
def main(
    before: Path,
    after: Path,
    clothing: Path | None,
    miniatures: Path | None,
    models: Path | None,
    work: Path | None,
    only: tuple[str, ...],
    reuse_before: bool,
    new_spelling: bool,
) -> None:
    """Compare what two versions of the project write, case by case; fail where it is not the same."""
    work = Path(tempfile.mkdtemp(prefix="same-bytes-")) if work is None else work.absolute()
    miniatures = miniatures or Path(__file__).parents[2] / "tests" / "miniatures"
    photographs = None if clothing is None else clothing.absolute()
    given = Given(photographs, miniatures.absolute(), work / "before")
    old = Version(before.absolute(), work / "before", {})
    new = Version(after.absolute(), work / "after", RENAMED_WORDS if new_spelling else {})
    for version in (old, new):
        version.folder.mkdir(parents=True, exist_ok=True)
        prepare_cache(version.folder, models)
    left_out = set() if photographs else {"teacher", "clothing"}
    wanted = [name for name in CASES if name in (only or CASES) and name not in left_out]
    if not wanted:
        raise click.UsageError("These cases need photographs: --clothing FOLDER")
    needed = {*wanted, *(need for name in wanted for need in NEEDS.get(name, []))}
    click.echo(f"{'case':10}{'files':>7}{'versions':>10}{'different':>11}{'before':>9}{'after':>9}")
    same = True
    for name in (name for name in CASES if name in needed):
        done = old.folder / f"{name}.seconds"
        if not (reuse_before and done.exists()):
            done.unlink(missing_ok=True)
            try:
                done.write_text(f"{make(old, name, given):.1f}")
            except CaseError as error:
                raise click.ClickException(f"{name}, before: {error}") from error
        if name not in wanted:
            continue
        try:
            seconds = make(new, name, given)
        except CaseError as error:
            same = False
            click.echo(f"{name:10} failed: {error}")
            continue
        files, versions, wrong = compare(old.folder / name, new.folder / name)
        same &= not wrong and files > 0
        times = f"{float(done.read_text()):>7.0f} s{seconds:>7.0f} s"
        click.echo(f"{name:10}{files:>7}{versions:>10}{len(wrong):>11}{times}")
        for line in wrong[:1]:
            click.echo(f"    {line}")
    click.echo("The same." if same else f"Not the same; everything lies in {work}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
