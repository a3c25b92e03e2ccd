"""Which things a list keeps: what a caller may ask for is what the store can be asked."""

from __future__ import annotations

from batchwork_server.store.store import BatchFilter, ItemFilter, JobFilter, PreferenceFilter

__all__ = ["BatchFilter", "ItemFilter", "JobFilter", "PreferenceFilter"]
