"""Foregrounds that are known before any network looks: drawn, annotated, or in the images themselves."""

__all__ = ["alpha", "annotated", "coco", "given", "masks", "yolo"]
