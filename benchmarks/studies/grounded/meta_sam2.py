"""Does the exported SAM 2 find what Meta's own package finds with the same checkpoint?

    python -m benchmarks.studies.grounded.meta_sam2 DATA --checkpoint FILE --json meta-sam2.json

Asks Meta's `SAM2ImagePredictor` and the exported graph for the same boxes of each photograph: once both see
the same square, so that nothing but the networks differs; and once each makes its own of the photograph.
Without a checkpoint, Meta's code saves one of the tiny size with random weights. Needs the extras `export`,
`cpu` and `sam2`; three transforms of torchvision, which does not run beside every PyTorch, have stand-ins.
Kept result: `meta-sam2.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.study import Study, data_argument, number_option, read_images, study
from fgdd_engines.optional_imports import import_optional
from fgdd_export.checkpoints.pretrained import read_tensors
from fgdd_export.checkpoints.sam2_checkpoint import find_size
from fgdd_export.graphs.graph import load_model, serialise
from fgdd_export.graphs.parity import mask_iou
from fgdd_export.graphs.torch_export import export_network
from fgdd_export.grounded_sam2.occupancy import ForegroundSegmenter, segmenter_network
from fgdd_export.sam2.bundle import BOXES
from fgdd_export.sam2.network import ImageEncoder, MaskDecoder, encoder_example, load_sam2
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import resize
from fgdd_fast.models.foreground import Pixels
from fgdd_fast.runtime.tolerances import same_path

CONFIGURATIONS = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
COLUMNS = {"size": "d", "seen": "", "mean_mask_iou": ".5f", "least_mask_iou": ".5f"}
COLUMNS |= {"mean_occupancy_error": ".6f", "max_occupancy_error": ".6f", "same_path": ".1%"}


@study
@data_argument
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="A .pt file of Meta's; else random weights."
)
@click.option("--size", "sizes", multiple=True, type=int, default=(1024,), show_default=True, help="Pixels.")
@number_option("--pool", None, "Images of each class; all by default.")
def main(study: Study, data: Path, checkpoint: Path | None, sizes: tuple[int, ...], pool: int | None) -> None:
    """Compare the exported SAM 2 with Meta's own on the images of DATA."""
    _, images = read_images(data, pool)
    pixels = [read_image(image.path).pixels for image in images]
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        file = checkpoint or save_random(Path(folder, "sam2.1_hiera_tiny.pt"))
        for size in sizes:
            predictor, segment = load_predictor(file, size), export_segmenter(file, size)
            for seen in study.track(("the same square", "the photograph"), f"{size} pixels"):
                shown = (
                    [resize(each, (size, size), "area") for each in pixels] if "square" in seen else pixels
                )
                rows.append({"size": size, "seen": seen, **compare(predictor, segment, shown, size)})
    weights = "random" if checkpoint is None else checkpoint.name
    study.report(rows, COLUMNS, weights=weights, images=len(images), boxes=len(BOXES))


def compare(
    predictor: Any, segment: Callable[[Mapping[str, Any]], dict[str, Any]], images: list[Pixels], size: int
) -> dict[str, float]:
    """Segment `BOXES` of each image with both, and compare the union of their masks and its share."""
    overlaps, occupancies, expected = [], [], []
    for pixels in images:
        height, width = pixels.shape[:2]
        predictor.set_image(pixels)
        boxes = BOXES * np.array([width, height, width, height], np.float32)
        masks, _, logits = predictor.predict(box=boxes, multimask_output=False)
        square = resize(pixels, (size, size), "area")
        feeds = {"images": square[None], "boxes": BOXES[None], "scores": np.ones((1, len(BOXES)), np.float32)}
        found = segment(feeds)
        overlaps.append(mask_iou((logits[:, 0] > 0).any(0), found["mask"][0] > 127))
        expected.append(float((masks[:, 0] > 0).any(0).mean()))
        occupancies.append(float(found["occupancy"][0]))
    errors = np.abs(np.array(expected) - occupancies)
    return {
        "mean_mask_iou": float(np.mean(overlaps)),
        "least_mask_iou": min(overlaps),
        "mean_occupancy_error": float(errors.mean()),
        "max_occupancy_error": float(errors.max()),
        "same_path": float(same_path(np.array(expected), np.array(occupancies)).mean()),
    }


