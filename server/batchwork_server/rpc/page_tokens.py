"""Page tokens: where the next page starts, bound to the filters of the first one."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from batchwork.v1.batch_service_pb2 import (
    GetContextRequest,
    ListBatchesRequest,
    ListItemsRequest,
    ListNotificationsRequest,
    ListReferencesRequest,
)
from batchwork.v1.job_service_pb2 import (
    ListJobsRequest,
    ListOccurrencesRequest,
    ListUpcomingRunsRequest,
)
from batchwork.v1.preference_service_pb2 import (
    ListCompatibleCategoriesRequest,
    ListGroupMembersRequest,
    ListPreferenceChangesRequest,
    ListPreferenceGroupsRequest,
    ListPreferencesRequest,
)
from batchwork.v1.validation_service_pb2 import GetValidationReportRequest

from batchwork_server.domain.json_object import MAX_INTEGER, is_line
from batchwork_server.domain.reference import LONGEST_PLACE, PlaceInBatch
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.opaque import binding_of, read_token, write_token

ListRequest: TypeAlias = (
    GetContextRequest
    | GetValidationReportRequest
    | ListBatchesRequest
    | ListCompatibleCategoriesRequest
    | ListGroupMembersRequest
    | ListItemsRequest
    | ListJobsRequest
    | ListNotificationsRequest
    | ListOccurrencesRequest
    | ListPreferenceChangesRequest
    | ListPreferenceGroupsRequest
    | ListPreferencesRequest
    | ListReferencesRequest
    | ListUpcomingRunsRequest
)

_PAGING = ("page_size", "page_token", "skip")
_LONGEST_NAME = 128
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_LAST_TICK = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _TICK


def token_after_place(request: ListRequest, place: int | None) -> str:
    """Returns the token for the page after a number in the store's order; empty without one."""
    return "" if place is None else write_token(place, binding=_filters_of(request))


def token_after_names(request: ListRequest, names: tuple[str, str] | None) -> str:
    """Returns the token for the page after a pair of names; empty without one."""
    return "" if names is None else write_token(*names, binding=_filters_of(request))


def place_from(request: ListRequest, *, checks: Checks) -> int | None:
    """Returns where a page starts in the store's order; none for the first page."""
    match _values_from(request):
        case None:
            return None
        case [int(place)] if 0 <= place <= MAX_INTEGER:
            return place
    _refuse(checks)
    return None


def names_from(request: ListRequest, *, checks: Checks) -> tuple[str, str] | None:
    """Returns the pair of names after which a page starts; none for the first page."""
    match _values_from(request):
        case None:
            return None
        case [first, second] if _is_name(first) and _is_name(second):
            return first, second
    _refuse(checks)
    return None


def token_after_name(request: ListRequest, name: str | None) -> str:
    """Returns the token for the page after a name; empty without one."""
    return "" if name is None else write_token(name, binding=_filters_of(request))


def name_from(request: ListRequest, *, checks: Checks) -> str | None:
    """Returns the name after which a page starts; none for the first page."""
    match _values_from(request):
        case None:
            return None
        case [str(name)] if _is_name(name):
            return name
    _refuse(checks)
    return None


def token_after_numbered(request: ListRequest, place: tuple[str, int] | None) -> str:
    """Returns the token for the page after a name with a number; empty without one."""
    return "" if place is None else write_token(*place, binding=_filters_of(request))


def numbered_from(request: ListRequest, *, checks: Checks) -> tuple[str, int] | None:
    """Returns the name with a number after which a page starts; none for the first page."""
    match _values_from(request):
        case None:
            return None
        case [str(name), int(number)] if _is_name(name) and 0 <= number <= MAX_INTEGER:
            return name, number
    _refuse(checks)
    return None


def token_after_owned(
    request: ListRequest, place: tuple[str, *tuple[str | int, ...]] | None, *, tenant_id: str | None
) -> str:
    """Returns the token for the page after what a tenant owns; empty without a place.

    Args:
        place: Begins with the tenant.
        tenant_id: Whose things are listed, which a token need not say; None means everybody's.
    """
    if place is None:
        return ""
    values = place if tenant_id is None else place[1:]
    return write_token(*values, binding=_filters_of(request))


