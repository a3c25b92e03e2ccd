"""Tokens that callers hand back as they got them: a few JSON values, bound to what they are for."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any

import orjson

LONGEST_TOKEN = 2048


def binding_of(content: bytes) -> str:
    """Returns a short name for what a token is bound to."""
    return sha256(content).hexdigest()[:16]


def write_token(*values: str | int, binding: str) -> str:
    return urlsafe_b64encode(orjson.dumps([binding, *values])).rstrip(b"=").decode()


def read_token(token: str, *, binding: str) -> list[Any] | None:
    """Returns the values of a token; none when it is no token, or one for something else.

    Nothing keeps callers from making tokens, so the values are to be checked like any input.
    """
    if len(token) > LONGEST_TOKEN:
        return None
    try:
        parts = orjson.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(parts, list) or not parts or parts[0] != binding:
        return None
    return parts[1:]
