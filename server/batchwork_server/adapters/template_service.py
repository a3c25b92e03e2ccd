"""Templates from a service over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from batchwork_server.adapters.http_source import HttpSource, Reply
from batchwork_server.adapters.template_reading import Processors, TemplateReading
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Template
from batchwork_server.domain.json_object import FieldReader, decode_json, is_line, quoted, unsound
from batchwork_server.domain.read_templates import ReadTemplates
from batchwork_server.errors import SourceUnavailable, Violation

NAME = "Template Service"
PAGE = "docs/template-service.md"

MOST_TEMPLATES = 10_000
MOST_BYTES = 64 * 1024 * 1024
LARGEST_TEMPLATE = 256 * 1024

_LONGEST_TOKEN = 4096
_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True)
class _Page:
    """Some templates as they came.

    Attributes:
        size: In bytes.
    """

    templates: Sequence[Any]
    next_page_token: str
    reply: Reply
    size: int


class HttpTemplates:
    """Implements ``OutsideTemplates``.

    Args:
        url: The service, such as ``https://templates.example.com/api/v1``.
        api_key: Sent as ``Authorization: Bearer``; empty sends none.
        timeout: For one attempt, from the connection to the last byte.
        processors: Those that templates may name.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        timeout: timedelta,
        processors: Processors,
        clock: Clock,
    ) -> None:
        self._source = HttpSource(
            name=NAME,
            page=PAGE,
            url=url,
            url_setting="TEMPLATE_SERVICE_URL",
            api_key=api_key,
            key_setting="TEMPLATE_SERVICE_API_KEY",
            timeout=timeout,
            clock=clock,
        )
        self._processors = processors
        self._etag = ""
        self._digest = b""

    async def read(self, before: Mapping[str, Template]) -> ReadTemplates | None:
        """Returns all templates; none when the service says the same as at the last reading.

        Args:
            before: What was read before, by id.

        Raises:
            SourceUnavailable: the service is away, or answers what cannot be read.
        """
        first = await self._source.get("templates", known_etag=self._etag)
        if first.status == 304:
            return None
        pages = await self._pages(first)
        digest = hashlib.sha256("\0".join(page.reply.text for page in pages).encode()).digest()
        read = None
        if digest != self._digest:
            found = [template for page in pages for template in page.templates]
            read = await asyncio.to_thread(self._checked, found, before)
        # Not before it is checked, or the service would not say it again. One tag speaks for one
        # page.
        self._digest, self._etag = digest, first.etag if len(pages) == 1 else ""
        return read

    async def close(self) -> None:
        """Ends the connections."""
        await self._source.close()

    async def _pages(self, first: Reply) -> list[_Page]:
        pages = [await asyncio.to_thread(_page, first)]
        tokens = set[str]()
        while token := pages[-1].next_page_token:
            if token in tokens:
                raise _unreadable(pages[-1].reply, f"its next_page_token is {quoted(token)} again")
            tokens.add(token)
            reply = await self._source.get("templates", page_token=token)
            pages.append(await asyncio.to_thread(_page, reply))
            if sum(len(page.templates) for page in pages) > MOST_TEMPLATES:
                raise _unreadable(reply, f"there are more than {MOST_TEMPLATES} templates")
            if sum(page.size for page in pages) > MOST_BYTES:
                raise _unreadable(reply, f"the pages have more than {MOST_BYTES} bytes together")
        return pages

    def _checked(self, found: Sequence[Any], before: Mapping[str, Template]) -> ReadTemplates:
        """Reads templates one by one, so that a broken one loses no other."""
        reading = TemplateReading(self._processors)
        for index, content in enumerate(found):
            template_id = _id_of(content)
            place = f"$.templates[{index}]" + (f" ({template_id})" if template_id else "")
            wrong = len(reading.violations)
            _take(reading, place, content)
            if len(reading.violations) > wrong and template_id in before:
                reading.keep(place, before[template_id])
        clashing = {each.place for each, _ in reading.claims_in_vain()}
        problems = [*reading.violations, *(violation for _, violation in reading.claims_in_vain())]
        templates = [each.template for each in reading.found if each.place not in clashing]
        return ReadTemplates(
            templates=sorted(templates, key=lambda template: template.template_id),
            problems=problems,
        )


def _take(reading: TemplateReading, place: str, content: Any) -> None:
    violations = list(unsound(content, path=place))
    size = 0 if violations else len(json.dumps(content, ensure_ascii=False).encode())
    if size > LARGEST_TEMPLATE:
        message = f"has {size} bytes; the limit is {LARGEST_TEMPLATE}."
        violations = [Violation(place, message, limit=LARGEST_TEMPLATE)]
    if violations:
        reading.violations += violations
    else:
        reading.take(place, content)


def _id_of(content: Any) -> str:
    """Returns the id of a template, also of one that is broken; empty when it has none."""
    template_id = content.get("template_id") if isinstance(content, Mapping) else None
    return str(template_id) if is_line(template_id, longest=_LONGEST_NAME) else ""


def _page(reply: Reply) -> _Page:
    """Reads a list of templates, or an object with it and with what follows."""
    if reply.status != 200:
        raise SourceUnavailable(
            f"Error connecting to {NAME}: GET {reply.url} was answered with {reply.status}. "
            "Check TEMPLATE_SERVICE_URL."
        )
    value, violations = decode_json(reply.text)
    size = len(reply.text.encode())
    if violations:
        raise _unreadable(reply, violations[0].message)
    if isinstance(value, list):
        return _Page(value, "", reply, size)
    fields = FieldReader(value, path="$", violations=violations)
    templates = fields.take("templates")
    token = fields.line("next_page_token", longest=_LONGEST_TOKEN)
    if not isinstance(templates, list):
        fields.refuse("templates", f"{quoted(templates)} is not a list.")
    if violations:
        raise _unreadable(reply, f"{violations[0].path}: {violations[0].message}")
    return _Page(templates, token, reply, size)


def _unreadable(reply: Reply, problem: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{NAME} answered GET {reply.url} with what cannot be read: {problem.rstrip('.')}. "
        f"{PAGE} has the shapes."
    )
