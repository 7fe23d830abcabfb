"""The power of a machine, read from made trees of the system's files, and a stream that holds to it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fgdd_fast.cli import main
from fgdd_fast.errors import SettingsError
from fgdd_fast.streaming import budgets as budgets_module
from fgdd_fast.streaming import power
from fgdd_fast.streaming.budgets import Budgets
from fgdd_fast.streaming.power import PowerMeter
from fgdd_fast.streaming.sources import Frame


def write(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{value}\n", encoding="ascii")


def sensor(root: Path, address: str, **rails: tuple[int, int] | None) -> Path:
    """An INA3221 with rails of so many mV and mA; a channel of None is switched off."""
    folder = root / f"bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{address[-1]}"
    for channel, (name, values) in enumerate(rails.items(), 1):
        write(folder / f"in{channel}_label", name)
        for kind, value in zip(("in", "curr"), values or (), strict=False):
            write(folder / f"{kind}{channel}_input", value)
    write(folder / "in7_label", "Sum of shunt voltages")
    return folder


def counter(root: Path, zone: str, name: str, energy: int) -> Path:
    folder = root / f"class/powercap/{zone}"
    for file, value in {"name": name, "energy_uj": energy, "max_energy_range_uj": 1_000_000}.items():
        write(folder / file, value)
    return folder / "energy_uj"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's files of a machine that `PowerMeter` finds; readings are neither averaged nor spared."""
    root = tmp_path / "sys"
    monkeypatch.setattr(PowerMeter.__init__, "__defaults__", (root,))
    for name, value in {"_SMOOTH": 1e-9, "_APART": 1e-9}.items():
        monkeypatch.setattr(power, name, value)
    return root


def test_a_module_tells_of_itself_and_rails_are_added_up_where_none_does(machine: Path) -> None:
    sensor(machine, "1-0040", VDD_GPU_SOC=(12_000, 1000), VDD_CPU_CV=(12_000, 250), VIN_SYS_5V0=(5000, 400))
    sensor(machine, "1-0041", NC=(9000, 9000), VDDQ=None)
    assert PowerMeter().watts() == pytest.approx(12 + 3 + 2)
    sensor(machine, "1-0042", VDD_IN=(5000, 3000), VDD_SOC=(5000, 1000))
    assert PowerMeter().watts() == pytest.approx(15)


def test_what_processors_count_is_their_power(machine: Path) -> None:
    first = counter(machine, "intel-rapl:0", "package-0", 900_000)
    second = counter(machine, "intel-rapl:1", "package-1", 0)
    counter(machine, "intel-rapl:0:0", "dram", 0)
    meter, begin = PowerMeter(), time.monotonic()
    time.sleep(0.05)
    write(first, 400_000)  # which began anew: 0.5 J
    write(second, 1_000_000)
    watts = meter.watts()
    assert watts is not None
    assert 1.5 / (time.monotonic() - begin) <= watts <= 1.5 / 0.05
    first.unlink()
    assert meter.watts() is None


def test_work_waits_until_there_is_power(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = sensor(machine, "1-0040", VDD_IN=(5000, 3000)) / "curr1_input"
    camera = Budgets(memory=None, fps=None, power=10, live=True)
    frame = Frame("frame", pixels=np.zeros((8, 8, 3), np.uint8))
    assert [camera.admit(frame), camera.dropped] == [False, 1]
    write(current, 1000)
    assert camera.admit(frame)
    assert "5.0 of 10 W" in camera.told
    write(current, 3000)
    monkeypatch.setattr(budgets_module, "_PATIENCE", 0.1)
    with pytest.raises(SettingsError, match=r"cannot be held at 10 W: 15\.0 W are taken anyway"):
        Budgets(memory=None, fps=None, power=10, live=False).admit(frame)


def test_a_stream_holds_to_a_limit_or_says_that_nothing_tells_the_power(
    workplace: Path, machine: Path
) -> None:
    given = ["--ipc", "1", "--size", "16", "--device", "cpu", "--power", "10", "--once", "-v", "--teacher"]
    words = ["stream", *(str(workplace / name) for name in ("data", "out")), *given]
    words.append(str(workplace / "tiny-teacher.onnx"))
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 1
    assert "neither INA3221 sensors" in refused.output
    assert "limit --fps instead; or, where" in refused.output
    assert not (workplace / "out").exists()

    sensor(machine, "1-0040", VDD_IN=(5000, 1000))
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "5.0 of 10 W" in done.output
