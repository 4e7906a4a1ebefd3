"""Settings that all tests share."""

from hypothesis import settings

# Tests assert no timing, Hypothesis' per-example deadline included.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")
