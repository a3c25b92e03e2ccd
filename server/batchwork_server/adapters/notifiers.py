"""From the operator's file to the targets that requests may name, and what sends to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchwork_server.adapters.destinations import Destinations
from batchwork_server.adapters.notification_file import (
    NotificationFile,
    TargetEntry,
    problems_of,
    read_notification_file,
)
from batchwork_server.clock import Clock
from batchwork_server.domain.notification import NO_TARGETS, NotificationTargets
from batchwork_server.errors import ConfigurationError, Violation
from batchwork_server.ports import Notifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifiers:
    """The targets, and by their names what sends to them."""

    targets: NotificationTargets
    by_name: Mapping[str, Notifier]

    async def close(self) -> None:
        """Ends the connections of all."""
        for notifier in self.by_name.values():
            await notifier.close()


NO_NOTIFIERS = Notifiers(targets=NO_TARGETS, by_name={})
"""What a server has whose operator names nobody."""


def open_notifiers(path: Path, *, clock: Clock, allow_clear_text: bool) -> Notifiers:
    """Reads the file and puts together what sends to its targets; nothing is sent yet.

    Raises:
        ConfigurationError: something is wrong with the file, or a library is not installed.
    """
    file = read_notification_file(path, allow_clear_text=allow_clear_text)
    destinations = Destinations(allow_private=file.allow_private_addresses)
    opening = _Opening(path, file, destinations, clock, allow_clear_text=allow_clear_text)
    webhooks = [entry for entry in file.entries if entry.is_webhook]
    others = [entry for entry in file.entries if not entry.is_webhook]
    try:
        notifiers = opening.services(others) if others else {}
        if webhooks:
            notifiers |= opening.webhooks(webhooks)
    except ImportError as error:
        raise ConfigurationError(
            f"{path} names notification targets, but {error.name} is not installed; install "
            "batchwork[notifications]."
        ) from error
    targets = NotificationTargets(entry.target for entry in file.entries)
    return Notifiers(targets=targets, by_name=notifiers)


class _Opening:
    """Makes the notifiers. Only who has targets of a kind pays for its libraries."""

    def __init__(
        self,
        path: Path,
        file: NotificationFile,
        destinations: Destinations,
        clock: Clock,
        *,
        allow_clear_text: bool,
    ) -> None:
        self._path = path
        self._file = file
        self._destinations = destinations
        self._clock = clock
        self._allow_clear_text = allow_clear_text

    def webhooks(self, entries: Sequence[TargetEntry]) -> dict[str, Notifier]:
        from batchwork_server.adapters.webhooks import WebhookNotifier

        return {
            entry.target.name: WebhookNotifier(
                url=entry.url,
                secret=entry.secret,
                destinations=self._destinations,
                clock=self._clock,
            )
            for entry in entries
        }

    def services(self, entries: Sequence[TargetEntry]) -> dict[str, Notifier]:
        from batchwork_server.adapters import apprise_notifier as apprise

        apprise.silence_apprise()
        notifiers: dict[str, Notifier] = {}
        violations: list[Violation] = []
        for entry in entries:
            service = apprise.service_of(entry.url)
            if service is None:
                problem = "Apprise knows no service with such a URL."
            else:
                problem = apprise.clear_text_problem(
                    service,
                    allow_private=self._file.allow_private_addresses,
                    allow_clear_text=self._allow_clear_text,
                )
                notifiers[entry.target.name] = apprise.AppriseNotifier(
                    service, allow_private=self._file.allow_private_addresses
                )
            if problem:
                violations.append(Violation(f"{entry.path}.url", problem))
        if violations:
            raise problems_of(self._path, violations)
        return notifiers
