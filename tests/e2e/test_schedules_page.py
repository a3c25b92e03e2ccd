"""The page about schedules shows what the command line really prints."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.e2e.conftest import ROOT, StartServer

TEMPLATE = "tpl_api_20230414153012_f7g8h9j0"  # of the examples; these servers have others
PAGE = ROOT / "docs" / "schedules.md"


async def batchwork(target: str, *arguments: str) -> str:
    """Runs the command line where local time is UTC, and returns what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from batchwork_client.cli import main; main()", *arguments),
        env=os.environ | {"BATCHWORK_TARGET": target, "TZ": "UTC"},
        stdout=PIPE,
        stderr=PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


def block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


async def test_upcoming_prints_what_the_page_shows(
    start_server: StartServer, sqlite_url: str, tmp_path: Path
):
    server = await start_server(sqlite_url)
    jobs = tmp_path / "jobs.json"
    jobs.write_text(block("json").replace(TEMPLATE, "telling"))
    await batchwork(server.target, "job-import", str(jobs))

    shown = block("console")
    commands = [line for line in shown.splitlines() if line.startswith("$ batchwork ")]
    printed = [
        f"{command}\n{await batchwork(server.target, *shlex.split(command)[2:])}"
        for command in commands
    ]

    assert commands
    assert _without_space_at_ends("".join(printed)) == shown


def _without_space_at_ends(text: str) -> str:
    return re.sub(r" +\n", "\n", text)
