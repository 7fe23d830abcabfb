#!/usr/bin/env bash
# Makes what lies beside this file, by version 0.1 of the project; see README.md.
#
#   make.sh PYTHON SOURCES FOLDER
#
# PYTHON has version 0.1 installed, from the checkout SOURCES; FOLDER is made anew.
set -euo pipefail
python=$(realpath --no-symlinks "$1") sources=$(realpath "$2") folder=$3
rm -rf "$folder"
mkdir -p "$folder/models"
cd "$folder"
export FGDD_FAST_CACHE=$PWD/cache PYTHONPATH=$sources/tests

# What no command makes: the pictures, the models that a teacher begins with, and a plan that was never built.
"$python" - <<'END'
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import plan_files
import tiny_convolutions
import tiny_grounded
import tiny_pipeline

from fgdd_fast.engines.base import TensorSpec
from fgdd_fast.engines.bundle import write_bundle
from fgdd_fast.engines.plan_store import PlanStore

models = Path("models")
tiny_pipeline.write_squares(Path("data"), 5)
tiny_pipeline.write_squares(Path("more"), 60)  # five are too few to fit a teacher on
tiny_pipeline.foreground_bundle(models)
tiny_grounded.write_grounded_bundle(models)
plan_files.stored(PlanStore(Path("engines")), content=b"kernels")

layers = tiny_convolutions.Layers(0)
build, three = layers.builder, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}
signs = np.zeros((6, 3, 3, 3))  # each channel, and what it lacks of the pad value
for channel in range(3):
    signs[2 * channel : 2 * channel + 2, channel] = np.array([1, -1])[:, None, None] / 9
planes = build.node("Conv", layers.planes(), build.constant(signs), **three)
for _ in range(2):
    blur = build.constant(np.full((6, 1, 3, 3), 1 / 9))
    planes = build.node("Conv", build.node("Relu", planes), blur, group=6, **three)
Path("unused").mkdir()
classifier = layers.bundle(Path("unused"), build.node("Relu", planes), 6)
backbone = replace(
    classifier,
    onnx=models / "backbone.onnx",
    name="backbone",
    role="backbone",
    inputs=classifier.inputs[:1],
    outputs=(TensorSpec("features", "float32", ("batch", 6)),),
    classes=None,
)
graph = onnx.utils.Extractor(onnx.load(classifier.onnx)).extract_model(["images"], ["features"])
write_bundle(backbone, graph.SerializeToString())
END

fgdd() { "$python" -m fgdd_fast "$@"; }
runtime=(--device cpu --precision fp32 --batch 1 --threads 1)
teacher=models/teacher.onnx
fgdd teacher fit more -o "$teacher" --backbone models/backbone.onnx "${runtime[@]}"
fgdd teacher tile "$teacher" --tile 32
fgdd convert "$teacher" --precision int8 --calibrate data --check data --check-images 4

# Pillow's way of resizing is computed by NumPy, so that the keys of the store say nothing of the processor.
measured=(--size 64 --crops 3 --resize pil --ipc 1 --teacher "$teacher" --store store "${runtime[@]}")
printf 'red\tred patch, red\n' > prompts.txt
fgdd distill data out --foreground models/tiny-foreground.onnx --ranking stratified-kmeans --near-duplicates 2 \
    --rule median --score-view pad "${measured[@]}"
fgdd distill data asked --foreground models/tiny-grounded.onnx --prompts prompts.txt --box-threshold 0.3 \
    "${measured[@]}"
fgdd label out --teacher "$teacher" --epochs 2 "${runtime[@]}"
fgdd label asked --teacher "$teacher" --epochs 1 --compress top:2 "${runtime[@]}"
rm -rf more unused cache
