"""Servers as processes, to be killed."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

_UNLIMITED = resource.RLIM_INFINITY


class ServerProcess:
    """A server in a process of its own.

    Attributes:
        processed: The keys that the processor has told so far, in order, each as often as it came.
    """

    def __init__(self, process: Process, log: Path, *, read: int) -> None:
        self._process = process
        self._log = log
        self._read = read  # bytes of the log, which servers of one test share
        self.port = 0
        self.processed: list[str] = []

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def started(self) -> None:
        line = await self._line()
        assert line.startswith("port "), self._log.read_text()
        self.port = int(line.split()[1])

    async def until_processed(self, count: int) -> bool:
        """Waits until so many items more were processed; false when the process ended first."""
        wanted = len(self.processed) + count
        async with asyncio.timeout(120):
            while len(self.processed) < wanted:
                self._take_told()
                if len(self.processed) < wanted:
                    if self._process.returncode is not None:
                        return False
                    await asyncio.sleep(0.005)
        return True

    async def kill(self) -> None:
        """Ends the process in the middle of whatever it does."""
        self._process.kill()
        await self._end()

    async def terminate(self) -> int:
        """Asks the process to stop, and returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await self._end()

    async def ended(self) -> int:
        """Waits until the process has ended by itself, and returns its exit code."""
        async with asyncio.timeout(60):
            return await self._end()

    def freeze(self) -> None:
        """Stops the process where it is; it does not know."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def until_frozen(self) -> None:
        """Waits until the process stands still."""
        async with asyncio.timeout(60):
            while psutil.Process(self._process.pid).status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0.02)

    def limit_file_size(self, most_bytes: int) -> None:
        """Makes every write beyond such a size fail, as on a disk that is full."""
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (most_bytes, _UNLIMITED))

    def lift_file_size(self) -> None:
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (_UNLIMITED, _UNLIMITED))

    async def until_logged(self, text: str) -> None:
        """Waits until a server of this test has logged ``text``."""
        async with asyncio.timeout(60):
            while text not in self._log.read_text():
                await asyncio.sleep(0.02)

    async def _end(self) -> int:
        assert self._process.stdout is not None
        await self._process.stdout.read()
        code = await self._process.wait()
        self._take_told()
        return code

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    def _take_told(self) -> None:
        """Takes what was told since the last look; child processes tell it there, too."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            told, _, _rest = log.read().rpartition(b"\n")
        self._read += len(told) + 1 if told else 0
        for line in told.decode().splitlines():
            word, _, key = line.partition(" ")
            if word == "processed" and key:
                self.processed.append(key)

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None


StartServer = Callable[..., Awaitable[ServerProcess]]


@pytest.fixture
def postgresql_url(new_postgresql_url: str) -> str:
    """A database that goes with the test: a server that is about to end may still write."""
    return new_postgresql_url


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts servers; whatever still runs at the end is killed."""
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "telling.json").write_text(
        '{"template_id": "telling", "processor": "telling", "parameters": {"seconds": 0.005}}'
    )
    (templates / "paced.json").write_text(
        '{"template_id": "paced", "processor": "telling", "parameters": {"seconds": 0.02}}'
    )
    (templates / "faulty.json").write_text('{"template_id": "faulty", "processor": "faulty"}')
    (templates / "slow.json").write_text(
        '{"template_id": "slow", "processor": "telling", "parameters": {"seconds": 3600}}'
    )
    log = tmp_path / "server.log"
    servers: list[ServerProcess] = []

    async def start(database_url: str, **settings: str) -> ServerProcess:
        with log.open("ab") as stderr:
            read = stderr.tell()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.e2e.launcher",
                stdout=PIPE,
                stderr=stderr,
                cwd=ROOT,
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("BATCH")},
                    "BATCHWORK_DATABASE_URL": database_url,
                    "BATCHWORK_LISTEN": "127.0.0.1:0",
                    "BATCHWORK_TEMPLATES_DIR": str(templates),
                    **settings,
                },
            )
        server = ServerProcess(process, log, read=read)
        servers.append(server)
        await server.started()
        return server

    yield start
    for server in servers:
        if server.is_running:
            await server.kill()
