"""Plan tokens: what a run of a job was planned to be."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from batchwork_server.application.plan_digest import DIGITS, PARTS, VERSION, PlanDigest
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.opaque import binding_of, read_token, write_token

_KIND = "plan"


class PlanTokens:
    """Writes and reads the tokens of runs of one job with the same users.

    Args:
        tenant_id: Who owns the job.
        job_id: The job.
        user_ids: To whose items the run is restricted, in any order.
    """

    def __init__(self, *, tenant_id: str, job_id: str, user_ids: Iterable[str]) -> None:
        what = [_KIND, tenant_id, job_id, *sorted(set(user_ids))]
        self._binding = binding_of(orjson.dumps(what))

    def write(self, digest: PlanDigest) -> str:
        parts = (getattr(digest, name) for name in PARTS)
        return write_token(digest.version, *parts, binding=self._binding)

    def read(self, token: str, *, checks: Checks) -> PlanDigest | None:
        """Returns what was planned; none without a token."""
        if not token:
            return None
        match read_token(token, binding=self._binding):
            case [int(version), *parts] if len(parts) == len(PARTS) and all(map(_is_digest, parts)):
                return PlanDigest(version=version, **dict(zip(PARTS, parts, strict=True)))
            case [int(version), *_] if version != VERSION:  # Another release wrote other parts.
                return PlanDigest(version=version, **dict.fromkeys(PARTS, ""))
        checks.refuse(
            "plan_token",
            "This is no token of a plan of this job with these users; repeat the users of PlanJob, "
            "or run the job without a token.",
        )
        return None


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == DIGITS
