"""The networks that can be students, by name.

A name is one of the families that are built in; or of a plug-in, which a package offers as an entry point of
the group `fgdd_fast.students`; or `module:function`, a user's own. The latter two are functions:

    def new(classes: int, size: int) -> torch.nn.Module: ...

The network has random weights, and gives logits [batch, classes] for images [batch, 3, size, size] that are
normalised by ImageNet's mean and standard deviation. A plug-in may be an `Architecture` as well, which says
how fast it learns. PyTorch is imported when a network is made.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.plugins import STUDENTS, find_plugins
from fgdd_fast.errors import FgddError, SettingsError

if TYPE_CHECKING:
    from torch import nn

_TO_IMPORT = "It is imported as Python does it: install it, or name its folder in the variable PYTHONPATH."


@dataclass(frozen=True)
class Architecture:
    """A network, and how it is trained best.

    Attributes:
        name: by which it is asked for.
        new: makes it, with random weights, for a number of classes and views of a size in pixels.
        learning_rate: AdamW's at first: RDED's for it, or for the nearest of RDED's students.
        channels_last: the kinds of devices that train it faster with the channels of a pixel side by side; a
            network that reshapes its maps by `view` takes no such images.
        origin: who it is where it is not built in, such as a distribution and its version: a checkpoint of a
            student of another origin is refused.
    """

    name: str
    new: Callable[[int, int], nn.Module]
    learning_rate: float = 1e-3
    channels_last: tuple[str, ...] = ()
    origin: str | None = None


@dataclass(frozen=True)
class _Family:
    """Networks that are built in.

    Attributes:
        names: the usual ones.
        pattern: of all names; its groups tell them apart.
        new: makes the network of a name that matches, for a number of classes and a size.
        learning_rate, channels_last: see `Architecture`.
    """

    names: tuple[str, ...]
    pattern: str
    new: Callable[[re.Match[str], int, int], nn.Module]
    learning_rate: float
    channels_last: tuple[str, ...] = ("cpu", "cuda")


def find_architecture(name: str) -> Architecture:
    """Return the architecture of a name.

    `convnet<depth>` and the ResNets may be followed by `-w<width>` for other channels than 128 and 64.
    `-small`, before that, is the form for views of 64 pixels and less, whose stem keeps their size.

    Raises:
        SettingsError: there is none of this name, or a user's own cannot be imported.
        PluginError: it is a plug-in's, which cannot be imported.
    """
    for family in FAMILIES:
        if match := re.fullmatch(family.pattern, name):
            return Architecture(name, partial(family.new, match), family.learning_rate, family.channels_last)
    if ":" in name:
        function, origin = _import(name)
        return _foreign(name, function, origin)
    plugins = find_plugins(STUDENTS)
    if name in plugins:
        return _foreign(name, plugins[name].load(object), str(plugins[name]))
    raise SettingsError(
        f"There is no student {name!r}",
        f"There are {', '.join((*NAMES, *plugins))}. One of your own is named as module:function.",
    )


def check_architecture(name: str, classes: int, size: int) -> None:
    """Make sure that a student of some classes can see views of a size in pixels.

    A network that is not built in is shown two images.

    Raises:
        SettingsError: there is no such student, or it cannot.
        PluginError: it is a plug-in's, which cannot be imported.
    """
    import torch  # noqa: PLC0415 - for those alone who train

    architecture = find_architecture(name)
    if architecture.origin is None:
        with torch.device("meta"):  # shapes alone: nothing is allocated
            architecture.new(classes, size)
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = architecture.new(classes, size).eval()
        try:
            logits: Any = network(torch.zeros(2, 3, size, size))
        except Exception as error:  # whatever code of others raises
            raise SettingsError(
                f"The student {name!r} cannot be shown images [2, 3, {size}, {size}]: {_told(error)}"
            ) from error
    shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != [2, classes]:
        raise SettingsError(
            f"The student {name!r} gives {shape} for images [2, 3, {size}, {size}], and not logits "
            f"[2, {classes}], one for each class"
        )


def _import(name: str) -> tuple[object, str]:
    """A user's own function, and who it is: its name, and its file's hash."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever code of others raises
        raise SettingsError(
            f"The module {module_name!r} of the student {name!r} cannot be imported: {_told(error)}",
            _TO_IMPORT,
        ) from error
    if not hasattr(module, attribute):
        raise SettingsError(f"The module {module_name!r}, which is {module.__file__}, has no {attribute!r}")
    value = getattr(module, attribute)
    named = inspect.isfunction(value) or inspect.isclass(value)
    file = getattr((inspect.getmodule(value) if named else None) or module, "__file__", None)
    return value, f"{name} sha256:{file and file_sha256(Path(file))}"


