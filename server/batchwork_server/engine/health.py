"""Keeps the health of the engine, and of what it needs, up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.engine.engine import Engine
from batchwork_server.engine.job_file import JOB_FILE, JobFile
from batchwork_server.engine.loop import tick
from batchwork_server.engine.preference_poller import CONFIG_SOURCE, PreferencePoller
from batchwork_server.engine.template_source import TEMPLATE_SOURCE, TemplateSource
from batchwork_server.engine.user_source import USER_SOURCE, UserSource
from batchwork_server.errors import Unavailable

Report = Callable[[str, bool], Awaitable[None]]


class EngineHealth:
    """Reports under the names ``engine`` and ``database``, every few seconds.

    Args:
        job_file: If there is one, it is reported under ``job-file``.
        preference_poller: If there is one, it is reported under ``config-source``.
        user_source: If there is one, it is reported under ``user-source``.
        template_source: If there is one, it is reported under ``template-source``.
        ping: Asks the database for an answer.
        report: Takes a name and whether it is well.
    """

    INTERVAL: ClassVar = timedelta(seconds=5)

    def __init__(
        self,
        *,
        engine: Engine,
        job_file: JobFile | None = None,
        preference_poller: PreferencePoller | None = None,
        user_source: UserSource | None = None,
        template_source: TemplateSource | None = None,
        ping: Callable[[], Awaitable[None]],
        report: Report,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._job_file = job_file
        self._preference_poller = preference_poller
        self._user_source = user_source
        self._template_source = template_source
        self._ping = ping
        self._report = report
        self._clock = clock
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(
            tick(
                "health",
                self.run_once,
                interval=self.INTERVAL,
                clock=self._clock,
                stop=self._stop,
            )
        )

    async def run_once(self) -> None:
        if self._job_file is not None:
            await self._report(JOB_FILE, self._job_file.is_well)
        if self._preference_poller is not None:
            await self._report(CONFIG_SOURCE, self._preference_poller.is_well)
        if self._template_source is not None:
            await self._report(TEMPLATE_SOURCE, self._template_source.is_well)
        if self._user_source is not None:
            await self._report(USER_SOURCE, self._user_source.is_well)
        await self._report("engine", self._engine.is_running)
        await self._report("database", await self._database_answers())

    async def _database_answers(self) -> bool:
        try:
            await self._ping()
        except Unavailable:
            return False
        return True

    async def stop(self) -> None:
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
