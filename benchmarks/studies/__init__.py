"""Studies: each answers one question and writes a result; `study.py` says how to add one."""
