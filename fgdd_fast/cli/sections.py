"""Which commands there are, by task, where they lie, and what each does in a sentence."""

from __future__ import annotations

from collections.abc import Mapping

SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Distil": {
        "demo": ("distillation.demo", "Try everything on drawn pictures, or on your own photographs."),
        "check": ("checks.check", "Find what is odd about the images of DATA."),
        "measure": ("distillation.measure", "Measure the images of DATA, so that deciding is quick."),
        "distill": ("distillation.distill", "Distil the images of DATA into mosaics, in the folder OUT."),
        "stream": ("distillation.stream", "Distil a camera, a video or a folder that grows."),
        "merge": ("distillation.stream", "Merge distilled streams, such as those of several boards."),
    },
    "Look and trust": {
        "report": ("distillation.report", "Write a page that shows what was taken, and why."),
        "sheet": ("distillation.sheet", "Draw a contact sheet of what was taken."),
        "verify": ("distillation.verify", "Check a distilled data set before you rely on it."),
        "forget": ("distillation.forget", "Take withdrawn photographs out of a distilled data set."),
    },
    "Train students": {
        "label": ("distillation.label", "Store the teacher's soft labels for a distilled data set."),
        "evaluate": ("checks.evaluate", "Train students on DATA, and judge them on held-out images."),
        "pack": ("distillation.pack", "Repack a distilled data set for another library."),
    },
    "Networks": {
        "models": ("networks.models", "List, fetch and check the models of the catalogue."),
        "teacher": ("networks.teacher", "Fit a teacher on your own images, or check one."),
        "bundle": ("networks.bundle", "Make bundles of ONNX files, and pack bundles for a board."),
        "export": ("networks.export", "Turn PyTorch networks into bundles that run without it."),
        "convert": ("networks.convert", "Make variants of a network in lower precision."),
        "tune": ("networks.tune", "Find the fastest arithmetic that decides alike on your images."),
        "engine": ("networks.engine", "Build TensorRT engines on this device, and look after them."),
    },
    "This machine": {
        "doctor": ("checks.doctor", "Find out what this machine can run, and what is missing."),
        "bench": ("checks.bench", "Measure how fast this project is here, against PyTorch."),
        "cache": ("checks.cache", "List what the cache keeps, and remove what nobody needs."),
        "completion": ("completion", "Print the script by which a shell completes commands."),
    },
}
"""By task and command: its module within this package, which is imported when the command is named; and the
first sentence of its help, said here as well so that a list of commands imports none of them."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    name: entry for commands in SECTIONS.values() for name, entry in commands.items()
}
