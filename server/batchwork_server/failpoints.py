"""Named points in the work at which a test can make the process die, fail, or stand still.

Nothing is armed unless a test arms it; then a point costs one look at an empty dict. A test finds
points that no test uses.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Literal

Fault = Literal["kill", "exit", "raise", "sleep"]
"""What a process meets; one that sleeps stands still, once, until it gets SIGCONT."""

POINTS = frozenset(
    {
        "create.committed",
        "upload.committed",
        "seal.committed",
        "claim.committed",
        "processor.succeeded",
        "record.begun",
        "record.committed",
        "pause.committed",
        "resume.committed",
        "cancel.committed",
        "close.committed",
        "retry.committed",
        "retention.committed",
        "fire.committed",
        "fill.committed",
        "notification.sent",
    }
)


class Failpoint(Exception):
    """A test asked for it."""


_armed: dict[str, Callable[[], None]] = {}


def arm(name: str, fault: Fault, *, after: int = 0) -> None:
    """Makes the process meet a fault at a point, when it was passed ``after`` times before."""
    if name not in POINTS:
        raise LookupError(f"There is no failpoint {name!r}; there are {sorted(POINTS)}.")
    left = after

    def meet() -> None:
        nonlocal left
        left -= 1
        if left == -1 or (left < 0 and fault != "sleep"):
            _meet(name, fault)

    _armed[name] = meet


def disarm() -> None:
    """Makes every point harmless again."""
    _armed.clear()


def reach(name: str) -> None:
    """Says that the process is at a point."""
    if _armed and name in _armed:
        _armed[name]()


def _meet(name: str, fault: Fault) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "exit":
        os._exit(70)
    if fault == "sleep":
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    raise Failpoint(name)
