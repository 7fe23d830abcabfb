"""TensorRT's packages: importing them, and what they say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from fgdd_engines.tensorrt_backend.api import TensorRt, clean, import_tensorrt
from fgdd_fast.errors import EngineError, MissingExtraError

pytestmark = pytest.mark.usefixtures("nothing_on_the_terminal")


class TestFullTensorRt:
    """The package `tensorrt` serves in some versions, with its libraries."""

    def test_a_version_that_is_too_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for version, accepted in (("8.6.1", False), ("10.2.0", False), ("10.3.0", True), ("11.0.0.1", True)):
            module = ModuleType("tensorrt")
            module.__version__ = version  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "tensorrt", module)
            if accepted:
                assert import_tensorrt("tensorrt") == TensorRt(module, "tensorrt", version)
            else:
                with pytest.raises(EngineError, match=rf"TensorRT {version} is too old\. Install .*10\.3"):
                    import_tensorrt("tensorrt")

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for package, flavour, extra in (
            ("tensorrt", "tensorrt", "tensorrt"),
            ("tensorrt_rtx", "tensorrt-rtx", "rtx"),
        ):
            monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
            with pytest.raises(MissingExtraError, match=rf"fgdd-fast\[{extra}\]"):
                import_tensorrt(flavour)  # type: ignore[arg-type]

    def test_libraries_that_cannot_be_loaded(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object')")
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(EngineError, match=r"installed, but cannot be loaded: libnvinfer\.so\.10"):
            import_tensorrt("tensorrt")


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        (
            "[a.cpp::f::13] Error Code 2: Internal Error (x\n failed.)",
            "Error Code 2: Internal Error (x failed.)",
        ),
        ("Assertion failed: a::b == c: No such axis.", "No such axis"),
        ("x.cpp:559 In function parseNode: It is odd", "It is odd"),
    ],
)
def test_messages_lose_their_positions(message: str, cleaned: str) -> None:
    assert clean(message) == cleaned
