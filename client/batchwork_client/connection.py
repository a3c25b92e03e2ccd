"""One channel to a server, and one client for each of its services."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc

from batchwork_client.batches import Batches
from batchwork_client.calls import Calls
from batchwork_client.errors import ConfigurationError
from batchwork_client.jobs import Jobs
from batchwork_client.preferences import Preferences
from batchwork_client.validation import Validation

DEFAULT_TIMEOUT = timedelta(seconds=30)

_STREAMS = {
    "BatchService": ("WatchBatch", "WatchBatches", "StreamResults", "UploadItems"),
    "PreferenceService": ("WatchPreferenceChanges",),
}

# Every changing call carries a request id, so that a repetition returns the first answer.
# UNAVAILABLE is the only code that says "nothing happened, come again". Streams that
# resume by themselves, from where they stopped, are not repeated here.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": f"batchwork.v1.{service}"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "3s",
                "backoffMultiplier": 2.5,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
        for service in ("BatchService", "JobService", "PreferenceService", "ValidationService")
    ]
    + [
        {"name": [{"service": f"batchwork.v1.{service}", "method": method}]}
        for service, methods in _STREAMS.items()
        for method in methods
    ],
}

_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # The buffer decides which requests can be repeated; the default of 256 KiB would leave out a
    # batch with many inline items.
    ("grpc.per_rpc_retry_buffer_size", 8 * 1024 * 1024),
    # Servers accept one ping in five minutes and hang up on clients that send more. A watch does
    # not need pings at all: it notices the missing heartbeats of the server.
    ("grpc.keepalive_time_ms", 6 * 60 * 1000),
    ("grpc.keepalive_timeout_ms", 20 * 1000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Pages stay below 4 MiB; an export of jobs is one message and may be larger.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # The default waits up to two minutes before it looks whether a server is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5 * 1000),
)
# A proxy would read what is meant to stay on this machine.
_LOCAL_OPTIONS = (("grpc.enable_http_proxy", 0),)


class Batchwork:
    """A connection to a server; made by ``connect``.

    Use it as an async context manager, or call ``close`` when it is no longer needed.

    Attributes:
        batches: Creates, watches, lists and cancels batches.
        jobs: Imports, exports, lists and runs jobs.
        preferences: Keeps what users wish for features.
        validation: Tells whether users are there.
    """

    def __init__(self, channel: grpc.aio.Channel, calls: Calls) -> None:
        self._channel = channel
        self._calls = calls
        self.batches = Batches(channel, calls)
        self.jobs = Jobs(channel, calls)
        self.preferences = Preferences(channel, calls)
        self.validation = Validation(channel, calls)

    def with_options(
        self, *, timeout: timedelta | None = None, correlation_id: str | None = None
    ) -> Batchwork:
        """Returns a client that differs in what is given and shares this one's connection.

        Args:
            timeout: The deadline of each unary call.
            correlation_id: Travels with every call, in place of a new one for each.

        Raises:
            ConfigurationError: A value cannot be used.
        """
        return Batchwork(
            self._channel,
            replace(
                self._calls,
                timeout=self._calls.timeout if timeout is None else _positive(timeout),
                correlation_id=(
                    self._calls.correlation_id
                    if correlation_id is None
                    else _header_value("correlation id", correlation_id)
                ),
            ),
        )

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled. A repeat does nothing."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def connect(
    target: str,
    *,
    api_key: str | None = None,
    root_certificates: bytes | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    allow_clear_text: bool = False,
    timeout: timedelta = DEFAULT_TIMEOUT,
    options: Sequence[tuple[str, int | str]] = (),
) -> Batchwork:
    """Returns a client for the server at ``target``; call it inside a running event loop.

    Nothing is sent before the first call. Everything goes through TLS, with two exceptions: a
    loopback address or a unix socket without certificates, and any address with
    ``allow_clear_text``. A call that meets UNAVAILABLE is repeated up to four times.

    Args:
        target: A gRPC target, such as ``batchwork.example:443`` or ``unix:/run/batchwork.sock``.
        api_key: Travels as a bearer token; never in clear text beyond this machine.
        root_certificates: PEM of the authorities to trust instead of the system's.
        credentials: Channel credentials of your own, such as mutual TLS.
        allow_clear_text: Accepts an unencrypted connection to another machine.
        timeout: The deadline of each unary call, its repetitions included.
        options: gRPC channel options that go before those of this package.

    Raises:
        ConfigurationError: The arguments do not fit together; the message names the target.
    """
    calls = Calls(
        api_key=None if api_key is None else _header_value("API key", api_key),
        timeout=_positive(timeout),
    )
    trusted = credentials_for(
        target,
        has_api_key=api_key is not None,
        root_certificates=root_certificates,
        credentials=credentials,
        allow_clear_text=allow_clear_text,
    )
    channel_options = _channel_options(target, options)
    if trusted is None:
        return Batchwork(grpc.aio.insecure_channel(target, options=channel_options), calls)
    return Batchwork(grpc.aio.secure_channel(target, trusted, options=channel_options), calls)


def credentials_for(
    target: str,
    *,
    has_api_key: bool,
    root_certificates: bytes | None,
    credentials: grpc.ChannelCredentials | None,
    allow_clear_text: bool,
) -> grpc.ChannelCredentials | None:
    """Returns what the connection to ``target`` is encrypted with; None means clear text.

    Raises:
        ConfigurationError: Two kinds of credentials, or an API key that would leave this machine
            in clear text.
    """
    if credentials is not None and root_certificates is not None:
        raise ConfigurationError(
            f"Give either credentials or root_certificates for {target!r}, not both."
        )
    if credentials is not None:
        return credentials
    local = stays_on_this_machine(target)
    if root_certificates is not None or not (local or allow_clear_text):
        return grpc.ssl_channel_credentials(root_certificates)
    if has_api_key and not local:
        raise ConfigurationError(
            f"The API key would travel to {target!r} in clear text, where anybody on the way can "
            "read it; drop allow_clear_text and use TLS (root_certificates or credentials)."
        )
    return None


def _channel_options(
    target: str, given: Sequence[tuple[str, int | str]]
) -> tuple[tuple[str, int | str], ...]:
    defaults = _CHANNEL_OPTIONS + (_LOCAL_OPTIONS if stays_on_this_machine(target) else ())
    names = {name for name, _ in given}
    return (*given, *(option for option in defaults if option[0] not in names))


def stays_on_this_machine(target: str) -> bool:
    """Tells whether every address of ``target`` is a loopback address or a unix socket."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme in ("ipv4", "ipv6"):
        return all(_is_loopback(_host_of(address)) for address in rest.split(","))
    if scheme == "dns":
        # dns:host:port, dns:///host:port or dns://resolver/host:port
        return _is_loopback(_host_of(rest.rpartition("/")[2]))
    return _is_loopback(_host_of(target))


def _host_of(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    if address.count(":") > 1:
        return address
    return address.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _header_value(name: str, value: str) -> str:
    # gRPC would refuse it with a message that repeats the value, and an API key is a secret.
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise ConfigurationError(
            f"The {name} is empty or has characters that cannot travel in a header, such as a "
            "line end; give it as printable ASCII without blanks around it."
        )
    return value


def _positive(timeout: timedelta) -> timedelta:
    if timeout <= timedelta(0):
        raise ConfigurationError(f"The timeout is {timeout}; it must be more than 0.")
    return timeout
