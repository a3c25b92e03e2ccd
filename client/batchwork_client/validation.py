"""The client of ValidationService: one method per RPC."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from contextlib import aclosing
from itertools import islice
from typing import Any, Unpack

import grpc
from batchwork.v1 import validation_service_pb2 as messages
from batchwork.v1.job_pb2 import Job
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceStub

from batchwork_client.batches import BatchFields, Items, create_request, item_inputs, struct_of
from batchwork_client.calls import Calls
from batchwork_client.user_stream import stream_validate_users

IDS_PER_CALL = 10_000

_LARGEST_PAGE = 100


class Validation:
    """Tells whether what a batch would work on is there.

    A verdict is an answer; an exception means that no verdict could be reached.
    """

    def __init__(self, channel: grpc.aio.Channel, calls: Calls) -> None:
        self._stub = ValidationServiceStub(channel)
        self._calls = calls

    async def validate_users(self, user_ids: Iterable[str]) -> messages.ValidateUsersResponse:
        """Returns a verdict for each id, in the order of the ids, and the totals.

        Any number of ids is fine: more than the server takes at once go in several calls, so
        that the verdicts of a long list are not of one instant.

        Raises:
            InvalidArgumentError: There is no id.
        """
        answer = messages.ValidateUsersResponse()
        for chunk in _chunks(user_ids):
            part = await self._calls.unary(
                self._stub.ValidateUsers, messages.ValidateUsersRequest(user_ids=chunk)
            )
            answer.results.extend(part.results)
            for field, count in part.totals.ListFields():
                setattr(answer.totals, field.name, getattr(answer.totals, field.name) + count)
        return answer

    async def stream_validate_users(
        self, user_ids: Iterable[str] | AsyncIterable[str], *, include_valid: bool = False
    ) -> AsyncGenerator[messages.StreamValidateUsersResponse, None]:
        """Yields verdicts on any number of users, ten thousand at a time, in their order.

        The ids are read as the answers come, so that memory holds a few of the messages, however
        many ids there are. Read the answers as they come: the server waits for that, and not for
        ever.

        Args:
            user_ids: Any iterable; it is read once.
            include_valid: Results for valid users as well, who are only counted otherwise.

        Returns:
            For each message the results and totals, and the ``running_totals`` of all so far;
            those of the last one are those of all ids. No id is no answer.

        Raises:
            UnavailableError: The stream broke or the server stops. What was answered holds; go on
                with the ids after that.
            ResourceExhaustedError: The answers were not read.
        """
        answers = stream_validate_users(
            self._stub, user_ids, include_valid=include_valid, calls=self._calls
        )
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    async def validate_items(
        self,
        schema: Mapping[str, Any] | bool | str,
        items: Items = (),
        *,
        category: str = "",
        filters: Mapping[str, Any] | None = None,
        limit: int = 0,
        max_results: int = 0,
        tenant_id: str = "",
    ) -> messages.ValidateItemsResponse:
        """Checks items against a JSON Schema, counts per rule and lists what is invalid.

        Args:
            schema: The schema, or its JSON text.
            items: As for ``create_batch``; at most 50,000. Empty with a ``category``.
            category: Whose items are checked instead.
            filters: Narrow the category.
            limit: Checks at most so many items of the category; 0 means a million.
            max_results: Lists at most so many invalid items; 0 means 100.
            tenant_id: Another tenant; operators only.

        Raises:
            InvalidArgumentError: Something is wrong with the schema, or it takes too long.
        """
        request = messages.ValidateItemsRequest(
            schema_json=schema if isinstance(schema, str) else json.dumps(schema),
            items=item_inputs(items),
            category=category,
            limit=limit,
            max_results=max_results,
            tenant_id=tenant_id,
        )
        if filters:
            request.filters.CopyFrom(struct_of(filters))
        return await self._calls.unary(self._stub.ValidateItems, request)

    async def validate_jobs(
        self,
        jobs: str | Iterable[Job] = (),
        *,
        job_ids: Iterable[str] = (),
        all_stored: bool = False,
        tenant_id: str = "",
    ) -> messages.ValidateJobsResponse:
        """Returns all that is wrong with jobs, and all that may not be meant; changes nothing.

        Exactly one of the first three arguments is given.

        Args:
            jobs: A job file as JSON text, or jobs as ``create_job`` takes them.
            job_ids: Stored jobs.
            all_stored: Whether all stored jobs are meant.
            tenant_id: Another tenant; operators only.

        Raises:
            InvalidArgumentError: It does not say which jobs are meant.
            NotFoundError: A stored job does not exist.
        """
        text = jobs if isinstance(jobs, str) else ""
        request = messages.ValidateJobsRequest(
            jobs_json=text,
            jobs=() if isinstance(jobs, str) else jobs,
            job_ids=job_ids,
            all_stored=all_stored,
            tenant_id=tenant_id,
        )
        return await self._calls.unary(self._stub.ValidateJobs, request)

    async def validate_references(
        self, categories: Iterable[messages.CategoryReferences]
    ) -> messages.ValidateReferencesResponse:
        """Returns a verdict for each category and each user whom it lists, and the totals.

        Raises:
            InvalidArgumentError: There is no category, or there are more than 10,000, or they list
                more than 10,000 users.
        """
        request = messages.ValidateReferencesRequest(categories=categories)
        return await self._calls.unary(self._stub.ValidateReferences, request)

    async def validate_batch(
        self, items: Items = (), **fields: Unpack[BatchFields]
    ) -> messages.ValidateBatchResponse:
        """Tells all that is wrong with a batch, and what it would be; stores nothing.

        Args:
            items: As ``create_batch`` takes them.
            **fields: See ``BatchFields``.

        Raises:
            TypeError: JSON cannot express the data of an item.
            ValueError: The data of an item holds a NaN or an infinity.
        """
        request = messages.ValidateBatchRequest(batch=create_request(items, fields))
        return await self._calls.unary(self._stub.ValidateBatch, request)

    async def get_validation_report(
        self, batch_id: str, *, tenant_id: str = "", limit: int | None = None
    ) -> messages.GetValidationReportResponse:
        """Returns what was found of the users of a batch, all pages together.

        Args:
            batch_id: The batch.
            tenant_id: Another tenant, or ``-`` for any; operators only.
            limit: Lists at most so many users and references together, at least one; None means
                all.
        """
        report = messages.GetValidationReportResponse()
        while True:
            left = _LARGEST_PAGE if limit is None else limit - _listed(report)
            page = await self._calls.unary(
                self._stub.GetValidationReport,
                messages.GetValidationReportRequest(
                    batch_id=batch_id,
                    tenant_id=tenant_id,
                    page_size=max(1, min(left, _LARGEST_PAGE)),
                    page_token=report.next_page_token,
                ),
            )
            report.MergeFrom(page)
            report.next_page_token = page.next_page_token
            if not page.next_page_token or (limit is not None and _listed(report) >= limit):
                return report


def _listed(report: messages.GetValidationReportResponse) -> int:
    return len(report.invalid_users) + len(report.invalid_references)


def _chunks(user_ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(user_ids)
    # An empty list goes out too: what it means is the server's to say.
    yield list(islice(remaining, IDS_PER_CALL))
    while chunk := list(islice(remaining, IDS_PER_CALL)):
        yield chunk
