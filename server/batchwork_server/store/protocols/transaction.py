"""What writes belong together in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A write transaction that is open.

    Attributes:
        connection: The store's business; everybody else only hands it on.
    """

    connection: Any
