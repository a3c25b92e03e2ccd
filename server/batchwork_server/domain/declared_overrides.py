"""The overrides that a template declares, and how what several say of them becomes one.

Four say what an override is; of what comes later in this list the last one counts, name by name,
and each value as a whole, lists and objects included:

1. the template, by the defaults of what it declares,
2. the job, by its ``default_preferences``,
3. the tenant, by its default for the feature,
4. the user.

A null takes back what those before say, except the template. A value that the template does not
allow counts as little as a null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchwork_server.domain.json_object import (
    FieldReader,
    child_path,
    is_line,
    is_number,
    quoted,
    whole_number,
)
from batchwork_server.errors import Violation

MOST_DECLARED = 100
MOST_CHOICES = 100
LONGEST_NAME = 128
LONGEST_DESCRIPTION = 1024

_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": is_number,
    "integer": lambda value: whole_number(value) is not None,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredOverride:
    """One override that a template knows.

    Attributes:
        default: A JSON value, which counts when nobody says another one; None means that there is
            none.
        kind: The name of a type in JSON Schema; empty allows any.
        choices: The values that are allowed; empty allows all of the kind.
    """

    default: Any = None
    kind: str = ""
    choices: tuple[Any, ...] = ()
    description: str = ""

    def problem_of(self, value: Any) -> str:
        """Returns what is wrong with a value, as a sentence; nothing when it is allowed."""
        if self.kind and not _KINDS[self.kind](value):
            return f"{quoted(value)} is not of the type {self.kind}."
        if self.choices and not any(_same(value, choice) for choice in self.choices):
            return f"{quoted(value)} is none of {listed_values(self.choices)}."
        return ""


DeclaredOverrides = Mapping[str, DeclaredOverride]


def merged_overrides(*said: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what counts of what several say, whoever comes later over those before."""
    merged: dict[str, Any] = {}
    for overrides in said:
        for name, value in overrides.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = value
    return merged


def defaults_of(declared: DeclaredOverrides | None) -> dict[str, Any]:
    """Returns what a template says by itself; of one that declares nothing, nothing."""
    if not declared:
        return {}
    return {name: each.default for name, each in declared.items() if each.default is not None}


def over_defaults(said: Mapping[str, Any], declared: DeclaredOverrides | None) -> Mapping[str, Any]:
    """Returns what a processor sees of merged overrides."""
    if not declared:
        return said
    allowed = {
        name: value
        for name, value in said.items()
        if name not in declared or not declared[name].problem_of(value)
    }
    return defaults_of(declared) | allowed


def parse_declared_overrides(
    value: Any, *, path: str
) -> tuple[dict[str, DeclaredOverride] | None, list[Violation]]:
    """Reads what a template declares: an object of ``default``, ``type``, ``enum`` by name.

    Returns:
        What is declared, or none and every violation.
    """
    violations: list[Violation] = []
    if not isinstance(value, Mapping):
        return None, [Violation(path, f"{quoted(value)} is not an object of overrides by name.")]
    if len(value) > MOST_DECLARED:
        message = f"{len(value)} overrides are too many; the limit is {MOST_DECLARED}."
        return None, [Violation(path, message, limit=MOST_DECLARED)]
    declared = {}
    for name, fields in value.items():
        place = child_path(path, str(name))
        if not is_line(name, longest=LONGEST_NAME):
            message = f"{quoted(name)} is not text of one line with 1 to {LONGEST_NAME} characters."
            violations.append(Violation(place, message))
        declared[str(name)] = _read(fields, path=place, violations=violations)
    return (None, violations) if violations else (declared, [])


def render_declared_overrides(declared: DeclaredOverrides | None) -> dict[str, Any] | None:
    """Writes what ``parse_declared_overrides`` reads as equal."""
    if declared is None:
        return None
    return {name: dict(_fields_of(each)) for name, each in declared.items()}


def listed_values(values: tuple[Any, ...]) -> str:
    """Returns values as a message lists them."""
    shown = ", ".join(quoted(value) for value in values[:20])
    return f"{shown} and {len(values) - 20} more" if len(values) > 20 else shown


def _fields_of(declared: DeclaredOverride) -> list[tuple[str, Any]]:
    fields = [
        ("default", declared.default),
        ("type", declared.kind),
        ("enum", list(declared.choices)),
        ("description", declared.description),
    ]
    return [(name, value) for name, value in fields if value not in (None, "", [])]


def _read(value: Any, *, path: str, violations: list[Violation]) -> DeclaredOverride:
    before = len(violations)
    fields = FieldReader(value, path=path, violations=violations)
    if len(violations) > before:
        return DeclaredOverride()
    declared = DeclaredOverride(
        kind=fields.choice("type", {kind: kind for kind in _KINDS}) or "",
        choices=_read_choices(fields),
        description=fields.prose("description", longest=LONGEST_DESCRIPTION),
        default=fields.take("default"),
    )
    fields.refuse_unknown("an override")
    problem = "" if declared.default is None else declared.problem_of(declared.default)
    if problem and len(violations) == before:
        fields.refuse("default", problem)
    return declared


def _read_choices(fields: FieldReader) -> tuple[Any, ...]:
    value = fields.take("enum")
    if value is None:
        return ()
    if isinstance(value, list) and 0 < len(value) <= MOST_CHOICES:
        return tuple(value)
    fields.refuse("enum", f"{quoted(value)} is not a list of 1 to {MOST_CHOICES} values.")
    return ()


def _same(value: Any, other: Any) -> bool:
    """Tells whether two JSON values are equal; in Python true equals 1."""
    return isinstance(value, bool) is isinstance(other, bool) and bool(value == other)