def preference_place_from(
    request: ListRequest, *, tenant_id: str | None, checks: Checks
) -> tuple[str, str, str] | None:
    """Returns the tenant, the feature and the user after whom a page starts; none for the first."""
    match _owned_from(request, tenant_id=tenant_id):
        case None:
            return None
        case [owner, feature_type, user_id] if all(map(_is_name, (owner, feature_type, user_id))):
            return owner, feature_type, user_id
    _refuse(checks)
    return None


def group_place_from(
    request: ListRequest, *, tenant_id: str | None, checks: Checks
) -> tuple[str, str, int] | None:
    """Returns the tenant, the feature and the key after which a page starts; none for the first."""
    match _owned_from(request, tenant_id=tenant_id):
        case None:
            return None
        case [owner, feature_type, int(group_key)] if (
            _is_name(owner) and _is_name(feature_type) and 0 <= group_key <= MAX_INTEGER
        ):
            return owner, feature_type, group_key
    _refuse(checks)
    return None


def change_place_from(
    request: ListRequest, *, tenant_id: str | None, checks: Checks
) -> tuple[str, int] | None:
    """Returns the tenant and the number after which a page starts; none for the first."""
    match _owned_from(request, tenant_id=tenant_id):
        case None:
            return None
        case [owner, int(sequence)] if _is_name(owner) and 0 <= sequence <= MAX_INTEGER:
            return owner, sequence
    _refuse(checks)
    return None


def _owned_from(request: ListRequest, *, tenant_id: str | None) -> list[Any] | None:
    """Returns the values of the token with the tenant before them."""
    values = _values_from(request)
    return values if values is None or tenant_id is None else [tenant_id, *values]


def reference_place_from(request: ListRequest, *, checks: Checks) -> tuple[str, int] | None:
    """Returns the place in a batch and its number after which a page of references starts."""
    match _values_from(request):
        case None:
            return None
        case [str(text), int(number)] if (
            is_line(text, longest=LONGEST_PLACE)
            and PlaceInBatch.read(text) is not None
            and 0 <= number <= MAX_INTEGER
        ):
            return text, number
    _refuse(checks)
    return None


def token_after_places(request: ListRequest, places: tuple[int, int] | None) -> str:
    """Returns the token for the page after a place inside of something; empty without one."""
    if places is None:
        return ""
    number, place = places
    return write_token(number, place + 1, binding=_filters_of(request))


def places_from(
    request: ListRequest, *, checks: Checks, most: int = MAX_INTEGER
) -> tuple[int, int] | None:
    """Returns the place inside of something after which a page starts; none for the first page.

    Args:
        most: How many things there are, if they are numbered without a gap.
    """
    match _values_from(request):
        case None:
            return None
        case [int(number), int(following)] if 0 <= number < most and 0 <= following <= MAX_INTEGER:
            return number, following - 1
    _refuse(checks)
    return None


def token_after_moment(request: ListRequest, place: tuple[datetime, str] | None) -> str:
    """Returns the token for the page after what has a name at a moment; empty without it."""
    if place is None:
        return ""
    moment, name = place
    return write_token((moment - _EPOCH) // _TICK, name, binding=_filters_of(request))


def moment_from(request: ListRequest, *, checks: Checks) -> tuple[datetime, str] | None:
    """Returns the moment and the name after which a page starts; none for the first page."""
    match _values_from(request):
        case None:
            return None
        case [int(ticks), name] if 0 <= ticks <= _LAST_TICK and _is_name(name):
            return _EPOCH + ticks * _TICK, name
    _refuse(checks)
    return None


def _values_from(request: ListRequest) -> list[Any] | None:
    """Returns the values of the token, nothing of a wrong one; none without a token."""
    if not request.page_token:
        return None
    return read_token(request.page_token, binding=_filters_of(request)) or []


def _filters_of(request: ListRequest) -> str:
    """Returns what differs when two requests do not ask for pages of the same list."""
    filters = deepcopy(request)
    for name in _PAGING:
        if name in request.DESCRIPTOR.fields_by_name:
            filters.ClearField(name)  # type: ignore[arg-type]
    kind = request.DESCRIPTOR.full_name.encode()
    return binding_of(kind + b"\0" + filters.SerializeToString(deterministic=True))


def _is_name(value: object) -> bool:
    return is_line(value, longest=_LONGEST_NAME)


def _refuse(checks: Checks) -> None:
    checks.refuse(
        "page_token",
        "This is no token of a page with these filters; repeat the filters of the first page, or "
        "start again without a token.",
    )
