"""Follows a template service: what it says is what templates there are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Template
from batchwork_server.domain.read_templates import ReadTemplates
from batchwork_server.errors import SourceUnavailable, Violation
from batchwork_server.logs import get_logger
from batchwork_server.ports import OutsideTemplates

log = get_logger(__name__)

TEMPLATE_SOURCE = "template-source"
"""The name of its health."""

LONGEST_FIRST_LOOK = timedelta(seconds=10)
"""A server waits so long for its templates before it starts without them."""

MAX_LOGGED = 100
"""So many problems stand in one line of the log; of the others their number."""


class TemplateSource:
    """Implements ``TemplateService`` with what a service said last, kept in memory.

    Nobody who needs a template waits for the service, and what it said holds while it is away.

    Args:
        interval: How long after a look the next one comes.

    Attributes:
        interval: As given.
    """

    def __init__(self, source: OutsideTemplates, *, interval: timedelta, clock: Clock) -> None:
        self._source = source
        self.interval = interval
        self._clock = clock
        self._templates: Mapping[str, Template] | None = None
        self._answered_at: float | None = None
        self._is_away = False

    @property
    def is_well(self) -> bool:
        """Tells whether the service answered within the last three intervals."""
        if self._answered_at is None:
            return False
        silence = timedelta(seconds=self._clock.monotonic() - self._answered_at)
        return silence <= 3 * self.interval

    async def get(self, template_id: str) -> Template | None:
        return self._known().get(template_id)

    async def all(self) -> Sequence[Template]:
        return list(self._known().values())

    async def look_first(self) -> None:
        """Looks before anybody needs a template; a service that is away only takes a while."""
        try:
            async with asyncio.timeout(LONGEST_FIRST_LOOK.total_seconds()):
                await self.run_once()
        except TimeoutError:
            self._note_away("It has not answered yet.")

    async def run_once(self) -> None:
        """Takes what the service says now; one that is away is told once."""
        try:
            read = await self._source.read(self._templates or {})
        except SourceUnavailable as error:
            self._note_away(error.message)
            return
        self._answered_at = self._clock.monotonic()
        if self._is_away:
            self._is_away = False
            log.info("template_source.back")
        if read is not None:
            self._take(read)

    def _take(self, read: ReadTemplates) -> None:
        if read.problems:
            self._tell(read.problems)
        if self._templates and not read.templates:
            # A service that lost its data must not leave every job without its template.
            log.warning("template_source.empty", kept=len(self._templates))
            return
        self._templates = {template.template_id: template for template in read.templates}
        log.info("template_source.read", templates=len(self._templates))

    def _known(self) -> Mapping[str, Template]:
        if self._templates is None:
            raise SourceUnavailable(
                "The Template Service has not answered since this server started; the log says "
                "why (template_source.away)."
            )
        return self._templates

    def _note_away(self, problem: str) -> None:
        if self._is_away:
            return
        self._is_away = True
        age = None if self._answered_at is None else self._clock.monotonic() - self._answered_at
        log.warning("template_source.away", error=problem, age=age)

    def _tell(self, problems: Sequence[Violation]) -> None:
        some = [{"path": found.path, "message": found.message} for found in problems]
        log.warning(
            "template_source.problems", problem_count=len(problems), problems=some[:MAX_LOGGED]
        )
