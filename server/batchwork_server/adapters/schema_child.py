"""What runs in the child process that checks items against a schema of a caller.

The server imports this module only to name its functions; the libraries are imported by the child.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any

from batchwork_server.domain.item_schema import (
    MOST_FINDINGS_OF_ITEM,
    CheckedItem,
    Finding,
    Rule,
)
from batchwork_server.domain.json_object import child_path

MOST_MEMORY = 1024 * 1024 * 1024
LONGEST_MESSAGE = 300


class UnusableSchema(Exception):
    """A schema cannot be worked with, as a sentence."""


def bound_memory() -> None:
    """Lets the process have so much memory and no more, where the system can do that."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def problems_of(schema_json: str) -> list[tuple[str, str]]:
    """Returns what is wrong with a schema: where, and what."""
    from jsonschema.validators import validator_for

    schema = json.loads(schema_json)
    dialect = _dialect_of(schema)
    if dialect is None:
        return [("$", f"The dialect {schema['$schema']!r:.200} is not known.")]
    # A pattern that is none is found by the format "regex" of the meta-schema.
    meta = validator_for(dialect.META_SCHEMA)
    validator = meta(dialect.META_SCHEMA, format_checker=dialect.FORMAT_CHECKER)
    errors = islice(validator.iter_errors(schema), MOST_FINDINGS_OF_ITEM)
    return [(_path(error.absolute_path), _shortened(error.message)) for error in errors]


def check(schema_json: str, items: Sequence[tuple[str, str]]) -> list[CheckedItem]:
    """Checks items, each an id and JSON text, against a schema without problems.

    Raises:
        UnusableSchema: it refers to what is not in it, or its addresses are none.
    """
    from referencing.exceptions import Unresolvable

    try:
        validator = _validator(schema_json)
        return [CheckedItem(item_id, _findings(validator, text)) for item_id, text in items]
    except Unresolvable as error:
        reference = _shortened(str(error.ref))
        raise UnusableSchema(
            f"{reference} is not in the schema, and nothing is fetched; put it in `$defs`."
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # What the library does not expect of a schema that its own rules allow.
        raise UnusableSchema(f"The schema cannot be used: {_shortened(str(error))}") from error


def _findings(validator: Any, text: str) -> tuple[Finding, ...]:
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return (Finding("$", Rule("json", ""), _shortened(f"This is not JSON: {error}")),)
    found: list[Finding] = []
    try:
        for wrong in islice(validator.iter_errors(data), MOST_FINDINGS_OF_ITEM):
            rule = Rule(str(wrong.validator or "false"), _path(wrong.absolute_schema_path))
            found.append(Finding(_path(wrong.absolute_path), rule, _shortened(wrong.message)))
    except RecursionError:
        message = "This is nested too deep, or the schema refers to itself without end."
        found.append(Finding("$", Rule("$ref", ""), message))
    return tuple(found)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


@lru_cache(maxsize=1)
def _validator(schema_json: str) -> Any:
    from jsonschema_specifications import REGISTRY

    schema = json.loads(schema_json)
    dialect: Any = _dialect_of(schema)
    # This registry knows the dialects and fetches nothing.
    return dialect(schema, registry=REGISTRY)


def _dialect_of(schema: Any) -> Any:
    """Returns the class for the dialect of a schema; none when it names one that is not known."""
    from jsonschema.validators import Draft202012Validator, validator_for

    if not isinstance(schema, dict) or "$schema" not in schema:
        return Draft202012Validator
    unknown: Any = None
    if not isinstance(schema["$schema"], str):
        return unknown
    return validator_for(schema, default=unknown)


def _path(parts: Iterable[str | int]) -> str:
    path = "$"
    for part in parts:
        path = f"{path}[{part}]" if isinstance(part, int) else child_path(path, part)
    return path


def _shortened(message: str) -> str:
    # Half a surrogate pair has no place in an answer.
    message = message.encode(errors="backslashreplace").decode()
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
