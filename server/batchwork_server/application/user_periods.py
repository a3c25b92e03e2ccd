"""What may be told of a user and a period, and the facts that it is told from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from batchwork_server.application.preference_views import EffectiveView
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.group_schedules import MemberSkip, UserRun
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.preference_groups import Period
from batchwork_server.domain.preference_history import PreferenceHistory
from batchwork_server.domain.reference import OwnItem

_OPTED_OUT = "PREFERENCE_DISABLED"


class UserDecision(StrEnum):
    """What became of a user in a period."""

    DONE = "DONE"  # there was work for them
    SKIPPED = "SKIPPED"  # there is a reason
    OPTED_OUT = "OPTED_OUT"  # they do not want the feature
    NOT_YET = "NOT_YET"  # they are due later in the period
    NO_PREFERENCE = "NO_PREFERENCE"  # they have set nothing, and the job is not for those
    NO_SCHEDULE = "NO_SCHEDULE"  # nobody names a schedule
    NO_JOB = "NO_JOB"  # preferences for the feature drive no job


class Untold(StrEnum):
    """Why, where no item tells and no decision about the group's due time."""

    RUN_DELETED = "RUN_DELETED"  # the group ran; what became of the item went with the batch
    NOT_IN_BATCH = "NOT_IN_BATCH"  # the group ran without the user
    JOB_PAUSED = "JOB_PAUSED"  # the job is paused, or was
    CHANGED_LATER = "CHANGED_LATER"  # who is due when was set after the due time
    NOT_FIRED = "NOT_FIRED"  # nobody has decided about the due time


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPeriod:
    """What became of a user in one period of a job.

    Attributes:
        period: None for what holds whatever the period.
        item_id: Empty where the user has no item of their own.
    """

    job_id: str
    decision: UserDecision
    message: str
    period: Period | None = None
    reason: str = ""
    due_time: datetime | None = None
    batch_id: str = ""
    item_id: str = ""
    group_key: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One user and one job.

    Attributes:
        run: What the job did last for the user.
        silent_key: The group of those who name no schedule, where that is for those who have set
            nothing as well; None where it is not.
        start: The first instant to tell about.
        end: The first instant not to tell about, but to complete a period.
    """

    user_id: str
    feature_type: str
    job: StoredJob
    view: EffectiveView
    preference: Preference | None
    default: DefaultPreference | None
    history: PreferenceHistory
    run: UserRun | None
    silent_key: int | None
    start: datetime
    end: datetime

    @property
    def is_served(self) -> bool:
        """Tells whether the job is for such a user at all."""
        return self.preference is not None or self.job.definition.include_all_users

    def group_at(self, moment: datetime) -> int | None:
        """Returns the group whose runs were for the user at a moment; None for none."""
        standing = self.history.at(moment)
        return standing.group_key if standing.has_preference else self.silent_key


def told_by_item(case: Case, batch: Batch, item: OwnItem) -> UserPeriod:
    """Tells what became of a user by their item, their own or one that they share."""
    decision, reason, message = _in_words(case, item)
    return UserPeriod(
        job_id=batch.request.job_id,
        decision=decision,
        reason=reason,
        due_time=batch.request.due_time,
        batch_id=batch.batch_id,
        item_id=item.item_id,
        group_key=int(batch.request.batch_metadata.get("group_key", 0)),
        message=message,
    )


def _in_words(case: Case, item: OwnItem) -> tuple[UserDecision, str, str]:
    if item.state is not ItemState.SKIPPED or not item.reason:
        return UserDecision.DONE, "", f"The item of the run is {item.state}."
    if item.reason != _OPTED_OUT:
        return UserDecision.SKIPPED, item.reason, f"They were skipped: {item.reason}."
    if _rested(case, item):
        message = "Whoever keeps them said that they rest, before their item began."
        return UserDecision.SKIPPED, MemberSkip.TENANT_INACTIVE, message
    return UserDecision.OPTED_OUT, item.reason, "They opted out before their item began."


def _rested(case: Case, item: OwnItem) -> bool:
    """Tells whether the user wanted the feature when nothing was done for them.

    An item is spared for one reason, whether they do not want it or rest.
    """
    if item.end_time is None or not case.history.reaches(item.end_time):
        return False
    return case.history.at(item.end_time).group_key is not None


def told_by_ledger(run: UserRun, job_id: str) -> list[UserPeriod]:
    """Tells the last run of a user, and why nothing was done when they were looked at last."""
    told: list[UserPeriod] = []
    if run.due_time is not None:
        told.append(
            UserPeriod(
                job_id=job_id,
                decision=UserDecision.DONE,
                due_time=run.due_time,
                batch_id=run.batch_id,
                item_id=run.item_id,
                group_key=run.group_key,
                message="There was a run for them.",
            )
        )
    if run.look_reason:
        told.append(
            UserPeriod(
                job_id=job_id,
                decision=UserDecision.SKIPPED,
                reason=run.look_reason,
                due_time=run.look_due_time,
                batch_id=run.look_batch_id,
                group_key=run.look_group_key,
                message=f"They were skipped: {run.look_reason}.",
            )
        )
    return told
