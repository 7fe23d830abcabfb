"""Commands that judge: students, speed, this machine."""

__all__ = ["bench", "doctor", "evaluate"]
