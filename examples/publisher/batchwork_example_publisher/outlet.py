"""A stand-in for a service that publishes posts; nothing leaves the process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A post that is out.

    Attributes:
        publication_id: Follows from the idempotency key alone.
    """

    publication_id: str
    text: str


class Outlet:
    """Publishes once per idempotency key, as a good service does.

    It keeps what it published in memory, without a bound, and forgets it with the process.
    """

    def __init__(self) -> None:
        self._publications: dict[str, Publication] = {}

    @property
    def publications(self) -> list[Publication]:
        """What is out, in the order in which it came."""
        return list(self._publications.values())

    async def publish(self, text: str, *, idempotency_key: str) -> Publication:
        """Publishes the text, or returns what the same key published before."""
        if idempotency_key not in self._publications:
            self._publications[idempotency_key] = Publication(
                publication_id=f"pub_{_digest(idempotency_key)}", text=text
            )
        return self._publications[idempotency_key]


def _digest(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
