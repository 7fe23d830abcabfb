"""Students by name: those that are built in, and others' own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from plugin_packages import install_plugin

torch = pytest.importorskip("torch")

from tiny_students import RECIPE, SIZE, training_set, validation_set  # noqa: E402

from fgdd_fast.errors import DataError, FgddError, SettingsError  # noqa: E402
from fgdd_fast.students.architectures import check_architecture, find_architecture  # noqa: E402
from fgdd_fast.students.results.result import Student, StudentResult  # noqa: E402
from fgdd_fast.students.training.checkpoints import training_key  # noqa: E402
from fgdd_fast.students.training.loop import train_students  # noqa: E402


def parameters(name: str, classes: int, size: int) -> int:
    with torch.device("meta"):
        network = find_architecture(name).new(classes, size)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "size", "count"),
    [
        ("convnet3", 10, 32, 320_010),  # as in the papers on dataset condensation
        ("resnet18", 1000, 224, 11_689_512),  # torchvision's
        ("resnet18-small", 10, 32, 11_173_962),  # as usual for CIFAR-10
        ("resnet50", 1000, 224, 25_557_032),
        ("mobilenetv2", 1000, 224, 3_504_872),
        ("mobilenetv2-small", 1000, 32, 3_504_872),
        ("vit-tiny", 1000, 224, 5_717_416),  # DeiT-Ti's
    ],
)
def test_a_network_has_its_published_number_of_parameters(
    name: str, classes: int, size: int, count: int
) -> None:
    assert parameters(name, classes, size) == count


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnet1", 2),
        ("convnet3-w8", 33),
        ("convnet5-w8", 32),
        ("resnet18-w4", 40),
        ("resnet18-small-w4", 16),
        ("resnet50-small-w2", 8),
        ("mobilenetv2", 32),
        ("mobilenetv2-small", 16),
        ("vit-tiny", 16),
    ],
)
def test_logits_have_a_column_for_each_class(name: str, size: int) -> None:
    network = find_architecture(name).new(7, size)
    assert network(torch.randn(3, 3, size, size)).shape == (3, 7)


@pytest.mark.parametrize("name", ["", "convnet", "convnet0", "convnet3-w0", "resnet34", "vit-tiny-w8"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="There is no student"):
        find_architecture(name)


@pytest.mark.parametrize(("name", "size"), [("convnet5", 31), ("vit-tiny", 15), ("vit-tiny", 33)])
def test_a_network_refuses_views_that_are_too_small(name: str, size: int) -> None:
    with pytest.raises(SettingsError, match=f"{size} pixels"):
        check_architecture(name, 10, size)


# What a user's module or a plug-in may look like.
LINEAR = """
from torch import nn

def linear(classes, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))
"""
GROUP = "fgdd_fast.students"


def own(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, code: str = LINEAR) -> None:
    """Write a module, and put its folder on the search path."""
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))


def train(name: str, checkpoints: Path) -> StudentResult:
    recipe = replace(RECIPE, epochs=2)
    return train_students(
        training_set(2), validation_set(2), [Student(name, 0)], recipe, checkpoints=checkpoints
    )[0]


def test_a_users_own_network_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own(monkeypatch, tmp_path, "my_linear_net")
    check_architecture("my_linear_net:linear", 8, SIZE)
    result = train("my_linear_net:linear", tmp_path / "kept")
    assert result.parameters == 8 * (3 * SIZE**2 + 1)
    assert len(result.losses) == 2
    assert str(result.to_json()["origin"]).startswith("my_linear_net:linear sha256:")
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["my_linear_net:linear-seed0.pt"]
    assert train("my_linear_net:linear", tmp_path / "kept").losses == result.losses
    (tmp_path / "my_linear_net.py").write_text(f"{LINEAR}# changed")
    with pytest.raises(DataError, match="of another network of this name"):
        train("my_linear_net:linear", tmp_path / "kept")


@pytest.mark.parametrize("attribute", ["linear", "PLUGIN"])
def test_a_plugins_network_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, attribute: str
) -> None:
    module = f"plugin_of_{attribute.lower()}"
    described = (
        f"{LINEAR}\nfrom fgdd_fast.students.architectures import Architecture\n"
        "PLUGIN = Architecture('any', linear, learning_rate=0.5)\n"
    )
    for version in ("1.2", "1.3"):
        place = tmp_path / version
        place.mkdir()
        with monkeypatch.context() as patch:
            plugin = {"group": GROUP, "name": "toy", "module": module, "code": described}
            install_plugin(patch, place, **plugin, attribute=attribute, version=version)
            check_architecture("toy", 8, SIZE)
            if version == "1.2":
                assert train("toy", tmp_path / "kept").to_json()["origin"] == f"{module} 1.2"
                assert find_architecture("toy").learning_rate == (1e-3 if attribute == "linear" else 0.5)
                continue
            with pytest.raises(DataError, match=f"{module} 1.2, not {module} 1.3"):
                train("toy", tmp_path / "kept")


def test_what_is_built_in_has_no_origin(tmp_path: Path) -> None:
    """So its checkpoints and results are what they were before there were others."""
    assert "origin" not in train("convnet1-w4", tmp_path).to_json()
    state = torch.load(tmp_path / "convnet1-w4-seed0.pt", weights_only=True)
    assert [*state] == ["epochs", "curve", "losses", "seconds", "predictions", "network", "optimizer", "key"]
    key = training_key(training_set(2), validation_set(2), RECIPE)
    assert key == "6c11e1d4e3e565ea2f4368dc1fcb921a63f0a8433d7e3b629ca4f5942c0ca6f6"


@pytest.mark.parametrize(
    ("name", "code", "problem"),
    [
        ("no_such_module:net", None, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("own_lacking:net", "", "has no 'net'"),
        ("own_broken:net", "1 / 0", "ZeroDivisionError"),
        ("own_uncallable:net", "net = 3", "is a int, and not a function"),
        ("own_raising:net", "def net(*_): raise KeyError('x')", "for 8 classes and 12 pixels: KeyError"),
        ("own_arguments:net", "def net(): pass", "TypeError"),
        ("own_other:net", "def net(*_): return 3", "gives a int, and not a torch.nn.Module"),
        ("own_shape:net", f"{LINEAR}\nnet = lambda n, size: linear(n + 1, size)", r"gives \[2, 9\]"),
        ("own_size:net", f"{LINEAR}\nnet = lambda n, size: linear(n, 5)", "cannot be shown"),
    ],
)
def test_a_users_own_network_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, code: str | None, problem: str
) -> None:
    if code is not None:
        own(monkeypatch, tmp_path, name.removesuffix(":net"), code)
    with pytest.raises(SettingsError, match=problem) as refusal:
        check_architecture(name, 8, SIZE)
    assert name.removesuffix(":net") in refusal.value.problem


def test_the_working_folder_is_not_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own_in_folder.py").write_text(LINEAR)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="cannot be imported") as refusal:
        check_architecture("own_in_folder:linear", 8, SIZE)
    assert "PYTHONPATH" in refusal.value.advice


def test_a_broken_plugin_is_named_and_never_fatal_for_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = {"module": "plugin_of_broken", "code": "raise RuntimeError('old')\n"}
    install_plugin(monkeypatch, tmp_path, group=GROUP, name="broken", **code)
    check_architecture("convnet1", 8, SIZE)
    with pytest.raises(FgddError, match=r"'broken' of plugin_of_broken 1\.2 .*RuntimeError: old"):
        check_architecture("broken", 8, SIZE)
    with pytest.raises(SettingsError, match="vit-tiny, broken"):
        check_architecture("unknown", 8, SIZE)
