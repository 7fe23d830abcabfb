from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from catalogue_files import catalogue_data, write_catalogue
from tiny_models import tiny_description, tiny_graph

from fgdd_engines.bundle.bundle import write_bundle
from fgdd_engines.paths import cache_folder
from fgdd_fast.errors import BundleError, FgddError, SettingsError
from fgdd_fast.models.catalogue.catalogue import bundle_path, find_bundle, load_catalogue


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


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.json"):
        load_catalogue(tmp_path / "nowhere.json")


def test_a_model_not_yet_pulled_gives_the_command() -> None:
    with pytest.raises(BundleError) as caught:
        find_bundle("saliency-u2netp", "foreground")
    assert caught.value.advice == "Run: fgdd-fast models pull saliency-u2netp"


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


def test_an_unknown_name_gets_suggestions() -> None:
    with pytest.raises(BundleError) as caught:
        find_bundle("saliancy-u2netp", "foreground")
    assert "Did you mean saliency-u2netp?" in caught.value.advice
    assert "efficientnet" not in caught.value.advice  # another role
    with pytest.raises(BundleError, match="path of a bundle"):
        find_bundle("my-teacher", "teacher")
    with pytest.raises(FgddError, match="Did you mean"):
        load_catalogue()["imagenet-efficientnet-lite1"]


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="absent"):
        find_bundle(str(tmp_path / "absent"), "teacher")


def test_a_name_that_nothing_has_whatever_its_role() -> None:
    with pytest.raises(BundleError, match="neither a bundle's path nor a model of the catalogue") as caught:
        find_bundle("salience-u2netp")
    assert "saliency-u2netp" in caught.value.advice
