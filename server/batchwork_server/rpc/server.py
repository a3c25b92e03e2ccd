"""The gRPC server: what it listens on, what it serves, and how it stops."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
from batchwork.v1.batch_service_pb2_grpc import add_BatchServiceServicer_to_server
from batchwork.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from batchwork.v1.preference_service_pb2_grpc import add_PreferenceServiceServicer_to_server
from batchwork.v1.validation_service_pb2_grpc import add_ValidationServiceServicer_to_server
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION_SERVICE
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from batchwork_server.application.backfills import Backfills
from batchwork_server.application.batch_changes import BatchChanges
from batchwork_server.application.batch_validation import BatchValidation
from batchwork_server.application.batches import Batches
from batchwork_server.application.compatible_categories import CompatibleCategories
from batchwork_server.application.contexts import Contexts
from batchwork_server.application.default_preferences import DefaultPreferences
from batchwork_server.application.explaining import Explaining
from batchwork_server.application.forecast import Forecast
from batchwork_server.application.item_validation import ItemValidation
from batchwork_server.application.job_imports import JobImports
from batchwork_server.application.job_validation import JobValidation
from batchwork_server.application.jobs import Jobs
from batchwork_server.application.notifications import Outbox
from batchwork_server.application.occurrences import Occurrences
from batchwork_server.application.override_notices import OverrideNotices
from batchwork_server.application.preference_changes import PreferenceChanges
from batchwork_server.application.preference_imports import PreferenceImports
from batchwork_server.application.preference_views import PreferenceViews
from batchwork_server.application.preferences import Preferences
from batchwork_server.application.reference_checks import ReferenceChecks
from batchwork_server.application.references import References
from batchwork_server.application.results import Results
from batchwork_server.application.retention import Deletion
from batchwork_server.application.source_notes import SourceNotes
from batchwork_server.application.statistics import Statistics
from batchwork_server.application.upcoming import UpcomingRuns
from batchwork_server.application.uploads import Uploads
from batchwork_server.application.user_contexts import UserContexts
from batchwork_server.application.validation import Validation
from batchwork_server.application.validation_reports import ValidationReports
from batchwork_server.application.watching import Watching
from batchwork_server.clock import Clock
from batchwork_server.errors import ConfigurationError
from batchwork_server.rpc.batch_servicer import BatchServicer
from batchwork_server.rpc.credentials import Credentials
from batchwork_server.rpc.health import Health
from batchwork_server.rpc.interceptors import CLEANUP, WRITE_TIMEOUT, Boundary
from batchwork_server.rpc.job_servicer import JobServicer
from batchwork_server.rpc.preference_servicer import PreferenceServicer
from batchwork_server.rpc.validation_servicer import ValidationServicer

SERVICES = tuple(
    f"batchwork.v1.{name}"
    for name in ("BatchService", "JobService", "PreferenceService", "ValidationService")
)

PARTS = ("engine", "database")
"""What else has a health of its own; not well until somebody says so."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Else two servers could share a port without either noticing.
    ("grpc.so_reuseport", 0),
    # A watch is a stream; a thousand of them on one connection leave room for other calls.
    ("grpc.max_concurrent_streams", 4096),
    # Our own client pings every six minutes; others may every half, when they wait for something.
    ("grpc.http2.min_ping_interval_without_data_ms", 30 * 1000),
    # A watcher whose machine is gone keeps its place no longer than this.
    ("grpc.keepalive_time_ms", 60 * 1000),
    ("grpc.keepalive_timeout_ms", 20 * 1000),
)


