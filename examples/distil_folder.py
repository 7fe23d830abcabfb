"""Distil a folder of photographs, and look at the plan before it is written.

    python examples/distil_folder.py DATA OUT --ipc 10

DATA has one folder of images for each class. Needs: pip install 'fgdd-fast[demo]'
"""

import argparse
import logging
from pathlib import Path

import fgdd_fast


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil a folder of photographs.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, default="teacher.onnx", help="fitted where it is not there")
    parser.add_argument("--ipc", type=int, default=10, help="mosaics per class")
    parser.add_argument("--rule", default="quantile:0.3", help="which images are kept whole")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    fgdd_fast.pull_model("saliency-u2netp")
    if not options.teacher.exists():
        fgdd_fast.pull_model("imagenet-efficientnet-lite0")
        fitted = fgdd_fast.fit_teacher(options.data, options.teacher)
        print(f"Teacher: {fitted.accuracy.top1:.1%} of the held-out images are right")

    with fgdd_fast.open_pipeline(
        options.data, teacher=options.teacher, foreground="saliency-u2netp"
    ) as pipeline:
        measured = pipeline.measure()
        print(f"{measured.measured} images measured, {len(measured.skipped)} skipped")
        plan = pipeline.plan(ipc=options.ipc, rule=options.rule)
        for part in plan.classes:
            threshold = part.selection.threshold
            whole = sum(tile.occupancy >= threshold for tile in part.selection.tiles)
            total = len(part.selection.tiles)
            print(f"{part.name}: whole from occupancy {threshold:.2f} on; {whole} of {total} tiles are whole")
        pipeline.write(plan, options.out)
    sheet = options.out.with_name(f"{options.out.name}-sheet.png")
    fgdd_fast.draw_contact_sheet(options.out, options.data, sheet)
    print(f"Look at {sheet}")


if __name__ == "__main__":
    main()
