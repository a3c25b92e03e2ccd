"""What runs in the child process that checks items against a schema of a caller.

The server imports this module only to name its functions; the libraries are imported by the child.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
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
    validator = meta(dialect.META_SCHEMA, format_checker=_formats_of(dialect))
    try:
        errors = list(islice(validator.iter_errors(schema), MOST_FINDINGS_OF_ITEM))
        return [(_path(error.absolute_path), _shortened(error.message)) for error in errors]
    except _unexpected() as error:
        return [("$", _unusable(error))]


def check(schema_json: str, items: Sequence[tuple[str, str]]) -> list[CheckedItem]:
    """Checks items, each an id and JSON text, against a schema without problems.

    Raises:
        UnusableSchema: it refers to what is not in it, its addresses are none, or one of its rules
            is none.
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
    except _unexpected() as error:
        raise UnusableSchema(_unusable(error)) from error


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


@lru_cache(maxsize=4)  # pages of several calls come by turns
def _validator(schema_json: str) -> Any:
    from jsonschema_specifications import REGISTRY

    schema = json.loads(schema_json)
    dialect: Any = _dialect_of(schema)
    # This registry knows the dialects and fetches nothing.
    return _guarded(dialect)(schema, registry=REGISTRY)


def _dialect_of(schema: Any) -> Any:
    """Returns the class for the dialect of a schema; none when it names one that is not known."""
    from jsonschema.validators import Draft202012Validator, validator_for

    if not isinstance(schema, dict) or "$schema" not in schema:
        return Draft202012Validator
    unknown: Any = None
    if not isinstance(schema["$schema"], str):
        return unknown
    try:
        return validator_for(schema, default=unknown)
    except ValueError:  # it is no address
        return unknown


_OF_NUMBERS = ("multipleOf", "divisibleBy")
"""The rules that calculate with an item's number, which may be too large for that."""

_RULES = (
    *_OF_NUMBERS,
    *("type", "enum", "const", "uniqueItems", "required", "pattern", "patternProperties"),
    *("additionalProperties", "unevaluatedProperties", "dependencies", "dependentRequired"),
    *("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"),
    *("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"),
)
"""The rules that can be none in a place that no dialect looks at and a reference leads to."""


@cache
def _guarded(dialect: Any) -> Any:
    """Returns a dialect that tells of what goes wrong in a rule by the name of the rule."""
    from jsonschema.validators import extend

    known = [keyword for keyword in _RULES if keyword in dialect.VALIDATORS]
    rules = {keyword: _guard(keyword, dialect.VALIDATORS[keyword]) for keyword in known}
    return extend(dialect, rules)  # type: ignore[no-untyped-call]  # jsonschema left it out


def _guard(keyword: str, rule: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    from jsonschema.exceptions import ValidationError

    def apply(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        try:
            yield from rule(validator, value, instance, schema) or ()
        except RecursionError:
            raise  # of the item as a whole
        except _unexpected() as error:
            if isinstance(error, OverflowError) and keyword in _OF_NUMBERS:
                yield ValidationError("This number is too large for the rule.")
                return
            raise UnusableSchema(
                f"The rule `{keyword}` cannot be applied as {_shortened(repr(value))}: "
                f"{_shortened(_reason_of(error))}."
            ) from error

    return apply


@cache
def _unexpected() -> tuple[type[Exception], ...]:
    """Returns what the library lets through of a schema that its own rules allow."""
    from jsonschema.exceptions import UndefinedTypeCheck, UnknownType
    from referencing.exceptions import CannotDetermineSpecification, NoInternalID

    return (
        *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
        *(re.error, UnknownType, UndefinedTypeCheck, CannotDetermineSpecification, NoInternalID),
    )


def _unusable(error: Exception) -> str:
    return f"The schema cannot be used: {_shortened(_reason_of(error))}"


def _reason_of(error: Exception) -> str:
    from jsonschema.exceptions import UnknownType

    if isinstance(error, UnknownType):  # whose text is a whole page
        return f"{error.type!r} is no type"
    return str(error) or type(error).__name__


@cache
def _formats_of(dialect: Any) -> Any:
    """Returns the formats of a dialect, which refuse every pattern that cannot be used."""
    from jsonschema import FormatChecker

    formats = FormatChecker(formats=())
    formats.checkers = {**dialect.FORMAT_CHECKER.checkers, "regex": (_is_pattern, ())}
    return formats


def _is_pattern(value: object) -> bool:
    try:
        return not isinstance(value, str) or bool(re.compile(value))
    except (re.error, OverflowError, RecursionError):
        return False


def _path(parts: Iterable[str | int]) -> str:
    path = "$"
    for part in parts:
        path = f"{path}[{part}]" if isinstance(part, int) else child_path(path, part)
    return path


def _shortened(message: str) -> str:
    # Half a surrogate pair has no place in an answer.
    message = message.encode(errors="backslashreplace").decode()
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
