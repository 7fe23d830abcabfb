"""Find out what this machine can run, by running something on it."""

__all__ = ["nvidia", "probe_graph", "probes"]
