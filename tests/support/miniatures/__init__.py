"""Train miniatures of Grounding DINO and SAM 2 on drawn scenes: `python -m miniatures.training`."""
