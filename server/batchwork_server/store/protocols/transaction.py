"""What writes belong together in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A write transaction that is open.

    Attributes:
        connection: The store's business; everybody else only hands it on.
        after_commit: Called in order as soon as the transaction is durable, also when whoever
            opened it is cancelled in that moment. What is durable is told, or nobody would look.
    """

    connection: Any
    after_commit: list[Callable[[], None]] = field(default_factory=list)
