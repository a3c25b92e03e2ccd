"""Servers as processes, to be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class ServerProcess:
    """A server in a process of its own.

    Attributes:
        processed: The keys that the processor has told so far, in order, each as often as it came.
    """

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
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
        """Reads until so many items more were processed; false when the process ended first."""
        for _ in range(count):
            line = await self._line()
            if not line:
                return False
            self._take(line)
        return True

    async def kill(self) -> None:
        """Ends the process in the middle of whatever it does."""
        self._process.kill()
        await self._end()

    async def terminate(self) -> int:
        """Asks the process to stop, and returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await self._end()

    async def _end(self) -> int:
        assert self._process.stdout is not None
        for line in (await self._process.stdout.read()).decode().splitlines():
            self._take(line)
        return await self._process.wait()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    def _take(self, line: str) -> None:
        word, _, key = line.partition(" ")
        if word == "processed" and key:  # a line that the kill cut short names nothing
            self.processed.append(key)

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None


StartServer = Callable[..., Awaitable[ServerProcess]]


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts servers; whatever still runs at the end is killed."""
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "telling.json").write_text(
        '{"template_id": "telling", "processor": "telling", "parameters": {"seconds": 0.005}}'
    )
    (templates / "slow.json").write_text(
        '{"template_id": "slow", "processor": "telling", "parameters": {"seconds": 3600}}'
    )
    log = tmp_path / "server.log"
    servers: list[ServerProcess] = []

    async def start(database_url: str, **settings: str) -> ServerProcess:
        with log.open("ab") as stderr:
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
        server = ServerProcess(process, log)
        servers.append(server)
        await server.started()
        return server

    yield start
    for server in servers:
        if server.is_running:
            await server.kill()
