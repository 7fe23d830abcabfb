"""Settings of all tests."""

from hypothesis import settings

# A busy machine is slow; what a test finds must not depend on that.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
