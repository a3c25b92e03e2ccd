"""How far tests go that could always go further: ``LONG_TESTS=1`` has them go as far as they say.

Without it they leave a change of every day its few minutes.
"""

from __future__ import annotations

import os

LONG = "LONG_TESTS" in os.environ


def times(few: int, *, long: int) -> int:
    """Returns how many kills, stops or examples a test is to have."""
    return long if LONG else few
