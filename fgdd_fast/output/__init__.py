"""What distilling writes, and reading it back: mosaics, manifest, folder, contact sheet."""

__all__ = [
    "contact_sheet",
    "distilled",
    "folder",
    "manifest",
    "manifest_reading",
    "mosaic",
    "sheet",
    "writing",
]
