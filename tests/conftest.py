"""Settings of all tests."""

import os

from hypothesis import settings

# The tests' networks are so small that threads cost more than they bring; read when PyTorch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is slow; what a test finds must not depend on that.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
