"""A Batchwork server as a child process: how the demo loads data into it, starts and stops it."""

from __future__ import annotations

import asyncio
import os
import re
import sysconfig
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent

PATIENCE = 20
"""How many seconds a server may take to start, and to stop."""

_SERVER = Path(sysconfig.get_path("scripts")) / "batchwork-server"


class ServerProcessError(Exception):
    """A child process did not do what it was started for; the message says what it said."""


async def load(*arguments: str, settings: Mapping[str, str]) -> str:
    """Runs ``batchwork-server load …`` to its end, and returns what it reports.

    Raises:
        ServerProcessError: it refused.
    """
    async with _child("load", *arguments, settings=settings, stderr=PIPE) as process:
        report, problems = await process.communicate()
    if process.returncode != 0:
        raise ServerProcessError(problems.decode().strip())
    return report.decode().strip()


@asynccontextmanager
async def running_server(*, settings: Mapping[str, str], log: Path) -> AsyncIterator[str]:
    """Runs ``batchwork-server serve`` for as long as the block does, and yields its address.

    However the block ends, the server has ended when it is left.

    Args:
        settings: Environment variables; no other setting of this process gets through.
        log: Where its log goes.

    Raises:
        ServerProcessError: it did not start, or did not stop in peace.
    """
    with log.open("wb") as stderr:
        async with _child("serve", settings=settings, stderr=stderr) as process:
            yield f"127.0.0.1:{await _port(process)}"
    if process.returncode != 0:
        raise ServerProcessError(f"The server ended with exit code {process.returncode}.")


async def _port(process: Process) -> int:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
    except TimeoutError as error:
        raise ServerProcessError(f"The server did not start within {PATIENCE} s.") from error
    found = re.search(r"port (\d+)", line)
    if found is None:
        raise ServerProcessError("The server did not start.")
    return int(found[1])


@asynccontextmanager
async def _child(
    *arguments: str, settings: Mapping[str, str], stderr: int | IO[bytes]
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        _SERVER, *arguments, stdout=PIPE, stderr=stderr, cwd=ROOT, env=_environment(settings)
    )
    try:
        yield process
    finally:
        await _stop(process)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Returns this process's environment with these settings and no others."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("BATCH", "LOG_LEVEL"))
    }
    return inherited | dict(settings)


async def _stop(process: Process) -> None:
    """Asks a process to end, and kills it when it does not, or when there is no time to wait."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