def export_segmenter(checkpoint: Path, size: int) -> Callable[[Mapping[str, Any]], dict[str, NDArray[Any]]]:
    """Our graph of a checkpoint, from squares and boxes to mask and occupancy."""
    sam = load_sam2(str(checkpoint)).at_size(size)
    segmenter = ForegroundSegmenter(ImageEncoder(sam), MaskDecoder(sam), size)
    boxes = len(BOXES)
    example = (*encoder_example(sam), torch.rand(2, boxes, 4), torch.ones(2, boxes))
    return load_model(serialise(export_network(segmenter_network(segmenter, boxes), example).model))


def load_predictor(checkpoint: Path, size: int) -> Any:
    """Meta's `SAM2ImagePredictor` of a checkpoint, for squares of `size` pixels."""
    content = read_tensors(checkpoint)
    name = find_size(checkpoint, content.get("model", content))
    predictor = _predictor_class()(_build(name, size, str(checkpoint)))
    predictor._bb_feat_sizes = [(size // stride,) * 2 for stride in (4, 8, 16)]  # a constant for 1024 there
    return predictor


def save_random(path: Path) -> Path:
    """Save Meta's tiny network with random weights that keep the variance of activations, as Meta does."""
    torch.manual_seed(0)
    network = _build("tiny", 1024, None)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if weights.ndim == 1:
                weights.add_(torch.randn_like(weights) * 0.1)
            elif name.endswith(("pos_embed", "pos_embed_window", "no_mem_embed")):
                weights.normal_(0, 0.2)
            elif "embed" not in name or "proj" in name:
                weights.normal_(0, weights[0].numel() ** -0.5)
    torch.save({"model": network.state_dict()}, path)
    return path


def _build(name: str, size: int, checkpoint: str | None) -> Any:
    import_optional("sam2", "sam2")
    build = import_module("sam2.build_sam").build_sam2
    configuration = f"configs/sam2.1/sam2.1_hiera_{CONFIGURATIONS[name]}.yaml"
    return build(configuration, checkpoint, "cpu", hydra_overrides_extra=[f"++model.image_size={size}"])


def _predictor_class() -> Any:
    """`SAM2ImagePredictor`; where torchvision cannot be imported, stand-ins are there meanwhile."""
    transforms: Any = ModuleType("torchvision.transforms")
    transforms.ToTensor, transforms.Resize, transforms.Normalize = ToTensor, Resize, Normalize
    stand_ins = {"torchvision": ModuleType("torchvision"), transforms.__name__: transforms}
    try:
        import_module(transforms.__name__)
    except (ImportError, RuntimeError):  # absent, or built for another PyTorch
        sys.modules.update(stand_ins)
    try:
        return import_module("sam2.sam2_image_predictor").SAM2ImagePredictor
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class ToTensor:
    """An image, uint8 [height, width, 3], as planes in [0, 1]."""

    def __call__(self, image: Pixels) -> Tensor:
        return torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous() / 255


class Resize(nn.Module):
    """Bilinear, with antialiasing, as torchvision's is by default for tensors."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, planes: Tensor) -> Tensor:
        """Planes [channels, height, width] at the size."""
        size = [self.height, self.width]
        return functional.interpolate(
            planes[None], size, mode="bilinear", align_corners=False, antialias=True
        )[0]


class Normalize(nn.Module):
    """Subtract each channel's mean, and divide by its standard deviation."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def forward(self, planes: Tensor) -> Tensor:
        """Planes [channels, height, width], normalised."""
        return (planes - self.mean) / self.std


if __name__ == "__main__":
    main()
