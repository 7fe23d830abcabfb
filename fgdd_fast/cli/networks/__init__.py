"""Commands about models: pull, fit, export, convert, build engines."""

__all__ = ["convert", "engine", "export", "models", "teacher"]
