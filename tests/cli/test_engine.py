"""`fgdd-fast engine` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import plan_files
import pytest
import tiny_pipeline
from click.testing import CliRunner
from engine_machine import BAD, GOOD, HERE, ORIN, THOR, Machine, add_variant
from tiny_grounded import write_grounded_bundle
from tiny_models import tiny_bundle

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.file_lock import exclusive_lock
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_engines.tensorrt_backend.plans import usability as plan_usability
from fgdd_engines.tensorrt_backend.plans.key import PlanKey
from fgdd_engines.tensorrt_backend.plans.store import Plan, PlanStore
from fgdd_fast.cli import main
from fgdd_fast.cli.networks.engine import engine
from fgdd_fast.errors import FgddError
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime import engine_building, engine_checking
from fgdd_fast.runtime.choose import RuntimeOptions, runtime_for


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "250")
    return tmp_path / "cache"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def teacher(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path)


@pytest.fixture
def plan(machine: Machine, teacher: Bundle) -> Plan:
    """A teacher's engine that may be used."""
    run("build", teacher.onnx)
    return PlanStore().list()[0]


def run(*arguments: object) -> str:
    """What a command prints that succeeds."""
    result = CliRunner().invoke(main, ["engine", *map(str, arguments)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*arguments: object) -> tuple[FgddError, str]:
    """The error of a command that fails, and what it had printed."""
    result = CliRunner().invoke(engine, list(map(str, arguments)))
    assert isinstance(result.exception, FgddError), (result.output, result.exception)
    return result.exception, result.output


def table_rows(output: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line]
    return {row[0]: row for row in cells}


# --- build ------------------------------------------------------------------------------------------------


def test_build_says_what_it_built_and_how_it_compares(machine: Machine, teacher: Bundle) -> None:
    variant = add_variant(teacher, "fp16")
    output = run("build", teacher.onnx, "--precision", "fp16", "--batch-profile", "1:2:4", "--workspace", 64)
    (plan,) = PlanStore().list()
    assert output.splitlines()[-1] == str(plan.path)
    row = table_rows(output)["tiny"]
    assert row == ["tiny", "fp16", "1:12:24", "2 fp16, 1 fp32", "0.0 MB", "1.5 s", "passed"]
    assert table_rows(output)["same path"] == ["same path", "1", "at least 0.95"]
    assert plan.workspace_mib == 64
    run("build", teacher.onnx, "--precision", "fp16", "--batch-profile", "1:2:4")
    assert machine.built == [("tiny.fp16.onnx", "1:12:24")]
    (compared,) = machine.compared
    assert compared["candidate"] == Runtime("tensorrt", "fp16", 1, {teacher.sha256: variant})
    assert (compared["batch"], compared["single"]) == (4, 1)
    assert (plan.graph, plan.bundle, plan.parity["figures"]) == (variant.onnx, teacher.onnx, GOOD.figures)
    run("build", teacher.onnx, "--precision", "fp16", "--batch-profile", "1:2:4", "--rebuild")
    assert len(machine.built) == 2


def test_build_fails_where_decisions_differ_unless_they_are_accepted(
    machine: Machine, teacher: Bundle
) -> None:
    machine.parity = BAD
    error, _ = refused("build", teacher.onnx)
    assert "kept out of use: mean occupancy error is 0.2 (at most 0.01 is accepted)" in error.problem
    assert "same path is 0.5 (at least 0.95 is accepted)" in error.problem
    assert "--force" in error.advice
    assert "accepted" in run("build", teacher.onnx, "--force")
    assert (len(machine.built), len(machine.compared)) == (1, 2)  # compared again, but not built
    assert "whole; accepted" in run("verify")


def test_defaults_build_what_defaults_run(machine: Machine, teacher: Bundle) -> None:
    """Convert, build, run: what `--device tensorrt` asks for is there."""
    add_variant(teacher, "fp16")
    run("build", teacher.onnx)
    (plan,) = PlanStore().list()
    asked = runtime_for(teacher, "tensorrt", RuntimeOptions().precision)
    graph = asked.variants[teacher.sha256]
    wanted = PlanKey.of(graph, HERE["tensorrt"][0], Profile(6, 6, 6), {"batch": 6})
    assert PlanStore().load(wanted)[0] == plan


def test_build_takes_the_number_of_a_gpu(machine: Machine, teacher: Bundle) -> None:
    machine.second = THOR
    assert "tf32" in run("build", teacher.onnx, "--device", "tensorrt:1", "--precision", "tf32")
    (plan,) = PlanStore().list()
    assert (plan.key.device, plan.key.precision) == ("Thor", "tf32")
    assert table_rows(run("list"))["tiny"][-1] == "yes"
    assert run("remove", "--stale") == "0.0 MB are free again\n"
    machine.second = None
    assert "There is no GPU 1" in str(refused("build", teacher.onnx, "--device", "tensorrt:1")[0])
    for device, words in (("cuda:1", "is not one of auto, tensorrt, tensorrt-rtx"), ("tensorrt:", "number")):
        result = CliRunner().invoke(engine, ["build", str(teacher.onnx), "--device", device])
        assert (result.exit_code, words in result.output) == (2, True)


def test_build_asks_for_what_prompts_say(machine: Machine, tmp_path: Path) -> None:
    bundle = write_grounded_bundle(tmp_path)
    data = tiny_pipeline.write_squares(tmp_path / "data", 2)
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"red": "a red patch"}))
    run("build", bundle.onnx, "--check", data, "--check-images", 3, "--prompts", prompts)
    names = [image.image.class_name for image in machine.compared[0]["images"]]
    assert sorted(names) == ["a red patch", "blue", "green"]


