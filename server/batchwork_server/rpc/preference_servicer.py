"""PreferenceService: checks, delegates, translates."""

from __future__ import annotations

from typing import Any

from batchwork.v1 import preference_service_pb2 as messages
from batchwork.v1.preference_service_pb2_grpc import PreferenceServiceServicer

from batchwork_server.application.preferences import WISH_FIELDS, Preferences
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.filters import preference_filter_from
from batchwork_server.rpc.idempotency import idempotency_from
from batchwork_server.rpc.interceptors import caller_of
from batchwork_server.rpc.page_tokens import names_from, token_after_names
from batchwork_server.rpc.preference_conversion import preference_to, wish_from


class PreferenceServicer(PreferenceServiceServicer):
    """Answers for what users wish; the contract says what each call means."""

    def __init__(self, preferences: Preferences) -> None:
        self._preferences = preferences

    async def GetPreference(
        self, request: messages.GetPreferenceRequest, context: Any
    ) -> messages.GetPreferenceResponse:
        checks = Checks()
        user_id = checks.name("user_id", request.user_id)
        feature_type = checks.name("feature_type", request.feature_type)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        preference = await self._preferences.get_preference(
            user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
        )
        return messages.GetPreferenceResponse(preference=preference_to(preference))

    async def SetPreference(
        self, request: messages.SetPreferenceRequest, context: Any
    ) -> messages.SetPreferenceResponse:
        checks, given = Checks(), request.preference
        wish = wish_from("preference", given, checks=checks)
        update_mask = checks.mask("update_mask", request.update_mask, WISH_FIELDS)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        preference = await self._preferences.set_preference(
            wish,
            user_id=given.user_id,
            feature_type=given.feature_type,
            tenant_id=caller_of().tenant_id,
            etag=given.etag,
            update_mask=update_mask,
            idempotency=idempotency,
        )
        return messages.SetPreferenceResponse(preference=preference_to(preference))

    async def ListPreferences(
        self, request: messages.ListPreferencesRequest, context: Any
    ) -> messages.ListPreferencesResponse:
        checks = Checks()
        wanted = preference_filter_from(request, caller=caller_of(), checks=checks)
        page_size = checks.page_size(request.page_size)
        after = names_from(request, checks=checks)
        checks.done()
        preferences, last = await self._preferences.list_preferences(
            wanted, page_size=page_size, after=after
        )
        return messages.ListPreferencesResponse(
            preferences=[preference_to(preference) for preference in preferences],
            next_page_token=token_after_names(request, last),
        )
