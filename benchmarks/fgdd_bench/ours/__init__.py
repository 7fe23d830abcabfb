"""This project, as the benchmark runs it: through an ordinary pipeline, and stage by stage."""

__all__ = ["grounded_parts", "mosaics", "pipeline"]
