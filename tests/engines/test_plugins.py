"""Plug-ins of other packages: found without being imported, named when broken, never in the place of ours."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from plugin_packages import install_plugin

from fgdd_engines.errors import PluginError
from fgdd_engines.plugins import Plugin, find_plugins

GROUP = "toy.things"


def test_a_plugin_is_found_unimported_and_loaded_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_plugin(
        monkeypatch,
        tmp_path,
        group=GROUP,
        name="three",
        module="plugin_of_three",
        code="PLUGIN = 3\n",
        distribution="three-things",
    )
    found = find_plugins(GROUP)
    assert found == {"three": Plugin("three", "plugin_of_three:PLUGIN", "three-things", "1.2")}
    assert "plugin_of_three" not in sys.modules
    assert found["three"].load(int) == 3


@pytest.mark.parametrize(
    ("module", "code", "reason"),
    [
        ("plugin_raising", "raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
        ("plugin_lacking", "OTHER = 1\n", "AttributeError"),
        ("plugin_mistyped", "PLUGIN = 'a word'\n", "plugin_mistyped:PLUGIN is a str, not a int"),
    ],
)
def test_a_broken_plugin_is_named_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    module: str,
    code: str,
    reason: str,
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir(), bad.mkdir()
    install_plugin(
        monkeypatch, good, group=GROUP, name="good", module=f"{module}_beside", code="PLUGIN = 5\n"
    )
    install_plugin(monkeypatch, bad, group=GROUP, name="bad", module=module, code=code)
    with pytest.raises(PluginError, match=f"The plug-in 'bad' of {module} 1.2") as raised:
        find_plugins(GROUP)["bad"].load(int)
    assert reason in raised.value.problem
    assert f"pip uninstall {module}" in raised.value.advice
    assert find_plugins(GROUP)["good"].load(int) == 5


def test_a_plugin_takes_no_name_that_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for module, name in (("plugin_late", "twice"), ("plugin_early", "twice"), ("plugin_of_cpu", "cpu")):
        folder = tmp_path / module
        folder.mkdir()
        install_plugin(monkeypatch, folder, group=GROUP, name=name, module=module, code="PLUGIN = 1\n")
    with caplog.at_level(logging.WARNING):
        found = find_plugins(GROUP, reserved=("cpu",))
    assert {name: plugin.distribution for name, plugin in found.items()} == {"twice": "plugin_early"}
    assert "'cpu' of plugin_of_cpu 1.2 is left out: what is built in has this name" in caplog.text
    assert "'twice' of plugin_late 1.2 is left out: plugin_early 1.2 offers the same name" in caplog.text
