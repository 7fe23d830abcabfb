"""Record what the original PyTorch EfficientNet-lite0 gives for the drawn images.

Needs torch and the architecture's package (efficientnet-lite-pytorch 0.1.0); writes the logits that ship with
fgdd_fast, and features and logits at two sizes for the tests:

    python tests/data/make_efficientnet_golden.py efficientnet-lite0-57934424.pth
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_export.graphs.parity import drawn_images

TESTS_GOLDEN = Path(__file__).parent / "efficientnet_lite0_golden.npz"
PACKAGE_GOLDEN = Path(__file__).parents[2] / "export/fgdd_export/catalogue/efficientnet_lite0_golden.json"


def original_outputs(checkpoint: Path, images: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features [n, 1280] and logits [n, 1000] of the original network, padding for the images' own size."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=images.shape[1])
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    network.eval()
    planes = torch.from_numpy((images.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = network.extract_features(planes).mean(dim=(2, 3))
        return features.numpy(), network(planes).numpy()


def main(checkpoint: Path) -> None:
    """Write both golden files."""
    features, logits = original_outputs(checkpoint, drawn_images(224, 224))
    rows = [[round(float(value), 5) for value in row] for row in logits]
    golden = {"reference": "efficientnet-lite-pytorch 0.1.0, drawn_images(224, 224)", "logits": rows}
    PACKAGE_GOLDEN.write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    small_features, small_logits = original_outputs(checkpoint, drawn_images(112, 112))
    np.savez_compressed(
        TESTS_GOLDEN,
        features_224=features,
        logits_224=logits,
        features_112=small_features,
        logits_112=small_logits,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
