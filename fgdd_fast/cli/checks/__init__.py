"""Commands that judge: students, speed, this machine."""

__all__ = ["bench", "cache", "doctor", "evaluate"]
