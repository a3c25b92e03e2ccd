"""Who may import whom, who may swallow every error, and who may read a clock."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "server" / "batchwork_server"
CLIENT = ROOT / "client" / "batchwork_client"
MODULES = sorted([*SERVER.rglob("*.py"), *CLIENT.rglob("*.py")])

RPC_LIBRARIES = {"grpc", "grpc_status", "google"}

ALLOWED: dict[str, set[str]] = {
    "domain": {"errors"},
    "errors": set(),
    "clock": set(),
    "logs": {"structlog", "orjson"},
    "wakeups": {"domain", "logs"},
    "failpoints": set(),
    "process": set(),
    "spawn": set(),
    "ports": {"domain"},
    "planners": {"domain", "ports", "errors", "orjson"},
    "processors": {"domain", "ports", "errors", "jinja2"},
    "montage": {"domain", "ports", "errors"},
    # Of an outside source it matters how old an answer is, and how long it has been away.
    "adapters": {
        *("domain", "ports", "errors", "clock", "spawn"),
        *("apprise", "httpx2", "orjson", "stamina", "standardwebhooks", "yaml"),
        *("jsonschema", "jsonschema_specifications", "pebble", "referencing"),
    },
    # The drivers belong to it as well.
    "store": {
        *("domain", "errors", "failpoints", "orjson"),
        *("sqlalchemy", "alembic", "aiosqlite", "asyncpg"),
    },
    "application": {
        *("domain", "ports", "store.store", "planners", "errors", "clock", "logs", "wakeups"),
        *("failpoints", "orjson"),
    },
    "engine": {
        *("domain", "ports", "store.store", "planners", "processors", "errors"),
        *("clock", "logs", "metrics", "wakeups", "failpoints", "spawn"),
        *("orjson", "pebble", "apscheduler"),
    },
    # The clock measures calls; nobody else may read one.
    "rpc": {
        *("application", "domain", "errors", "logs", "metrics", "clock"),
        *("batchwork", "grpc_health", "grpc_reflection", "orjson"),
        *RPC_LIBRARIES,
    },
    "metrics": {"domain", "errors", "prometheus_client"},
    "database_url": set(),
    "setting_kinds": {"domain", "marshmallow"},
    "setting_contradictions": {"config", "setting_kinds"},
    "config": {"database_url", "domain", "errors", "setting_kinds", "setting_contradictions"},
}
"""What a package of the server may import besides itself and the standard library.

``bootstrap`` puts everything together and ``cli`` starts it: they may import everything.
"""

ALSO_ALLOWED = {SERVER / "adapters" / "users_database.py": {"sqlalchemy"}}
"""What one module of a package may import as well, and the others may not."""

ONLY_IN = {
    "apprise": SERVER / "adapters" / "apprise_notifier.py",
    "jsonschema": SERVER / "adapters" / "schema_child.py",
    "apscheduler": SERVER / "engine" / "batch_scheduler.py",
    "prometheus_client": SERVER / "metrics.py",
    "standardwebhooks": SERVER / "adapters" / "webhooks.py",
}
"""Libraries that one module of a package may import, and no other."""

ALLOWED_IN_CLIENT = {"batchwork", *RPC_LIBRARIES}
ALLOWED_IN_CLIENT_CLI = {*ALLOWED_IN_CLIENT, "typer", "rich"}

MAY_SWALLOW_EVERYTHING = {
    SERVER / "engine" / "executor.py",  # an attempt
    SERVER / "engine" / "classification.py",  # what an error says when it is looked at
    SERVER / "engine" / "child.py",  # an attempt in a child process
    SERVER / "engine" / "committer.py",  # what cannot be recorded, in the way of others
    SERVER / "engine" / "loop.py",  # a tick
    SERVER / "engine" / "notifications.py",  # an attempt to tell somebody; wrapped, and counted
    SERVER / "wakeups.py",  # a listener, in the way of others and of what was written
    SERVER / "rpc" / "interceptors.py",  # a call
    SERVER / "processors" / "registry.py",  # a stranger's import; wrapped and passed on
    SERVER / "adapters" / "apprise_notifier.py",  # a thread; passed on to who waits for it
}

NOT_NEEDED_BY_EVERY_SERVER = {
    *("aiosqlite", "alembic", "asyncpg", "jinja2", "pygments", "rich"),
    *("apprise", "httpx2", "prometheus_client", "requests", "standardwebhooks"),
    *("jsonschema", "referencing"),
    "sqlalchemy.dialects.postgresql",
}
"""What some servers would only keep in memory: what is for another database, for migrations, for
templates to render, for terminals, for whoever is told of the ends of batches,
for the schemas of callers, which a child process checks."""

NAMES_OF_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "base", "enhanced"}

CLOCKS = {
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"},
}


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT))


def imports_of(module: Path) -> Iterator[str]:
    """Yields what a module imports, each with its full dotted name."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_foreign(imported: str) -> bool:
    return imported.partition(".")[0] not in sys.stdlib_module_names


