"""Train miniatures of Grounding DINO and SAM 2 on drawn scenes; from the root of a checkout:

PYTHONPATH=tests/support python -m miniatures.training OUT --json benchmarks/results/miniatures.json
"""
