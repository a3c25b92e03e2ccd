"""Where benchmarks happen: fresh databases on disk, and the server under test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from batchwork.v1.batch_pb2 import Batch, BatchState
from batchwork.v1.batch_service_pb2 import BATCH_EVENT_KIND_END
from batchwork_client import Batchwork, connect

from bench.children import Child, child
from tests.postgres import PostgresServer

DatabaseKind = Literal["sqlite", "postgresql"]

_TEMPLATES = {
    "noop.yaml": "template_id: noop\nprocessor: noop\n",
    "due.yaml": "template_id: due\nprocessor: noop\noperations: [due]\n",
    "wait.yaml": "template_id: wait\nprocessor: wait\nparameters: {seconds: 0.01}\n",
    "slow.yaml": "template_id: slow\nprocessor: wait\nparameters: {seconds: 1}\n",
    "gated.yaml": "template_id: gated\nprocessor: gated\n",
    "fated.yaml": "template_id: fated\nprocessor: fated\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server in a process of its own, and a client of it."""

    client: Batchwork
    target: str
    process: Child

    async def finish(self, batch: Batch) -> Batch:
        """Waits for END, as a user does, and makes sure that every item succeeded.

        Raises:
            RuntimeError: the counts are not those of a batch that went well.
        """
        final = Batch()
        async for event in self.client.batches.watch_batch(batch.batch_id):
            if event.kind == BATCH_EVENT_KIND_END:
                final = event.batch
        counts = final.counts
        if final.state != BatchState.BATCH_STATE_SUCCEEDED or counts.succeeded != counts.total:
            raise RuntimeError(f"The batch {batch.batch_id} did not go well: {counts}")
        return final


class Workplace:
    """Hands out databases and servers.

    Args:
        folder: Holds databases, logs and templates; on a disk, or nothing is durable.
        profile: Where the servers' profiles go; none means that nothing is profiled.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, profile: Path | None = None) -> None:
        self._folder = folder
        self._stack = stack
        self._profile = profile
        self._postgres: PostgresServer | None = None
        self._numbers = count()
        self.log = folder / "log"
        self._templates = folder / "templates"
        self._templates.mkdir()
        for name, text in _TEMPLATES.items():
            (self._templates / name).write_text(text)

    def database(self, kind: DatabaseKind) -> str:
        """Returns the URL of a database that nobody has used; its commits reach the disk."""
        name = f"bench{next(self._numbers)}"
        if kind == "sqlite":
            return f"sqlite:///{self._folder / name}.db"
        if self._postgres is None:
            self._postgres = self._stack.enter_context(PostgresServer(fsync=True))
        return self._postgres.create_database(name)

    @asynccontextmanager
    async def service(
        self, kind: DatabaseKind, *, database: str | None = None, **settings: str
    ) -> AsyncIterator[Service]:
        """Runs a server with its defaults where ``settings`` say nothing.

        Args:
            database: The URL of a database that was used before; unset means a fresh one.
        """
        environment = {
            "BATCHWORK_DATABASE_URL": database or self.database(kind),
            "BATCHWORK_LISTEN": "127.0.0.1:0",
            "BATCHWORK_TEMPLATES_DIR": str(self._templates),
            **settings,
        }
        arguments = () if self._profile is None else (str(self._profile),)
        async with child(
            "bench.server", *arguments, log=self.log, environment=environment
        ) as process:
            port = (await process.line()).rstrip(".").rpartition(" ")[2]
            target = f"127.0.0.1:{port}"
            async with connect(target) as client:
                yield Service(client=client, target=target, process=process)


@contextmanager
def workplace(*, profile: Path | None = None) -> Iterator[Workplace]:
    """Opens a workplace in a temporary folder; nothing of it is left afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchwork-bench-"))
        yield Workplace(Path(folder), stack, profile=profile)