class RpcServer:
    """Serves the use cases under one address.

    Create it inside the event loop that is to serve.

    Args:
        batches: Behind BatchService.
        changes: Behind the calls of BatchService that change where a batch stands.
        deletion: Behind the calls of BatchService that delete batches.
        uploads: Behind the calls of BatchService that fill drafts.
        results: Behind the stream of results of BatchService.
        jobs: Behind JobService.
        job_imports: Behind the imports and exports of JobService.
        upcoming: Behind the list of upcoming runs of JobService.
        occurrences: Behind the list of occurrences of JobService.
        backfills: Behind the backfills of JobService.
        preferences: Behind PreferenceService.
        default_preferences: Likewise.
        explaining: Likewise.
        source_notes: Likewise.
        override_notices: Likewise.
        preference_views: Likewise.
        preference_changes: Likewise.
        preference_imports: Likewise.
        compatible_categories: Likewise.
        forecast: Likewise.
        validation: Behind ValidationService.
        job_validation: Behind the validation of jobs of ValidationService.
        item_validation: Behind the validation of items of ValidationService.
        batch_validation: Likewise.
        reference_checks: Likewise.
        validation_reports: Likewise.
        watching: Behind the watches of BatchService.
        credentials: Who may call; None lets everybody in.
        clock: Measures calls.
        listen: ``host:port``, where port 0 lets the system choose, or ``unix:path``.
        tls: The certificate chain and the private key, as PEM; None means clear text.
        reflection: Whether clients may ask for the contract.
        max_message_bytes: The largest request.
        write_timeout: How long a message of a stream may wait for its reader.
    """

    def __init__(
        self,
        *,
        batches: Batches,
        changes: BatchChanges,
        deletion: Deletion,
        uploads: Uploads,
        results: Results,
        jobs: Jobs,
        job_imports: JobImports,
        upcoming: UpcomingRuns,
        occurrences: Occurrences,
        backfills: Backfills,
        preferences: Preferences,
        default_preferences: DefaultPreferences,
        explaining: Explaining,
        source_notes: SourceNotes,
        override_notices: OverrideNotices,
        preference_views: PreferenceViews,
        preference_changes: PreferenceChanges,
        preference_imports: PreferenceImports,
        compatible_categories: CompatibleCategories,
        forecast: Forecast,
        validation: Validation,
        job_validation: JobValidation,
        item_validation: ItemValidation,
        batch_validation: BatchValidation,
        reference_checks: ReferenceChecks,
        validation_reports: ValidationReports,
        watching: Watching,
        statistics: Statistics,
        references: References,
        contexts: Contexts,
        user_contexts: UserContexts,
        outbox: Outbox,
        credentials: Credentials | None,
        clock: Clock,
        listen: str,
        tls: tuple[bytes, bytes] | None,
        reflection: bool,
        max_message_bytes: int,
        write_timeout: timedelta = WRITE_TIMEOUT,
    ) -> None:
        self._listen = listen
        self._tls = tls
        self._boundary = Boundary(
            credentials=credentials or Credentials(), clock=clock, write_timeout=write_timeout
        )
        self._health = Health()
        self._server = grpc.aio.server(
            options=(*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)),
        )
        # All that generated code wants of a server is that it takes handlers.
        guarded: Any = self._boundary.around(self._server)
        add_BatchServiceServicer_to_server(
            BatchServicer(
                batches=batches,
                changes=changes,
                deletion=deletion,
                uploads=uploads,
                results=results,
                watching=watching,
                statistics=statistics,
                references=references,
                contexts=contexts,
                user_contexts=user_contexts,
                outbox=outbox,
            ),
            guarded,
        )
        add_JobServiceServicer_to_server(
            JobServicer(jobs, job_imports, batches, upcoming, occurrences, backfills), guarded
        )
        add_PreferenceServiceServicer_to_server(
            PreferenceServicer(
                preferences,
                defaults=default_preferences,
                views=preference_views,
                changes=preference_changes,
                imports=preference_imports,
                categories=compatible_categories,
                forecast=forecast,
                explaining=explaining,
                source_notes=source_notes,
                overrides=override_notices,
            ),
            guarded,
        )
        add_ValidationServiceServicer_to_server(
            ValidationServicer(
                validation=validation,
                jobs=job_validation,
                items=item_validation,
                references=reference_checks,
                batches=batch_validation,
                reports=validation_reports,
            ),
            guarded,
        )
        add_HealthServicer_to_server(self._health, guarded)
        if reflection:
            enable_server_reflection((*SERVICES, HEALTH_SERVICE, REFLECTION_SERVICE), guarded)

    async def start(self) -> int:
        """Listens, and says that all services are well.

        Returns:
            The port; of no meaning with a unix socket.

        Raises:
            ConfigurationError: the address is taken or cannot be listened on, or the certificate
                and the key do not fit.
        """
        port = self._bind()
        for part in PARTS:
            await self._health.report(part, is_well=False)
        for service in (OVERALL_HEALTH, *SERVICES):
            await self._health.report(service, is_well=True)
        await self._server.start()
        return port

    def _bind(self) -> int:
        try:
            if self._tls is None:
                return self._server.add_insecure_port(self._listen)
            chain, key = self._tls
            credentials = grpc.ssl_server_credentials([(key, chain)])
            return self._server.add_secure_port(self._listen, credentials)
        except RuntimeError as error:
            raise ConfigurationError(
                f"The server cannot listen on {self._listen}: {error}. The address may be taken, "
                "or the certificate and the key do not belong together."
            ) from error

    async def set_health(self, name: str, serving: bool) -> None:
        """Reports under ``grpc.health.v1`` whether a part is well."""
        await self._health.report(name, is_well=serving)

    async def stop_serving(self) -> None:
        """Says that nothing is well any more and refuses calls; those under way go on."""
        await self._health.enter_graceful_shutdown()
        self._boundary.drain()

    async def stop(self, grace: timedelta) -> None:
        """Closes the address and returns when every call has finished.

        Calls under way have ``grace`` to end by themselves; then they are told that the server
        shuts down.
        """
        # gRPC's own stop closes the address and asks clients to leave, but it would cut calls
        # without a status, and return before they have cleaned up.
        longest = grace + 2 * CLEANUP
        closing = asyncio.create_task(self._server.stop(longest.total_seconds()))
        await self._boundary.finish(grace)
        await closing
