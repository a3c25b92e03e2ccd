"""What every command shares: whom it talks to, how it runs, and how it ends."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import ParamSpec

import typer

from batchwork_client.calls import ALL_TENANTS
from batchwork_client.cli.inputs import InputError
from batchwork_client.cli.output import problem
from batchwork_client.connection import Batchwork, connect
from batchwork_client.errors import (
    AbortedError,
    AlreadyExistsError,
    BatchworkError,
    ConfigurationError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)

_Arguments = ParamSpec("_Arguments")


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILURES = 1  # the command worked; what it watched or checked did not
    INVALID = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    REFUSED = 5
    CONFLICT = 6
    OTHER = 7
    INTERRUPTED = 130


EXIT_CODES_IN_WORDS = """\b
Exit codes:
  0    done
  1    a watched batch did not succeed in all its items, or something is not valid
  2    wrong usage, or the server found the request invalid
  3    the server cannot be reached or does not answer in time
  4    there is no such batch, item, job or preference
  5    no or bad credentials, or not allowed
  6    the request does not fit what is there (id taken, changed, wrong state)
  7    any other error
  130  interrupted; a batch that was being watched goes on"""

_CODE_BY_ERROR: tuple[tuple[type[BatchworkError], ExitCode], ...] = (
    (InvalidArgumentError, ExitCode.INVALID),
    (UnavailableError, ExitCode.UNREACHABLE),
    (DeadlineExceededError, ExitCode.UNREACHABLE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (UnauthenticatedError, ExitCode.REFUSED),
    (PermissionDeniedError, ExitCode.REFUSED),
    (AlreadyExistsError, ExitCode.CONFLICT),
    (AbortedError, ExitCode.CONFLICT),
    (FailedPreconditionError, ExitCode.CONFLICT),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """The global options.

    Attributes:
        target: The server.
        api_key: Kept out of every output.
        tls_ca: A file with the authorities to trust.
        tenant_id: The tenant to read; empty means the caller's own.
        allow_clear_text: Accepts an unencrypted connection to another machine.
    """

    target: str
    api_key: str | None
    tls_ca: Path | None
    tenant_id: str
    allow_clear_text: bool

    def connect(self) -> Batchwork:
        """Returns a client for the server.

        Raises:
            InputError: The file of authorities cannot be read.
            ConfigurationError: The options do not fit together.
        """
        try:
            root_certificates = self.tls_ca.read_bytes() if self.tls_ca else None
        except OSError as error:
            raise InputError([f"--tls-ca {self.tls_ca}: {error.strerror}"]) from error
        return connect(
            self.target,
            api_key=self.api_key,
            root_certificates=root_certificates,
            allow_clear_text=self.allow_clear_text,
        )

    @property
    def reads_all_tenants(self) -> bool:
        return self.tenant_id == ALL_TENANTS

    def require_own_tenant(self, verb: str) -> None:
        """Refuses ``--tenant`` where something changes.

        Raises:
            InputError: A tenant was named.
        """
        if self.tenant_id:
            raise InputError(
                [f"--tenant is for reading; {verb} works on the tenant of the API key"]
            )


def session_of(context: typer.Context) -> Session:
    """Returns the global options of the running command."""
    session = context.find_object(Session)
    if session is None:
        raise RuntimeError("a command ran without the options that stand before it")
    return session


def command(
    group: typer.Typer, name: str
) -> Callable[[Callable[_Arguments, Awaitable[None]]], Callable[_Arguments, None]]:
    """Makes a coroutine function a command of ``group``, with its errors as exit codes."""

    def register(
        function: Callable[_Arguments, Awaitable[None]],
    ) -> Callable[_Arguments, None]:
        @functools.wraps(function)
        def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
            with _errors_as_exit_codes():
                asyncio.run(_interruptible(function(*args, **kwargs)))

        group.command(name)(run)
        return run

    return register


async def _interruptible(work: Awaitable[None]) -> None:
    """Awaits ``work``, and cancels it at the first Ctrl-C.

    The handler that asyncio installs by itself does not wake a loop that is just about to wait;
    Ctrl-C would then be heard with the next message only.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        loop.remove_signal_handler(signal.SIGINT)  # the second one ends the program at once
        if task is not None:
            task.cancel()

    with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        await work
    except asyncio.CancelledError as cancellation:
        if interrupted:
            raise KeyboardInterrupt from cancellation
        raise
    finally:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def _errors_as_exit_codes() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        for line in error.problems:
            problem(line)
        raise typer.Exit(ExitCode.INVALID) from error
    except ConfigurationError as error:
        problem(str(error))
        raise typer.Exit(ExitCode.INVALID) from error
    except BatchworkError as error:
        _tell(error)
        raise typer.Exit(_code_of(error)) from error
    except KeyboardInterrupt as interruption:
        raise typer.Exit(ExitCode.INTERRUPTED) from interruption


def _tell(error: BatchworkError) -> None:
    for violation in error.violations:
        place = f"{violation.path}: " if violation.path else ""
        problem(place + violation.description)
    if not error.violations:
        problem(error.message if _code_of(error) is not ExitCode.OTHER else str(error))


def _code_of(error: BatchworkError) -> ExitCode:
    for error_class, code in _CODE_BY_ERROR:
        if isinstance(error, error_class):
            return code
    return ExitCode.OTHER
