"""Programs of this package in processes of their own, spoken to line by line."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

_ROOT = Path(__file__).parents[1]
_PATIENCE = 60  # seconds until a child that was asked to end is killed


class Child:
    """A process that runs, and what it says."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
        self._usage = psutil.Process(process.pid)

    async def line(self) -> str:
        """Returns the next line that the child prints.

        Raises:
            RuntimeError: it has ended; the end of its log tells why.
        """
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        if not line:
            raise RuntimeError(f"The process ended:\n{self._log.read_text()[-3000:]}")
        return line

    async def ask(self, question: str) -> str:
        """Writes a line to the child and returns the line that it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n".encode())
        return await self.line()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """What all its threads have used so far."""
        times = self._usage.cpu_times()
        return times.user + times.system

    async def end(self) -> None:
        """Asks the child to end, and waits for it."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def child(
    module: str, *arguments: str, log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Runs a module as a program while the block does.

    Settings of this process do not reach it; what it is to know stands in ``environment``.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BATCH")}
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=stderr,
            cwd=_ROOT,
            env={**inherited, **(environment or {})},
        )
    running = Child(process, log)
    try:
        yield running
    finally:
        await running.end()
