"""How long items take, as workers have measured it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredAttempts:
    """How long attempts at items of one template took.

    Attributes:
        count: How many attempts, at least one.
        micros: How long all of them took together, in microseconds.
    """

    tenant_id: str
    template_id: str
    count: int
    micros: int
