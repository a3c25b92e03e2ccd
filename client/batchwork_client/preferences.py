"""The client of PreferenceService: one method per RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
from batchwork.v1 import preference_service_pb2 as messages
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2_grpc import PreferenceServiceStub
from google.protobuf.field_mask_pb2 import FieldMask

from batchwork_client.calls import Calls, new_request_id


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
    ) -> Preference:
        """Sets a preference, creates it when there is none, and returns it as stored.

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
        response = await self._calls.unary(self._stub.SetPreference, request)
        return response.preference

    def list_preferences(
        self,
        *,
        user_id: str = "",
        feature_type: str = "",
        enabled: bool | None = None,
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[Preference]:
        """Yields the preferences for which all given filters hold; at most ``limit``.

        They come by feature and user.
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