def test_build_without_a_gpu_says_that_nothing_was_checked(machine: Machine, teacher: Bundle) -> None:
    machine.device = None
    output = CliRunner().invoke(main, ["engine", "build", str(teacher.onnx)]).output
    assert "Built, but not checked: there is no GPU to run them." in output
    assert "run this again on the device itself" in output


def test_batches_are_in_order(machine: Machine, teacher: Bundle) -> None:
    result = CliRunner().invoke(engine, ["build", str(teacher.onnx), "--batch-profile", "8:4:1"])
    assert result.exit_code == 2
    assert "1:4:8" in result.output or "MIN:OPT:MAX" in result.output


def test_what_cannot_be_built_is_told(machine: Machine, teacher: Bundle, tmp_path: Path) -> None:
    lacking = refused("build", teacher.onnx, "--precision", "fp16")[0]
    assert "has no fp16 variant" in lacking.problem
    assert f"fgdd-fast convert {teacher.onnx} --precision fp16" in lacking.advice
    assert "variant of another" in str(refused("build", add_variant(teacher, "fp16").onnx)[0])
    assert "nowhere" in str(refused("build", "nowhere")[0])
    assert "not been exported yet" in str(refused("build", "grounded-sam2")[0])
    machine.version = None
    assert "not installed" in str(refused("build", teacher.onnx)[0])
    assert machine.built == []


# --- list and inspect -------------------------------------------------------------------------------------


def test_list_says_which_engines_can_be_used_here(machine: Machine, plan: Plan) -> None:
    row = ["tiny", "fp32", "Orin", "tensorrt 10.16.2", "1:192:256", "0.0 MB", "passed", "yes"]
    assert table_rows(run("list"))["tiny"] == row
    for version, device, reason in (
        ("11.0", ORIN, "was built by tensorrt 10.16.2, not 11.0"),
        (None, ORIN, "tensorrt is not installed"),
        (plan.key.version, None, "was built on Orin (8.7), not without a GPU"),
    ):
        machine.version, machine.device = version, device
        output = run("list")
        assert table_rows(output)["tiny"] == [*row[:-1], "no"]
        assert output.endswith(f"\n{plan.path.name}: {reason}\n")
    machine.device = ORIN
    plan.graph.write_bytes(b"changed")
    assert f"{plan.path.name}: its model cannot be used" in run("list")
    plan.path.write_bytes(b"x")
    output = run("list")
    assert "tiny" not in table_rows(output)
    assert f"The engine {plan.path} cannot be used: it is truncated" in output


def test_inspect_tells_a_sidecar_in_words(plan: Plan) -> None:
    output = run("inspect", "tiny")
    for words in (
        str(plan.path),
        str(plan.graph),
        plan.key.model_sha256,
        "tensorrt 10.16.2, CUDA 13, Orin (8.7)",
        "batch 1:192:256",
        "2 fp16, 1 fp32 (read from the engine inspector)",
        "workspace all memory",
        "same path              1",
        "usable here  yes",
    ):
        assert words in output
    assert "norm1" not in output
    assert "fp32     NORMALIZATION            norm1" in run("inspect", plan.path, "--layers")
    assert json.loads(run("inspect", plan.path.stem, "--json")) == json.loads(plan.sidecar.read_bytes())


def test_inspect_finds_engines_by_model_and_by_file(machine: Machine, tmp_path: Path) -> None:
    bundle = write_grounded_bundle(tmp_path)
    run("build", bundle.onnx)
    for name, count in (("tiny-grounded", 2), (bundle.onnx, 2), ("tiny-grounded.text", 1)):
        assert run("inspect", name).count("usable here") == count
    assert len(json.loads(run("inspect", "tiny-grounded", "--json"))) == 2
    error, _ = refused("inspect", "other")
    assert error.problem == "There is no engine 'other'"


# --- verify -----------------------------------------------------------------------------------------------


