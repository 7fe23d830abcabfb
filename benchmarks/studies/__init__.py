"""Studies: each answers one question and writes a result; run one as a module."""