def is_among(imported: str, allowed: set[str]) -> bool:
    return any(imported == name or imported.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("module", sorted(SERVER.rglob("*.py")), ids=name_of)
def test_a_package_of_the_server_imports_only_what_it_may(module: Path) -> None:
    package = module.relative_to(SERVER).parts[0].removesuffix(".py")
    if package in ("bootstrap", "cli", "__init__"):
        return

    imported = {
        name.removeprefix(f"{SERVER.name}.") for name in imports_of(module) if is_foreign(name)
    }

    allowed = ALLOWED[package] | {package} | ALSO_ALLOWED.get(module, set())
    assert {name for name in imported if not is_among(name, allowed)} == set()


@pytest.mark.parametrize(("library", "module"), ONLY_IN.items(), ids=list(ONLY_IN))
def test_some_libraries_are_known_to_one_module(library: str, module: Path) -> None:
    importers = {each for each in MODULES for name in imports_of(each) if is_among(name, {library})}

    assert importers == {module}


def test_a_process_that_schedules_nothing_does_not_load_the_alarm() -> None:
    code = "import sys, batchwork_server.cli; print('apscheduler' in sys.modules)"

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout == "False\n"


@pytest.mark.parametrize("module", sorted(CLIENT.rglob("*.py")), ids=name_of)
def test_the_client_imports_nothing_of_the_server(module: Path) -> None:
    is_cli = "cli" in module.relative_to(CLIENT).parts
    allowed = ALLOWED_IN_CLIENT_CLI if is_cli else ALLOWED_IN_CLIENT

    imported = {name for name in imports_of(module) if is_foreign(name)}

    assert {name for name in imported if not is_among(name, allowed | {CLIENT.name})} == set()


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_only_few_places_swallow_every_error(module: Path) -> None:
    """Whoever cleans up and raises again swallows nothing."""
    swallowing = [
        handler.lineno
        for handler in ast.walk(ast.parse(module.read_text()))
        if isinstance(handler, ast.ExceptHandler)
        and _catches_everything(handler)
        and not _raises_again(handler)
    ]

    assert swallowing == [] or module in MAY_SWALLOW_EVERYTHING


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        node is None or (isinstance(node, ast.Name) and node.id in ("Exception", "BaseException"))
        for node in caught
    )


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@pytest.mark.parametrize("module", sorted(SERVER.rglob("*.py")), ids=name_of)
def test_only_the_clock_reads_the_time(module: Path) -> None:
    if module == SERVER / "clock.py":
        return

    read = [
        f"{module.name}:{node.lineno}"
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.attr in CLOCKS.get(node.value.id, ())
    ]
    brought = [name for name in imports_of(module) if _is_clock(name)]

    assert read + brought == []


def _is_clock(imported: str) -> bool:
    owner, _, name = imported.rpartition(".")
    return owner == "time" and name in CLOCKS["time"]


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_modules_are_named_after_what_they_hold(module: Path) -> None:
    assert NAMES_OF_NOTHING.isdisjoint(module.relative_to(ROOT).with_suffix("").parts)


def test_the_server_imports_nothing_before_it_needs_it() -> None:
    script = "import sys, batchwork_server.cli; print(*sys.modules)"

    answer = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )

    imported = set(answer.stdout.split())
    assert "batchwork_server.bootstrap" in imported
    assert imported & NOT_NEEDED_BY_EVERY_SERVER == set()
