"""Packages that offer plug-ins, as pip would have installed them."""

from __future__ import annotations

from pathlib import Path

import pytest


def install_plugin(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    group: str,
    name: str,
    module: str,
    code: str,
    attribute: str = "PLUGIN",
    distribution: str | None = None,
    version: str = "1.2",
) -> None:
    """Make a package of one module that offers one plug-in, and put it on the search path.

    Args:
        monkeypatch: undoes it.
        folder: an empty folder of the test's own.
        group, name: of the entry point.
        module: the module's name, used by no other test.
        code: its source.
        attribute: what the entry point names in it.
        distribution: the package's name; the module's by default.
        version: of the package.
    """
    distribution = distribution or module
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{attribute}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
