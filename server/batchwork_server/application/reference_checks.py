"""Categories and the users whom they list, validated without a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchwork_server.application.validation import UserCheck, Validation
from batchwork_server.domain.json_object import is_line
from batchwork_server.domain.reference_validation import (
    CategoryVerdict,
    ReferenceValidation,
    count_categories,
    count_references,
    verdict_on,
)

LONGEST_CATEGORY_ID = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryReferences:
    """A thing of a category as far as it names users."""

    category_id: str
    user_ids: Sequence[str]
    member_ids: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryCheck:
    """What is known of a thing and of each of its references, in their order."""

    category_id: str
    verdict: CategoryVerdict
    user_ids: Sequence[UserCheck]
    member_ids: Sequence[UserCheck]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceReport:
    """A check for each thing that was asked for, in that order."""

    checks: Sequence[CategoryCheck]
    found: ReferenceValidation


class ReferenceChecks:
    """The use case behind ``ValidateReferences``."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation

    async def validate_references(
        self, categories: Sequence[CategoryReferences], *, tenant_id: str
    ) -> ReferenceReport:
        """Answers for each category; well-formed users are UNKNOWN while their source is away."""
        named = [user for each in categories for user in (*each.user_ids, *each.member_ids)]
        report = await self._validation.validate_users(named, tenant_id=tenant_id)
        known = iter(report.checks)
        checks = [
            _checked(
                each,
                user_ids=[next(known) for _ in each.user_ids],
                member_ids=[next(known) for _ in each.member_ids],
            )
            for each in categories
        ]
        return ReferenceReport(
            checks=checks,
            found=ReferenceValidation(
                categories=count_categories(check.verdict for check in checks),
                user_references=count_references(check.verdict for check in report.checks),
            ),
        )


def _checked(
    category: CategoryReferences,
    *,
    user_ids: Sequence[UserCheck],
    member_ids: Sequence[UserCheck],
) -> CategoryCheck:
    verdicts = [check.verdict for check in (*user_ids, *member_ids)]
    has_id = is_line(category.category_id, longest=LONGEST_CATEGORY_ID)
    return CategoryCheck(
        category_id=category.category_id,
        verdict=verdict_on(verdicts) if has_id else CategoryVerdict.MALFORMED,
        user_ids=user_ids,
        member_ids=member_ids,
    )
