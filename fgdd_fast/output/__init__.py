"""What distilling writes, and reading it back: mosaics, manifest, folder, contact sheet,
the record of a run."""

__all__ = [
    "distilled",
    "folder",
    "hashes",
    "manifest",
    "manifest_reading",
    "mosaic",
    "outlines",
    "report",
    "run_record",
    "writing",
]
