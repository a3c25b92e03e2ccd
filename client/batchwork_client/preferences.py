"""The client of PreferenceService: one method per RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path

import grpc
from batchwork.v1 import preference_service_pb2 as messages
from batchwork.v1.preference_pb2 import DefaultPreference, Preference, PreferenceChange
from batchwork.v1.preference_service_pb2_grpc import PreferenceServiceStub
from batchwork.v1.schedule_pb2 import Schedule
from google.protobuf.field_mask_pb2 import FieldMask

from batchwork_client.calls import ALL_TENANTS, LARGEST_PAGE, Calls, new_request_id
from batchwork_client.instants import timestamp_of
from batchwork_client.preference_watch import watch_changes
from batchwork_client.watch import DEFAULT_PATIENCE, Patience


class Preferences:
    """Keeps what users wish for features.

    Every method raises a subclass of ``BatchworkError``; the proto lists which.
    """

    def __init__(self, channel: grpc.aio.Channel, calls: Calls) -> None:
        self._stub = PreferenceServiceStub(channel)
        self._calls = calls

    async def get_preference(
        self, user_id: str, *, feature_type: str, tenant_id: str = ""
    ) -> Preference:
        """Returns one user's preference for one feature.

        Raises:
            NotFoundError: The user has set none.
        """
        response = await self._calls.unary(
            self._stub.GetPreference,
            messages.GetPreferenceRequest(
                user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
            ),
        )
        return response.preference

    async def set_preference(
        self,
        preference: Preference,
        *,
        update_mask: Sequence[str] = (),
        request_id: str | None = None,
    ) -> messages.SetPreferenceResponse:
        """Sets a preference, and creates it when there is none.

        Returns:
            The preference as stored, the groups that the user left and joined, and the next run of
            each job.

        Args:
            preference: ``user_id`` and ``feature_type`` name it; an ``etag`` must be that of the
                stored preference.
            update_mask: The fields to change, of ``enabled``, ``schedule`` and
                ``template_overrides``; empty means all three.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Raises:
            EtagMismatchError: Somebody changed it; read it again.
        """
        request = messages.SetPreferenceRequest(
            request_id=request_id or new_request_id(), preference=preference
        )
        if update_mask:
            request.update_mask.CopyFrom(FieldMask(paths=update_mask))
        return await self._calls.unary(self._stub.SetPreference, request)

    async def batch_set_preferences(
        self,
        preferences: Sequence[Preference],
        *,
        update_mask: Sequence[str] = (),
        request_id: str | None = None,
    ) -> messages.BatchSetPreferencesResponse:
        """Sets up to 1,000 preferences, all of them or none.

        Args:
            preferences: As for ``set_preference``; no two have the same user and feature.
            update_mask: The fields to change in each; empty means all three.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Returns:
            What became of each, in the same order.

        Raises:
            EtagMismatchError: Somebody changed one of them; read it again.
        """
        request = messages.BatchSetPreferencesRequest(
            request_id=request_id or new_request_id(), preferences=preferences
        )
        if update_mask:
            request.update_mask.CopyFrom(FieldMask(paths=update_mask))
        return await self._calls.unary(self._stub.BatchSetPreferences, request)

    async def import_preferences(
        self,
        preferences: str | PathLike[str],
        *,
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> messages.ImportPreferencesResponse:
        """Imports preferences in the documents' JSON, all of them or none.

        Args:
            preferences: The JSON text itself, or the path of a file as a ``Path``.
            validate_only: Answers with the difference and stores nothing.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Raises:
            InvalidArgumentError: Carries every violation with its JSON path.
            OSError: The file cannot be read.
        """
        text = preferences if isinstance(preferences, str) else await _text_of(preferences)
        return await self._calls.unary(
            self._stub.ImportPreferences,
            messages.ImportPreferencesRequest(
                request_id=request_id or new_request_id(),
                preferences_json=text,
                validate_only=validate_only,
            ),
        )

    async def delete_preference(
        self, user_id: str, *, feature_type: str, etag: str = "", request_id: str | None = None
    ) -> messages.DeletePreferenceResponse:
        """Deletes one user's preference for one feature; defaults count for the user then.

        Args:
            user_id: The user.
            feature_type: The feature.
            etag: When given, that of the stored preference.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Raises:
            NotFoundError: The user has set none.
            EtagMismatchError: Somebody changed it; read it again.
        """
        return await self._calls.unary(
            self._stub.DeletePreference,
            messages.DeletePreferenceRequest(
                request_id=request_id or new_request_id(),
                user_id=user_id,
                feature_type=feature_type,
                etag=etag,
            ),
        )

    async def get_default_preference(
        self, feature_type: str, *, tenant_id: str = ""
    ) -> DefaultPreference:
        """Returns the tenant's default for a feature.

        Raises:
            NotFoundError: The tenant has set none.
        """
        response = await self._calls.unary(
            self._stub.GetDefaultPreference,
            messages.GetDefaultPreferenceRequest(feature_type=feature_type, tenant_id=tenant_id),
        )
        return response.default_preference

    async def set_default_preference(
        self,
        default_preference: DefaultPreference,
        *,
        update_mask: Sequence[str] = (),
        request_id: str | None = None,
    ) -> messages.SetDefaultPreferenceResponse:
        """Sets the tenant's default for a feature, or creates it.

        Returns:
            The default as stored, and what may not be meant about it.

        Args:
            default_preference: ``feature_type`` names it; an ``etag`` must be that of the stored
                default.
            update_mask: The fields to change, of ``enabled``, ``schedule`` and
                ``template_overrides``; empty means all three.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Raises:
            EtagMismatchError: Somebody changed it; read it again.
        """
        request = messages.SetDefaultPreferenceRequest(
            request_id=request_id or new_request_id(), default_preference=default_preference
        )
        if update_mask:
            request.update_mask.CopyFrom(FieldMask(paths=update_mask))
        return await self._calls.unary(self._stub.SetDefaultPreference, request)

    async def get_effective_preference(
        self, user_id: str, *, feature_type: str, job_id: str = "", tenant_id: str = ""
    ) -> messages.GetEffectivePreferenceResponse:
        """Returns what counts for a user, and who said each part of it.

        Args:
            user_id: The user; one who has set nothing is told the defaults.
            feature_type: The feature.
            job_id: Whose defaults count; empty means the first job of the feature.
            tenant_id: Another tenant; operators only.
        """
        return await self._calls.unary(
            self._stub.GetEffectivePreference,
            messages.GetEffectivePreferenceRequest(
                user_id=user_id, feature_type=feature_type, job_id=job_id, tenant_id=tenant_id
            ),
        )

    async def explain_user(
        self,
        user_id: str,
        *,
        feature_type: str,
        job_id: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        tenant_id: str = "",
    ) -> messages.ExplainUserResponse:
        """Tells for each period what became of a user, why, and when they are due next.

        Where the server follows a Config Database, ``source_note`` tells whether that says of the
        user what is stored.

        Args:
            user_id: The user.
            feature_type: The feature.
            job_id: Only this job; empty means all that preferences for the feature drive.
            start_time: From when on; unset means seven days before the end.
            end_time: Until when, at most 31 days after the start; unset means now.
            tenant_id: Another tenant; operators only.

        Raises:
            ValueError: a time knows no zone.
        """
        return await self._calls.unary(
            self._stub.ExplainUser,
            messages.ExplainUserRequest(
                user_id=user_id,
                feature_type=feature_type,
                job_id=job_id,
                start_time=timestamp_of("start_time", start_time),
                end_time=timestamp_of("end_time", end_time),
                tenant_id=tenant_id,
            ),
        )

    async def preview_schedule(
        self,
        schedule: Schedule,
        *,
        feature_type: str = "",
        start_time: datetime | None = None,
        count: int = 0,
        tenant_id: str = "",
    ) -> messages.PreviewScheduleResponse:
        """Tells when a schedule that is not stored would be due.

        Args:
            schedule: The schedule.
            feature_type: Whose defaults lend a schedule without a zone its zone.
            start_time: After which due times count; unset means now.
            count: How many, 1 to 100; 0 means 10.
            tenant_id: Another tenant; operators only.

        Raises:
            ValueError: ``start_time`` knows no zone.
        """
        return await self._calls.unary(
            self._stub.PreviewSchedule,
            messages.PreviewScheduleRequest(
                schedule=schedule,
                feature_type=feature_type,
                start_time=timestamp_of("start_time", start_time),
                count=count,
                tenant_id=tenant_id,
            ),
        )

    async def forecast_load(
        self,
        *,
        feature_type: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        bucket: timedelta | None = None,
        tenant_id: str = "",
    ) -> messages.ForecastLoadResponse:
        """Foretells how many users are due when.

        Args:
            feature_type: Of the users of this feature; empty means all.
            start_time: The first instant that counts; unset means now.
            end_time: The first that does not count any more; unset means a day after the start.
            bucket: How long a stretch is, 1 minute to 1 day; unset means a minute.
            tenant_id: Another tenant; operators only.

        Raises:
            ValueError: An instant has no time zone.
        """
        request = messages.ForecastLoadRequest(
            feature_type=feature_type,
            start_time=timestamp_of("start_time", start_time),
            end_time=timestamp_of("end_time", end_time),
            tenant_id=tenant_id,
        )
        if bucket is not None:
            request.bucket.FromTimedelta(bucket)
        return await self._calls.unary(self._stub.ForecastLoad, request)

    def list_preference_groups(
        self,
        *,
        feature_type: str = "",
        with_empty: bool = False,
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[messages.PreferenceGroup]:
        """Yields the groups of users who wish the same schedule, by tenant and feature.

        Args:
            feature_type: Only of this feature.
            with_empty: Also groups without members.
            tenant_id: Another tenant, or ``-`` for all; operators only.
            limit: The most groups.
        """

        def request_for(size: int, token: str) -> messages.ListPreferenceGroupsRequest:
            return messages.ListPreferenceGroupsRequest(
                page_size=size,
                page_token=token,
                feature_type=feature_type,
                with_empty=with_empty,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListPreferenceGroups, request_for, lambda page: page.groups, limit=limit
        )

    def list_group_members(
        self, group_key: int, *, tenant_id: str = "", limit: int | None = None
    ) -> AsyncIterator[Preference]:
        """Yields the preferences of the members of a group, by user; at most ``limit``."""

        def request_for(size: int, token: str) -> messages.ListGroupMembersRequest:
            return messages.ListGroupMembersRequest(
                page_size=size, page_token=token, group_key=group_key, tenant_id=tenant_id
            )

        return self._calls.paged(
            self._stub.ListGroupMembers, request_for, lambda page: page.preferences, limit=limit
        )

    def list_compatible_categories(
        self,
        feature_type: str,
        *,
        user_id: str = "",
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[messages.CompatibleCategory]:
        """Yields the categories that suit a feature, by name, and why; at most ``limit``.

        Args:
            feature_type: The feature.
            user_id: Whose overrides count; empty means those of the defaults.
            tenant_id: Another tenant; operators only.
            limit: The most categories.
        """

        def request_for(size: int, token: str) -> messages.ListCompatibleCategoriesRequest:
            return messages.ListCompatibleCategoriesRequest(
                page_size=size,
                page_token=token,
                feature_type=feature_type,
                user_id=user_id,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListCompatibleCategories,
            request_for,
            lambda page: page.categories,
            limit=limit,
        )

    async def list_preference_changes(
        self, *, after: int | None = None, tenant_id: str = "", limit: int | None = None
    ) -> AsyncIterator[PreferenceChange]:
        """Yields the changes there have been, by tenant and in their order; at most ``limit``.

        Args:
            after: The sequence after which to begin; unset means the oldest that is kept. Each
                tenant counts its own changes, so for all of them it has to be unset.
            tenant_id: Another tenant, or ``-`` for all; operators only.
            limit: The most changes.

        Raises:
            ResumeTokenExpiredError: Changes after ``after`` are not kept any more.
        """
        if tenant_id == ALL_TENANTS:
            async for change in self._changes_of_all(after=after, limit=limit):
                yield change
            return
        missing = limit
        while missing is None or missing > 0:
            size = LARGEST_PAGE if missing is None else min(missing, LARGEST_PAGE)
            page = await self._calls.unary(
                self._stub.ListPreferenceChanges,
                messages.ListPreferenceChangesRequest(
                    page_size=size, after=after, tenant_id=tenant_id
                ),
            )
            for change in page.changes:
                after = change.sequence
                yield change
            missing = None if missing is None else missing - len(page.changes)
            if not page.changes or after == page.newest:
                return

    def _changes_of_all(
        self, *, after: int | None, limit: int | None
    ) -> AsyncIterator[PreferenceChange]:
        def request_for(size: int, token: str) -> messages.ListPreferenceChangesRequest:
            return messages.ListPreferenceChangesRequest(
                page_size=size, page_token=token, after=after, tenant_id=ALL_TENANTS
            )

        return self._calls.paged(
            self._stub.ListPreferenceChanges, request_for, lambda page: page.changes, limit=limit
        )

    def watch_preference_changes(
        self,
        *,
        after: int | None = None,
        tenant_id: str = "",
        patience: Patience = DEFAULT_PATIENCE,
    ) -> AsyncGenerator[PreferenceChange, None]:
        """Yields the changes as they happen, in their order; it never ends by itself.

        Broken connections are overcome: the watch goes on after the last change that it heard of.
        Whoever leaves the loop closes the iterator (``contextlib.aclosing``).

        Args:
            after: The sequence after which to begin; unset means from now on.
            tenant_id: Another tenant; operators only.
            patience: How long to wait for what.

        Raises:
            ResumeTokenExpiredError: Changes after ``after`` are not kept any more; read the
                preferences again.
            UnavailableError: Nothing was heard for longer than ``patience.give_up_after``.
        """
        return watch_changes(
            self._stub, after=after, tenant_id=tenant_id, calls=self._calls, patience=patience
        )

    def list_preferences(
        self,
        *,
        user_id: str = "",
        feature_type: str = "",
        enabled: bool | None = None,
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[Preference]:
        """Yields the preferences for which all given filters hold, by tenant, feature and user.

        Args:
            user_id: Only of this user.
            feature_type: Only for this feature.
            enabled: Only those that are enabled, or that are not.
            tenant_id: Another tenant, or ``-`` for all; operators only.
            limit: The most preferences.
        """

        def request_for(size: int, token: str) -> messages.ListPreferencesRequest:
            return messages.ListPreferencesRequest(
                page_size=size,
                page_token=token,
                user_id=user_id,
                feature_type=feature_type,
                enabled=enabled,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListPreferences, request_for, lambda page: page.preferences, limit=limit
        )


async def _text_of(path: PathLike[str]) -> str:
    return await asyncio.to_thread(Path(path).read_text, encoding="utf-8")
