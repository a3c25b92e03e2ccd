"""What a batch would be made of, in a few characters: whether two plans are the same plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import orjson

from batchwork_server.application.planning import Plan
from batchwork_server.domain.batch import EXPECTED_CHUNK_DURATION, BatchRequest
from batchwork_server.domain.item import NewItem

VERSION = 3
"""Counts the ways in which digests were made; those of two ways cannot be compared."""

DIGITS = 24
"""Of a part's digest, in hexadecimal: enough that two plans never have the same by chance."""

_OF_A_PART = frozenset(
    {
        *("template", "options", "user_validation", "reference_validation", "distribution"),
        "notices",
    }
)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDigest:
    """Digests of what a batch would be made of, part by part.

    They hold nothing of the clock and of the server: an unchanged plan has the same ones.

    Attributes:
        version: Of the way in which they were made.
        job: The job with its revision, and all that it says of the batch.
        template: With its parameters.
        options: With every default filled in.
        items: Every item in its place, and what was found of the users.
        warnings: What may not be meant.
    """

    version: int = VERSION
    job: str
    template: str
    options: str
    items: str
    warnings: str

    def changed_since(self, planned: PlanDigest) -> tuple[str, ...]:
        """Returns the names of the parts that differ; all when they cannot be compared."""
        return tuple(
            name
            for name in PARTS
            if planned.version != self.version or getattr(planned, name) != getattr(self, name)
        )


PARTS = tuple(field.name for field in fields(PlanDigest) if field.name != "version")


def digest_of(plan: Plan) -> PlanDigest:
    """Returns the digests of a plan, by SHA-256; of a large one that takes a moment."""
    request = plan.request
    return PlanDigest(
        job=_digest([_job_part(request)]),
        template=_digest([request.template]),
        options=_digest([replace(request.options, chunk_duration=EXPECTED_CHUNK_DURATION)]),
        items=_digest(_item_parts(request, plan.items)),
        warnings=_digest(request.notices),
    )


def _job_part(request: BatchRequest) -> dict[str, Any]:
    """Returns what has no part of its own."""
    names = (field.name for field in fields(request))
    return {name: getattr(request, name) for name in names if name not in _OF_A_PART}


def _item_parts(request: BatchRequest, items: Iterable[NewItem]) -> Iterable[Any]:
    yield request.user_validation
    yield request.reference_validation
    yield request.distribution
    yield from items


def _digest(values: Iterable[Any]) -> str:
    """Returns the digest of values one after the other; each is JSON, so its end is sure."""
    digest = sha256()
    for value in values:
        digest.update(orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS))
    return digest.hexdigest()[:DIGITS]


def _plain(value: object) -> Any:
    """Returns what JSON has for a value that it does not know."""
    if isinstance(value, timedelta):
        return value // _MICROSECOND
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"A {type(value).__name__} has no place in a digest.")
