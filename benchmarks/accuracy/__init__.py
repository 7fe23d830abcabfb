"""Whether distilled data teach: selections, their controls, their students, and the statistics of these."""