def _foreign(name: str, value: object, origin: str) -> Architecture:
    """The architecture of other people's code, whose errors are explained when it makes a network."""
    given = value if isinstance(value, Architecture) else None
    function = value if given is None else given.new
    if not callable(function):
        raise SettingsError(
            f"The student {name!r} is a {type(value).__name__}, and not a function",
            "It is called with the number of classes and the side of an image in pixels.",
        )

    def new(classes: int, size: int) -> nn.Module:
        from torch import nn  # noqa: PLC0415 - for those alone who train

        try:
            network = function(classes, size)
        except FgddError:
            raise
        except Exception as error:  # whatever code of others raises
            raise SettingsError(
                f"The student {name!r} cannot be made for {classes} classes and {size} pixels: {_told(error)}"
            ) from error
        if not isinstance(network, nn.Module):
            raise SettingsError(
                f"The student {name!r} gives a {type(network).__name__}, and not a torch.nn.Module"
            )
        return network

    return replace(given or Architecture(name, new), name=name, new=new, origin=origin)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _convnet(match: re.Match[str], classes: int, size: int) -> nn.Module:
    from fgdd_fast.nn.convnet import ConvNet  # noqa: PLC0415 - imports PyTorch

    depth, width = int(match[1]), int(match[2] or 128)
    if size >> depth == 0:
        raise SettingsError(
            f"convnet{depth} halves an image {depth} times, and {size} pixels are too few for that",
            "Name a ConvNet with fewer layers.",
        )
    return ConvNet(depth, width, 3, classes, size >> depth)


def _resnet(match: re.Match[str], classes: int, _: int) -> nn.Module:
    from fgdd_fast.nn.resnet import BasicBlock, Bottleneck, ResNet  # noqa: PLC0415 - imports PyTorch

    small, width = bool(match[2]), int(match[3] or 64)
    if match[1] == "18":
        return ResNet((2, 2, 2, 2), width, 3, classes, block=BasicBlock, small=small)
    return ResNet((3, 4, 6, 3), width, 3, classes, block=Bottleneck, small=small)


def _mobilenet(match: re.Match[str], classes: int, _: int) -> nn.Module:
    from fgdd_fast.nn.mobilenet import MobileNetV2  # noqa: PLC0415 - imports PyTorch

    return MobileNetV2(3, classes, small=bool(match[1]))


def _vit_tiny(_: re.Match[str], classes: int, size: int) -> nn.Module:
    """Patches of 16 pixels, or smaller ones where a side would have fewer than 8 of them."""
    from fgdd_fast.nn.vision_transformer import VisionTransformer  # noqa: PLC0415 - imports PyTorch

    patch = next((patch for patch in (16, 8, 4, 2) if size % patch == 0 and size >= 8 * patch), None)
    if patch is None:
        raise SettingsError(
            f"vit-tiny needs at least 8 whole patches of 2, 4, 8 or 16 pixels along {size} pixels",
            "Name another student, or a --size such as 32, 64 or 224.",
        )
    return VisionTransformer(size, patch, classes)


FAMILIES = (
    _Family(
        ("convnet3", "convnet4", "convnet5"),
        r"convnet([1-9])(?:-w([1-9]\d*))?",
        _convnet,
        1e-3,
        channels_last=("cuda",),
    ),
    _Family(
        ("resnet18", "resnet18-small", "resnet50", "resnet50-small"),
        r"resnet(18|50)(-small)?(?:-w([1-9]\d*))?",
        _resnet,
        1e-3,
    ),
    _Family(("mobilenetv2", "mobilenetv2-small"), r"mobilenetv2(-small)?", _mobilenet, 2.5e-3),
    _Family(("vit-tiny",), "vit-tiny", _vit_tiny, 1e-4),
)
NAMES = tuple(name for family in FAMILIES for name in family.names)
