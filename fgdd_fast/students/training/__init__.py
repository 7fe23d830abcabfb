"""Train students by RDED's recipe, so that a stopped run goes on to the same bits."""

__all__ = ["loop", "recipe"]
