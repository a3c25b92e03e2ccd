"""Reads JSON that people wrote: takes fields by name and collects all that is wrong with them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Protocol, TypeVar

from batchwork_server.errors import FIELD_VIOLATION, Violation

MAX_DEPTH = 32
"""How deep lists and objects may be nested."""

MAX_INTEGER = 2**63 - 1
"""Whole numbers beyond it, either way, are refused: neither database could compare them."""

_Value = TypeVar("_Value")
_Parsed = TypeVar("_Parsed", covariant=True)


class Parse(Protocol[_Parsed]):
    """Turns a JSON value into a value of the domain, or says all that is wrong with it."""

    def __call__(self, value: Any, *, path: str) -> tuple[_Parsed | None, list[Violation]]: ...


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_BUT_BREAKS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_ANY_LINE = re.compile(".*", re.DOTALL)
_LONGEST_QUOTE = 80


def child_path(path: str, name: str) -> str:
    """Returns the JSON path of a field; a name that is no word stands in brackets."""
    if _PLAIN_NAME.fullmatch(name):
        return f"{path}.{name}"
    return f"{path}[{quoted(name)}]"


def quoted(value: Any) -> str:
    """Returns a value as a message names it: as JSON, shortened, safe to send and to print."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"


def listed(names: Sequence[str]) -> str:
    """Returns names as a message lists them; what is beyond the first twenty is only counted."""
    shown = ", ".join(quoted(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "none"


def is_line(value: object, *, longest: int) -> bool:
    """Tells whether a value is text of one line, neither empty nor longer, without controls."""
    return isinstance(value, str) and 0 < len(value) <= longest and not _CONTROL.search(value)


def are_lines(texts: Sequence[str], *, longest: int) -> bool:
    """Tells of several texts at once whether each of them is a line, as ``is_line`` says."""
    if not texts:
        return True
    lengths = [*map(len, texts)]
    return min(lengths) > 0 and max(lengths) <= longest and not _CONTROL.search("".join(texts))


def is_number(value: object) -> bool:
    """Tells whether a value is a finite number that a database can compare; true is none."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) <= MAX_INTEGER
    return isinstance(value, float) and math.isfinite(value)


def whole_number(value: object) -> int | None:
    """Returns the whole number that a JSON number is, 3.0 included; none for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def seconds_of(length: timedelta) -> float:
    """Returns a length of time as ``FieldReader.duration`` reads it, whole if it can be."""
    seconds = length.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def comparable(value: Any) -> Any:
    """Returns what equals another value only when JSON does not tell them apart.

    In Python true equals 1; in an object of JSON values that is a change.
    """
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value


def parse_json(text: str, *, path: str = "$") -> tuple[Any, list[Violation]]:
    """Parses JSON text and refuses what could not be kept or sent on as it is.

    Returns:
        The value, and every violation: no JSON (with line and column), a key that stands twice,
        and what ``unsound`` finds.
    """
    value, violations = decode_json(text, path=path)
    return value, violations or list(unsound(value, path=path))


def decode_json(text: str, *, path: str = "$") -> tuple[Any, list[Violation]]:
    """Parses JSON text; whoever takes a part of the value looks whether it is ``unsound``.

    Returns:
        The value, or none and why this is not JSON, with line and column.
    """
    try:
        value = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=_object_of,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        return None, [Violation(path, f"This is not JSON; at {place}: {error.msg}.")]
    except RecursionError:
        return None, [_too_deep(path)]
    except ValueError as error:
        return None, [Violation(path, f"This JSON holds a number that is none: {error}")]
    return value, []


def unsound(value: Any, *, path: str, depth: int = 0) -> Iterator[Violation]:
    """Finds what JSON can say but a database or a message cannot hold.

    That is: text with a null character or half a surrogate pair, numbers beyond 64 bits, and
    more than ``MAX_DEPTH`` levels.
    """
    if depth > MAX_DEPTH:
        yield _too_deep(path)
    elif isinstance(value, Mapping):
        yield from _unsound_object(value, path=path, depth=depth)
    elif isinstance(value, str):
        if _UNSTORABLE.search(value):
            yield Violation(path, "This text holds a null character or half a surrogate pair.")
    elif isinstance(value, Sequence):
        for index, element in enumerate(value):
            if depth == MAX_DEPTH or not _is_sound_scalar(element):
                yield from unsound(element, path=f"{path}[{index}]", depth=depth + 1)
    elif value is not None and not isinstance(value, bool) and not is_number(value):
        yield Violation(path, "This number does not fit into 64 bits.")


def _unsound_object(value: Mapping[str, Any], *, path: str, depth: int) -> Iterator[Violation]:
    for name in value.repeated if isinstance(value, _RepetitiveObject) else ():
        yield Violation(child_path(path, name), "This key stands twice in its object; keep one.")
    for name, element in value.items():
        if _UNSTORABLE.search(name):
            yield Violation(
                child_path(path, name), "This key holds a null character or half a surrogate pair."
            )
        if depth == MAX_DEPTH or not _is_sound_scalar(element):
            yield from unsound(element, path=child_path(path, name), depth=depth + 1)


def _is_sound_scalar(value: Any) -> bool:
    """Tells of most values in a file, without making the path of each, that they are sound."""
    if isinstance(value, str):
        return not _UNSTORABLE.search(value)
    return value is None or isinstance(value, bool) or is_number(value)


def _too_deep(path: str) -> Violation:
    return Violation(path, f"This is nested more than {MAX_DEPTH} levels deep.")


class _RepetitiveObject(dict[str, Any]):
    """An object in whose text some keys stand twice; the last of each is kept."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = tuple(name for name in self if names.count(name) > 1)


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else _RepetitiveObject(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


class FieldReader:
    """Takes the fields of one JSON object and notes all that is wrong with them.

    A field that is null counts as absent. A field that has several spellings is known by the
    first, and a violation names the one that was used. What is wrong is answered as if it were
    absent; the violation says more.

    Args:
        value: Anything; that it is not an object is a violation, too.
        path: Where the object stands.
        violations: What is found is added here.
    """

    def __init__(self, value: Any, *, path: str, violations: list[Violation]) -> None:
        self._path = path
        self._violations = violations
        self._known: dict[str, None] = {}
        self._used: dict[str, str] = {}
        self._fields: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            self._fields = value
        else:
            self._violations.append(Violation(path, f"{quoted(value)} is not an object."))

    def path_of(self, name: str) -> str:
        return child_path(self._path, self._used.get(name, name))

    def refuse(
        self, name: str, message: str, *, reason: str = FIELD_VIOLATION, limit: int | None = None
    ) -> None:
        self._violations.append(Violation(self.path_of(name), message, reason, limit))

    def add(self, violations: Iterable[Violation]) -> None:
        """Notes what was found elsewhere about this object."""
        self._violations.extend(violations)

    def take(self, name: str, *other_spellings: str) -> Any:
        """Returns the field as it is; two spellings with different values are a violation."""
        if not other_spellings:  # most fields, and a file has hundreds of thousands of them
            self._known[name] = None
            return self._fields.get(name)
        spellings = (name, *other_spellings)
        self.know(*spellings)
        used = [spelling for spelling in spellings if self._fields.get(spelling) is not None]
        if not used:
            return None
        self._used[name] = used[0]
        value = self._fields[used[0]]
        for other in used[1:]:
            if self._fields[other] != value:
                self._violations.append(
                    Violation(
                        child_path(self._path, other),
                        f"{quoted(self._fields[other])} differs from {quoted(value)} in "
                        f"`{used[0]}`; they are spellings of one field, keep one.",
                    )
                )
        return value

    def know(self, *names: str) -> None:
        """Keeps names from being refused as unknown."""
        for name in names:
            self._known[name] = None

    def has(self, *names: str) -> bool:
        """Tells whether one of the fields is there and not empty; it does not make them known."""
        return any(self._fields.get(name) not in (None, "") for name in names)

    def require(self, name: str, *other_spellings: str) -> bool:
        """Tells whether the field is there and not empty, and notes when it is not."""
        self.know(name, *other_spellings)
        if self.has(name, *other_spellings):
            return True
        self.refuse(name, "This field is required.")
        return False

    def line(self, name: str, *other_spellings: str, longest: int) -> str:
        """Returns text of one line; empty when it is absent."""
        value = self.take(name, *other_spellings)
        if value is None or value == "" or is_line(value, longest=longest):
            return value or ""
        self.refuse(
            name,
            f"{quoted(value)} is not text of one line with at most {longest} characters.",
        )
        return ""

    def prose(self, name: str, *, longest: int) -> str:
        """Returns text of any number of lines; empty when it is absent."""
        value = self.take(name)
        if value is None:
            return ""
        if not isinstance(value, str) or _CONTROL_BUT_BREAKS.search(value) or len(value) > longest:
            self.refuse(
                name,
                f"{quoted(value)} is not text with at most {longest} characters and without "
                "control characters.",
            )
            return ""
        return value

    def lines(
        self,
        name: str,
        *other_spellings: str,
        most: int,
        longest: int,
        form: re.Pattern[str] = _ANY_LINE,
    ) -> tuple[str, ...]:
        """Returns a list of different texts of one line; empty when it is absent.

        Args:
            form: What all of each text looks like.
        """
        value = self.take(name, *other_spellings)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.refuse(name, f"{quoted(value)} is not a list.")
            return ()
        if len(value) > most:
            self.refuse(name, f"{len(value)} are too many; the limit is {most}.")
            return ()
        seen: dict[str, None] = {}
        for index, element in enumerate(value):
            message = _line_problem(element, seen=seen, longest=longest, form=form)
            if message:
                self._violations.append(Violation(f"{self.path_of(name)}[{index}]", message))
            else:
                seen[element] = None
        return tuple(seen)

    def whole(self, name: str, *, least: int, most: int) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        number = whole_number(value)
        if number is None or not least <= number <= most:
            self.refuse(name, f"{quoted(value)} is not a whole number from {least} to {most}.")
            return None
        return number

    def number(self, name: str, *, least: float, most: float) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if not is_number(value) or not least <= value <= most:
            self.refuse(name, f"{quoted(value)} is not a number from {least:g} to {most:g}.")
            return None
        return float(value)

    def duration(self, name: str, *, least: timedelta, most: timedelta) -> timedelta | None:
        """Returns a length of time that is written as a number of seconds."""
        value = self.take(name)
        if value is None:
            return None
        shortest, longest = least.total_seconds(), most.total_seconds()
        if not is_number(value) or not shortest <= value <= longest:
            self.refuse(
                name,
                f"{quoted(value)} is not a number of seconds from {shortest:.10g} to "
                f"{longest:.10g}.",
            )
            return None
        return timedelta(seconds=value)

    def flag(self, name: str, *other_spellings: str) -> bool | None:
        value = self.take(name, *other_spellings)
        if value is None or isinstance(value, bool):
            return value
        self.refuse(name, f"{quoted(value)} is neither true nor false.")
        return None

    def choice(self, name: str, choices: Mapping[str, _Value]) -> _Value | None:
        """Returns what a word stands for; capital letters do not matter."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, str) and value.lower() in choices:
            return choices[value.lower()]
        self.refuse(name, f"{quoted(value)} is none of {listed(tuple(choices))}.")
        return None

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Returns an object; empty when it is absent."""
        value = self.take(name)
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return value
        self.refuse(name, f"{quoted(value)} is not an object.")
        return {}

    def nested(self, name: str, parse: Parse[_Value]) -> _Value | None:
        """Returns what ``parse`` makes of the field, and notes what it finds wrong."""
        value = self.take(name)
        if value is None:
            return None
        parsed, violations = parse(value, path=self.path_of(name))
        self.add(violations)
        return parsed

    def refuse_unknown(self, owner: str) -> None:
        """Notes each field that nobody took; ``owner`` says of what they are no fields."""
        for name, value in self._fields.items():
            if name in self._known or value is None:
                continue
            closest = get_close_matches(name[:128], self._known, n=1)
            meant = f"; did you mean `{closest[0]}`? It" if closest else "; it"
            known = ", ".join(f"`{known}`" for known in self._known)
            self.refuse(name, f"{quoted(name)} is no field of {owner}{meant} has {known}.")


def _line_problem(
    element: Any, *, seen: Mapping[str, None], longest: int, form: re.Pattern[str]
) -> str:
    if not is_line(element, longest=longest):
        return f"{quoted(element)} is not text of one line with 1 to {longest} characters."
    if not form.fullmatch(element):
        return f"{quoted(element)} does not look like {form.pattern}."
    return f"{quoted(element)} stands twice." if element in seen else ""
