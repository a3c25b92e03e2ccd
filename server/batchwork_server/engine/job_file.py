"""Follows a file of jobs: what stands in it is what the server has, all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from batchwork_server.domain.batch import Notice
from batchwork_server.domain.job_file import MAX_FILE_BYTES
from batchwork_server.engine.watched_file import WatchedFile
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.logs import get_logger

log = get_logger(__name__)

JOB_FILE = "job-file"
"""The source of the jobs of the file, and the name of its health."""

MAX_LOGGED = 100
"""So many violations or notices stand in one line of the log; of the others their number."""


class Imported(Protocol):
    """What became of a job file."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many jobs were changed in which way."""
        ...

    @property
    def notices(self) -> Sequence[Notice]:
        """What was accepted although it may not be meant."""
        ...


class Imports(Protocol):
    """What the file is given to."""

    async def import_jobs(self, text: str, *, tenant_id: str, source: str, prune: bool) -> Imported:
        """Imports a job file, all of it or nothing.

        Raises:
            InvalidArgument: with everything that is wrong with the file; nothing was stored.
            Unavailable: nothing was stored; safe to call again.
        """
        ...


class JobFile:
    """Imports a file when its content has changed; two of these do no harm.

    A file that is refused changes nothing, and is not read again before it changes.

    Args:
        path: The file.
        imports: What it is given to.
        tenant_id: Whose jobs it holds.
        interval: How long after a look the next one comes.

    Attributes:
        interval: As given.
        is_well: Whether the server has what the file says, as far as it has been seen.
        looked: Set after the first look, whatever it found.
    """

    def __init__(
        self, path: Path, *, imports: Imports, tenant_id: str, interval: timedelta
    ) -> None:
        self._path = path
        self._file = WatchedFile(path, max_bytes=MAX_FILE_BYTES)
        self._imports = imports
        self._tenant_id = tenant_id
        self.interval = interval
        self.is_well = False
        self.looked = asyncio.Event()

    async def run_once(self) -> None:
        """Imports the file if it is another one than at the last look.

        Raises:
            Unavailable: nothing was changed; the next look tries it again.
        """
        try:
            await self._look()
        finally:
            self.looked.set()

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._file.look)
        if found is None:
            return
        try:
            if found.problem is not None:
                raise InvalidArgument([found.problem])
            imported = await self._imports.import_jobs(
                found.text, tenant_id=self._tenant_id, source=JOB_FILE, prune=True
            )
        except InvalidArgument as error:
            self._refuse(error.violations)
        else:
            self._accept(imported)
        self._file.done_with(found)

    def _refuse(self, violations: Sequence[Violation]) -> None:
        self.is_well = False
        log.error(
            "job_file.refused",
            path=str(self._path),
            tenant_id=self._tenant_id,
            violation_count=len(violations),
            violations=_told(violations),
        )

    def _accept(self, imported: Imported) -> None:
        self.is_well = True
        log.info(
            "job_file.loaded",
            path=str(self._path),
            tenant_id=self._tenant_id,
            **imported.counts,
            notice_count=len(imported.notices),
            notices=_told(imported.notices),
        )


def _told(remarks: Sequence[Violation] | Sequence[Notice]) -> list[dict[str, str]]:
    some: Iterable[Violation | Notice] = remarks[:MAX_LOGGED]
    return [{"path": r.path, "reason": r.reason, "message": r.message} for r in some]
