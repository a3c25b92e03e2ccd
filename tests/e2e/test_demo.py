"""What `make demo` runs: what it prints, and what is left when it does not come to its end."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

Demo = subprocess.Popen[str]
StartDemo = Callable[[], Demo]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Starts demos, each in a process group of its own and all in one folder."""
    with ExitStack() as stack:

        def start() -> Demo:
            process = subprocess.Popen(
                [sys.executable, "-m", "examples.demo"],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(ROOT), "BATCHWORK_LISTEN": "nowhere"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def read_until(demo: Demo, words: str) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if words in line:
            return
    pytest.fail(f"the demo ended before it said {words!r}")


def leaves_nothing_running(demo: Demo) -> bool:
    try:
        os.killpg(demo.pid, 0)
    except ProcessLookupError:
        return True
    return False


def with_the_same_names_and_steps(output: str) -> str:
    """Replaces the two things that differ from run to run: the batch's id, and how it went on."""
    steps = re.compile(r"(?:  \d+ of 94 done, \d+ retries\n)+")
    assert len(steps.findall(output)) == 1
    return steps.sub("  (progress)\n", re.sub(r"bat_job_\d{14}_\w{8}", "bat_job_(id)", output))


def output_in_the_readme() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```text\n\$ make demo\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_demo_prints_what_the_readme_shows_however_often_it_runs(start_demo: StartDemo):
    shown = with_the_same_names_and_steps(output_in_the_readme())
    for _ in range(2):
        demo = start_demo()
        output, errors = demo.communicate()

        assert (demo.returncode, errors) == (0, "")
        assert with_the_same_names_and_steps(output) == shown
        assert leaves_nothing_running(demo)


def test_a_demo_that_is_interrupted_takes_its_server_along(start_demo: StartDemo):
    demo = start_demo()
    read_until(demo, "of 94 done")

    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate()

    assert demo.returncode == 130
    assert "The demo was interrupted." in errors
    assert '"event":"server.stopped"' in errors
    assert leaves_nothing_running(demo)


def test_a_demo_that_is_interrupted_while_it_loads_leaves_nothing_either(start_demo: StartDemo):
    demo = start_demo()
    read_until(demo, "Load 200 accounts")

    demo.terminate()
    demo.communicate()

    assert demo.returncode == 130
    assert leaves_nothing_running(demo)


def test_a_demo_whose_server_is_killed_fails_and_shows_the_log(start_demo: StartDemo):
    demo = start_demo()
    read_until(demo, "of 94 done")

    [server] = psutil.Process(demo.pid).children()
    server.kill()
    _, errors = demo.communicate()

    assert demo.returncode == 1
    assert "The demo failed: " in errors
    assert '"event":"batch.created"' in errors
    assert leaves_nothing_running(demo)


def test_a_database_that_a_server_uses_is_left_alone(start_demo: StartDemo, tmp_path: Path):
    (tmp_path / ".demo").mkdir()
    database = tmp_path / ".demo" / "batchwork.db"
    database.write_bytes(b"in use")

    with database.with_name("batchwork.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        demo = start_demo()
        _, errors = demo.communicate()

    assert demo.returncode == 1
    assert "A server uses .demo/batchwork.db; stop it first." in errors
    assert database.read_bytes() == b"in use"
