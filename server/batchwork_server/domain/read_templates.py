"""What a template service said, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchwork_server.domain.batch import Template
from batchwork_server.errors import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTemplates:
    """All templates of a service.

    Attributes:
        templates: By id; instead of one that is broken what it was before, when there was one.
        problems: What is wrong with those that were set aside.
    """

    templates: Sequence[Template]
    problems: Sequence[Violation] = ()
