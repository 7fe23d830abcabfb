"""Which devices truly run, found out by running something on them.

What a library says was compiled into it says nothing of drivers, of the libraries that it needs, or of this
GPU's architecture; and a session that falls back to the CPU does so in silence.

Devices on a GPU are probed in a process of their own: libraries that do not fit the driver may end the
process that they are in, print to its terminal, or never come back. Where there is no NVIDIA device at all,
or the package is not installed, nothing is started and nothing imported.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec

from fgdd_engines.backends import Backend, all_devices, find_backend
from fgdd_engines.base import Device
from fgdd_engines.child_python import python_command
from fgdd_engines.errors import FgddError, PluginError
from fgdd_engines.probing.nvidia import NO_GPU, has_nvidia_device, jetson_model

TIME_LIMIT = 180  # seconds; loading CUDA's libraries for the first time takes many


@dataclass(frozen=True)
class Probe:
    """Whether a device runs on this machine.

    Attributes:
        device: the device.
        runs: a tiny graph was really run on it, and gave the right numbers; for `tensorrt` and
            `tensorrt-rtx`, an engine of it was built and deserialised, and got its execution context.
        detail: what ran it, with its version; or why it cannot run. One sentence without a final stop.
        advice: the command or step that would make it run; empty where it runs, or nothing would.
    """

    device: Device
    runs: bool
    detail: str
    advice: str = ""


# What a package is called by pip where it is better installed by itself: extras would bring others along.
_ALONE = {"cuda.bindings": "cuda-bindings"}
_VIRTUAL_ENVIRONMENT = (
    "JetPack brings it: use an environment that was made with python3 -m venv --system-site-packages"
)
# The published packages of ONNX Runtime and of TensorRT for RTX hold no code for the GPUs of Jetson boards.
_ON_A_JETSON = "Use the device tensorrt, which comes with JetPack."
# What libraries say of failures that a user can act on: pattern, plain words, advice.
_KNOWN_FAILURES = (
    (r"libcuda\.so\S*: cannot open shared object file", NO_GPU, "Install NVIDIA's driver."),
    (
        r"(libnv(?:infer|onnxparser)\S*?\.so[.\d]*): cannot open shared object file",
        r"the library \1 was not found",
        "Install TensorRT of this version, and name the folder of its libraries in LD_LIBRARY_PATH.",
    ),
    (
        r"(lib\S+?\.so[.\d]*): cannot open shared object file",
        r"the library \1 was not found",
        "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    ),
    (
        r"driver version is insufficient",
        "NVIDIA's driver is absent, or older than this package needs",
        "Update NVIDIA's driver.",
    ),
    (
        r"no CUDA-capable device is detected",
        "NVIDIA's driver offers no GPU to this process",
        "See whether the environment variable CUDA_VISIBLE_DEVICES hides it.",
    ),
    (r"no kernel image is available", "this package has no code for the architecture of this GPU", ""),
)


def probe_all() -> tuple[Probe, ...]:
    """Return the probes of all devices, those of plug-ins last."""
    return tuple(probe(device) for device in all_devices())


@cache
def probe(device: Device) -> Probe:
    """Find out whether a device runs here; the answer is remembered for this process.

    Nothing is printed. It takes milliseconds beside importing the runtime; on a GPU some seconds.

    Raises:
        SettingsError: there is no such device.
    """
    try:
        backend = find_backend(device)
    except PluginError as error:
        return Probe(device, False, error.problem, error.advice)
    if backend.on_nvidia and not has_nvidia_device():
        return Probe(device, False, NO_GPU)
    for package in backend.packages:
        if not _is_installed(package):
            detail = f"the Python package {package} is not installed"
            return Probe(device, False, detail, _installation(backend, package))
    return _probe_here(device) if backend.on_processor else _probe_in_child(device)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # what it is a part of is not; or it is imported without a spec
        return package in sys.modules


def _installation(backend: Backend, package: str) -> str:
    """The step that brings a package which a backend lacks."""
    if backend.on_nvidia and jetson_model() is not None:
        if not backend.with_jetpack:
            return _ON_A_JETSON
        if package == backend.packages[0]:
            return _VIRTUAL_ENVIRONMENT
    if package in _ALONE:
        return f"pip install {_ALONE[package]}"
    if not backend.extra or (
        backend.extra == "cpu" and package != "onnxruntime" and _is_installed("onnxruntime")
    ):  # that extra would lay ONNX Runtime for CPUs over one for GPUs
        return f"pip install {package}"
    return f"pip install 'fgdd-fast[{backend.extra}]'"


def _probe_here(device: Device) -> Probe:
    try:
        return Probe(device, True, find_backend(device).probe())
    except FgddError as error:
        detail, _, command = error.problem.partition("; run: ")
        return Probe(device, False, detail, error.advice.removeprefix("Run: ") or command)
    except Exception as error:  # of a plug-in, which may raise anything
        return Probe(device, False, f"its probe failed: {type(error).__name__}: {error}")


def _probe_in_child(device: Device) -> Probe:
    """Probe in a process of its own, which looks for packages where this one does."""
    command = python_command(__name__, device)
    try:
        child = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return Probe(device, False, f"its probe did not end within {TIME_LIMIT} seconds")
    log = child.stderr.decode("utf-8", "replace")
    try:
        found = Probe(**json.loads(child.stdout))
    except (ValueError, TypeError):
        found = Probe(device, False, ending(child.returncode, log))
    return found if found.runs else _explain(found, log)


def ending(code: int, log: str) -> str:
    """Return how a child ended that gave no answer, by its exit code and what it wrote to standard error."""
    if code < 0:
        return f"its libraries ended the process with {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"its probe failed: {lines[-1]}" if lines else "its probe failed"


def _explain(found: Probe, log: str) -> Probe:
    """A failure in plain words and with advice, where it is a known one.

    ONNX Runtime only logs why it could not make a provider; what it then raises is about the CPU.
    """
    detail, advice = found.detail, found.advice
    for pattern, words, step in _KNOWN_FAILURES:
        if match := re.search(pattern, f"{found.detail}\n{log}"):
            detail, advice = match.expand(words), step
            break
    if not find_backend(found.device).with_jetpack and jetson_model() is not None:
        advice = _ON_A_JETSON
    return Probe(found.device, False, detail, advice)


def _main(device: Device) -> None:
    """Probe a device in this process, print the outcome as JSON, and end the process.

    Whatever libraries print goes to standard error; what they do while a process ends is not waited for.
    """
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.write(answer, json.dumps(asdict(_probe_here(device))).encode())
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1])
