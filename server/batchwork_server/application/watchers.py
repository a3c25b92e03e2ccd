"""How many watches a server holds at once, whatever they watch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from batchwork_server.errors import QuotaExceeded

_COME_BACK = timedelta(seconds=5)


class Watchers:
    """Counts the watches of a server together, those of batches and those of changes.

    Args:
        most: So many at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts one more for as long as the block lasts.

        Raises:
            QuotaExceeded: there are too many.
        """
        if self._count >= self._most:
            raise no_room_for_more(f"{self._count} watchers")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


def no_room_for_more(watchers: str) -> QuotaExceeded:
    """Returns what is said to one watcher too many.

    Args:
        watchers: How many there are, of which kind.
    """
    return QuotaExceeded(
        f"This server has {watchers}, and no room for more.",
        reason="QUOTA_WATCHERS",
        subject="watchers",
        retry_after=_COME_BACK,
    )