def test_verify_succeeds_where_all_is_well(machine: Machine, plan: Plan) -> None:
    assert run("verify") == f"{plan.path.name}: whole; passed\n"
    assert run("verify", "tiny", "--check-images", 2) == f"{plan.path.name}: whole; passed\n"
    assert len(machine.compared[-1]["images"]) == 2


def test_verify_fails_where_anything_is_wrong(machine: Machine, plan: Plan) -> None:
    machine.parity = BAD
    error, output = refused("verify")
    assert "its decisions differ too much" in output
    assert error.problem == "1 of these engines cannot be used"
    (plan.path.parent / "junk.plan").touch()
    killed = plan.path.parent / ".tiny-fp32-0.staging"
    killed.mkdir()
    error, output = refused("verify")
    assert error.problem == "2 of these engines cannot be used"
    assert "junk.plan cannot be used: its sidecar junk.json is missing" in output
    assert "tiny-fp32-0: left unfinished" in output
    assert "nothing is known" in str(refused("verify", "junk")[0])


# --- remove -----------------------------------------------------------------------------------------------


def test_remove_takes_one_thing_to_remove(plan: Plan) -> None:
    for arguments in ([], ["tiny", "--all"], ["--stale", "--all"]):
        result = CliRunner().invoke(engine, ["remove", *arguments])
        assert result.exit_code == 2
    assert plan.path.exists()


def test_remove_by_name(plan: Plan) -> None:
    assert run("remove", "tiny") == f"Removed {plan.path.name}\n0.0 MB are free again\n"
    assert not list(plan.path.parent.glob("tiny*"))
    assert "no engine 'tiny'" in str(refused("remove", "tiny")[0])
    plan.path.write_bytes(b"without a sidecar")
    run("remove", plan.path)
    assert not plan.path.exists()


def test_remove_all_leaves_an_empty_folder(plan: Plan) -> None:
    plan_files.stored(PlanStore(), content=b"x" * 2_000_000)
    (plan.path.parent / "junk.plan").touch()
    (plan.path.parent / ".tiny-fp32-0.lock").touch()
    assert run("remove", "--all").endswith("2.0 MB are free again\n")
    assert list(plan.path.parent.iterdir()) == []


def test_stale_is_what_can_never_be_used_here_again(machine: Machine, plan: Plan, tmp_path: Path) -> None:
    store = PlanStore()
    changed = tiny_pipeline.foreground_bundle(tmp_path)
    run("build", changed.onnx)
    changed.onnx.write_bytes(b"changed")
    machine.version = "10.3.0"
    run("build", plan.graph)
    machine.version, machine.device = plan.key.version, CudaDevice("Thor", (11, 0), 1, "13.2", "13.2")
    run("build", plan.graph)
    machine.device = ORIN
    damaged = store.folder / "junk.plan"
    damaged.touch()
    (store.folder / ".tiny-fp32-0.lock").touch()
    with exclusive_lock(store.folder, "tiny-fp32-1", lambda: None) as alive:
        output = run("remove", "--stale")
        assert alive.exists()
    assert f"Removed {damaged.name}" in output
    assert "was built by tensorrt 10.3.0, not 10.16.2" in output
    assert "was built on Thor (11.0), not on Orin (8.7)" in output
    assert "its model cannot be used" in output
    timing = store.timing_cache(plan.key.platform)
    assert set(store.folder.iterdir()) == {plan.path, plan.sidecar, timing}
    assert run("remove", "--stale") == "0.0 MB are free again\n"


def test_what_is_not_there_now_makes_nothing_stale(machine: Machine, plan: Plan) -> None:
    for version, device in ((plan.key.version, None), (None, ORIN)):
        machine.version, machine.device = version, device
        assert run("remove", "--stale") == "0.0 MB are free again\n"


# --- the real thing ---------------------------------------------------------------------------------------


def test_an_engine_from_its_build_to_its_end(teacher: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    for module in (engine_building, engine_checking):
        monkeypatch.setattr(module, "find_cuda_device", lambda index=0: None)
    monkeypatch.setattr(plan_usability, "find_cuda_devices", lambda: ())
    output = run("build", teacher.onnx, "--device", "tensorrt-rtx", "--batch-profile", "1:1:2")
    (plan,) = PlanStore().list()
    assert str(plan.path) in output
    output = run("list")
    assert table_rows(output)["tiny"][-2:] == ["unchecked", "no"]
    assert output.endswith("there is no GPU\n")
    assert "CONVOLUTION" in run("inspect", "tiny")
    assert "whole; not compared with fp32, for there is no GPU" in run("verify")
    run("remove", "--stale")
    content = bytearray(plan.path.read_bytes())
    content[len(content) // 2] ^= 1
    plan.path.write_bytes(content)
    assert "has changed since it was built" in refused("verify")[1]
    assert "has changed since it was built" in run("build", teacher.onnx, "--batch-profile", "1:1:2")
    assert "whole" in run("verify")
    run("remove", "tiny")
    assert PlanStore().list() == ()
