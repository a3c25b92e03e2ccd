"""Who calls, and whose things the call may see."""

from __future__ import annotations

from dataclasses import dataclass

from batchwork_server.errors import PermissionDenied

ALL_TENANTS = "-"
LONGEST_TENANT_ID = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody whose credentials were checked.

    Attributes:
        name: Of the credentials, for logs.
        is_operator: May name another tenant on reads.
    """

    tenant_id: str
    name: str
    is_operator: bool = False

    def scope(self, tenant_id: str) -> str | None:
        """Returns the tenant whose things a read may see; None means every tenant's.

        Args:
            tenant_id: As the request names it; empty means the caller's own.

        Raises:
            PermissionDenied: the request names another tenant, and the caller is no operator.
        """
        if not tenant_id or tenant_id == self.tenant_id:
            return self.tenant_id
        if not self.is_operator:
            raise PermissionDenied(
                f"Only an operator may name a tenant; leave tenant_id {tenant_id!r} out."
            )
        return None if tenant_id == ALL_TENANTS else tenant_id
