"""Run a bundle in OpenVINO on the CPU."""

__all__ = ["backend"]
