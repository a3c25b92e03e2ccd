"""The members of a JSON object in its text, so that some are replaced and the rest stays as it is.

Written anew, numbers beyond 64 bits would become others, and what is nested deep could not be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import orjson

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}:,]')
_SPACE = " \t\n\r"


def with_members(text: str, values: Mapping[str, object]) -> str:
    """Returns an object with other values of some members, each as often as it stands there.

    Args:
        text: Of a JSON object.
    """
    parts: list[str] = []
    done = 0
    for name, start, end in _members(text):
        if name in values:
            parts += (text[done:start], orjson.dumps(values[name]).decode())
            done = end
    return "".join((*parts, text[done:]))


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """Yields the name of each member, and where its value begins and ends."""
    depth, written, start = 0, "", -1
    for token in _TOKEN.finditer(text):
        mark = token[0][0]
        if depth == 1:
            if mark == '"' and start < 0:
                written = token[0]
            elif mark == ":":
                start = token.end()
            elif mark in ",}" and start >= 0:
                value = text[start : token.start()]
                first = start + len(value) - len(value.lstrip(_SPACE))
                yield orjson.loads(written), first, first + len(value.strip(_SPACE))
                start = -1
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
