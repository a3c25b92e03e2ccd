"""Renders text from an item with Jinja2, in a sandbox that bounds what a template can build."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.exceptions import (
    FilterArgumentError,
    SecurityError,
    TemplateRuntimeError,
    TemplateSyntaxError,
    UndefinedError,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from batchwork_server.domain.batch import Template
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemCall, ItemResult

DEFAULT_MAX_LENGTH = 100_000
"""Characters that an item's texts may have together when the template sets no ``max_length``."""

LARGEST_MAX_LENGTH = 1_000_000
"""The largest ``max_length``, in characters."""

LARGEST_VALUE = 1_000_000
"""The size up to which an expression may build a value: characters, elements, bytes of a number."""

LONGEST_RANGE = 10_000
"""The numbers that one ``range(…)`` may have."""

COMPILED_TEXTS = 256
"""How many compiled template texts are kept; the least recently used goes first."""

PARAMETERS = frozenset({"text", "max_length"})

_NAMES_IN_A_MESSAGE = 30


class RenderProcessor:
    """Fills an item's data into a template text, as plain text without escaping.

    Parameters of the template:
        ``text``: A Jinja2 text, and the result is ``{"text": "…"}``. Or an object of several
            texts by name, and the result is an object of what they become, by the same names.
        ``max_length``: Characters that all texts of an item may have together; 100,000 when
            unset, at most 1,000,000.

    Variables of a text: every key of the item's data when that is an object, and these, which win
    over a key of the same name:
        ``data``: The item's data as a whole.
        ``item``: ``id`` and ``user_id`` (empty when the item belongs to nobody).
        ``batch``: ``id``, ``tenant_id``, ``operation``, ``metadata``, and ``due_time`` in ISO
            8601 and UTC, empty when no schedule and no backfill made the batch.
        ``overrides``: What counts for the item's user, by name, such as ``overrides.tone``.
        ``attempt``: Counts from 1.
        ``model``: As the batch names it.

    ``a.b`` reads the key ``b`` before any method ``b``. Besides Jinja's own filters there are
    ``compact`` (475800000 to 475.8M) and ``percent`` (1.39 to 1.39%).

    What the sandbox bounds: the output, while it is rendered; what ``+``, ``*``, ``**`` build;
    ``range``. Filters and methods that make a text as wide as a number says (``center``,
    ``format``, ``indent``, ``ljust``, …) are not there. What it does not bound: the time of loops
    in loops, the memory of what ``~``, ``join``, ``replace``, macros and ``set`` blocks gather
    before it is output. That is why only operators write templates, and users bring data only.

    Rendering happens on the event loop: the text of a post takes ten microseconds, less than the
    way to a thread and back, and a report of a thousand rows a few milliseconds.
    """

    def __init__(self) -> None:
        self._environment = _PlainTextEnvironment()
        self._compiled = lru_cache(COMPILED_TEXTS)(self._environment.from_string)

    def check(self, template: Template) -> Sequence[str]:
        parameters = template.parameters
        return [
            *_unknown_parameters(parameters),
            *_max_length_problems(parameters.get("max_length", DEFAULT_MAX_LENGTH)),
            *self._text_problems(parameters),
        ]

    async def process(self, call: ItemCall) -> ItemResult:
        """Renders the template's texts for one item.

        Raises:
            ItemFailed: never retryable, because the same template and data end the same way:
                TEMPLATE_VARIABLE_MISSING, TEMPLATE_FORBIDDEN, TEMPLATE_FAILED (such as a sum of
                text and number), TEMPLATE_INVALID (one that ``check`` refuses), OUTPUT_TOO_LARGE.
        """
        text = call.parameters.get("text")
        room = call.parameters.get("max_length", DEFAULT_MAX_LENGTH)
        variables = _variables(call)
        if isinstance(text, str):
            return ItemResult(value={"text": self._render(text, variables, room=room)})
        return ItemResult(value=self._render_all(text, variables, room=room))

    def _text_problems(self, parameters: Mapping[str, Any]) -> Iterator[str]:
        match parameters.get("text"):
            case str(text):
                yield from self._syntax_problems("text", text)
            case Mapping() as texts if texts:
                for name, text in texts.items():
                    if isinstance(text, str):
                        yield from self._syntax_problems(f"text.{name}", text)
                    else:
                        yield f"text.{name} must be a text, not {_kind(text)}."
            case None:
                yield "text is missing: set it to the text to render, or to texts by name."
            case other:
                yield f"text must be a text or an object of texts by name, not {_kind(other)}."

    def _syntax_problems(self, path: str, text: str) -> Iterator[str]:
        try:
            parsed = self._environment.parse(text)
            self._environment.compile(parsed)
        except TemplateSyntaxError as error:
            yield f"{path}, line {error.lineno}: {error.message}"
            return
        for statement in parsed.find_all(_NEEDS_OTHER_FILES):
            yield (
                f"{path}, line {statement.lineno}: {type(statement).__name__.lower()} is not "
                "available; a text stands alone."
            )

    def _render_all(self, texts: Any, variables: Mapping[str, Any], *, room: int) -> dict[str, str]:
        if not isinstance(texts, Mapping):
            raise ItemFailed("TEMPLATE_INVALID", "The template has no text to render.")
        rendered = {}
        for name, text in texts.items():
            rendered[name] = self._render(text, variables, room=room)
            room -= len(rendered[name])
        return rendered

    def _render(self, text: str, variables: Mapping[str, Any], *, room: int) -> str:
        try:
            return _within(room, self._compiled(text).generate(variables))
        except UndefinedError as error:
            raise ItemFailed(
                "TEMPLATE_VARIABLE_MISSING",
                f"{error.message}; the variables are: {_some_of(sorted(variables))}.",
            ) from error
        except _TooLargeError as error:
            raise ItemFailed("OUTPUT_TOO_LARGE", str(error)) from error
        except SecurityError as error:
            raise ItemFailed("TEMPLATE_FORBIDDEN", str(error)) from error
        except TemplateSyntaxError as error:
            raise ItemFailed("TEMPLATE_INVALID", f"line {error.lineno}: {error.message}") from error
        except _RENDERING_ERRORS as error:
            raise ItemFailed("TEMPLATE_FAILED", f"{type(error).__name__}: {error}") from error


class _TooLargeError(SecurityError):
    """An expression asks for more than ``LARGEST_VALUE`` or ``LONGEST_RANGE``."""


_NEEDS_OTHER_FILES = (nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)

# What Python and Jinja raise where an expression does not fit its values. Anything else is a
# mistake of ours and not of the template, and is left to whoever called.
_RENDERING_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TemplateRuntimeError,
    TypeError,
    ValueError,
)


def _within(room: int, pieces: Iterator[str]) -> str:
    """Joins the pieces, and stops at the one with which they have more than ``room`` characters."""
    kept = []
    left = room
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise _TooLargeError(
                f"The text is longer than the {room} characters that max_length leaves for it."
            )
        kept.append(piece)
    return "".join(kept)


def _variables(call: ItemCall) -> dict[str, Any]:
    fields = call.data if isinstance(call.data, Mapping) else {}
    return {
        **fields,
        "data": call.data,
        "item": {"id": call.item_id, "user_id": call.user_id or ""},
        "batch": {
            "id": call.batch_id,
            "tenant_id": call.tenant_id,
            "operation": call.operation,
            "metadata": call.batch_metadata,
            "due_time": call.due_time.isoformat() if call.due_time else "",
        },
        "overrides": call.overrides,
        "attempt": call.attempt,
        "model": call.model,
    }


def _unknown_parameters(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(parameters.keys() - PARAMETERS):
        closest = difflib.get_close_matches(name, PARAMETERS, n=1)
        hint = f"did you mean {closest[0]}?" if closest else "there are: max_length, text."
        yield f"{name} is no parameter; {hint}"


def _max_length_problems(max_length: object) -> Iterator[str]:
    if isinstance(max_length, bool) or not isinstance(max_length, int):
        yield f"max_length must be a whole number of characters, not {_kind(max_length)}."
    elif not 1 <= max_length <= LARGEST_MAX_LENGTH:
        yield f"max_length is {max_length}; it must be from 1 to {LARGEST_MAX_LENGTH}."


def _kind(value: object) -> str:
    """Names a JSON value's kind for people."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case Mapping():
            return "an object"
        case _:
            return "a list"


def _some_of(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_NAMES_IN_A_MESSAGE])
    return listed if len(names) <= _NAMES_IN_A_MESSAGE else f"{listed}, …"


_WIDENING_FILTERS = ("batch", "center", "format", "indent")
_WIDENING_METHODS = frozenset(
    {"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"}
)


class _PlainTextEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2 for plain text, with bounds on what an expression can build.

    An intercepted operator is also not folded into a constant when a text is compiled, so the
    bounds hold there too.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self.globals = {"dict": dict, "namespace": Namespace, "range": _bounded_range}
        self.binop_table.update({"+": _add, "*": _multiply, "**": _power, "%": _modulo})
        self.filters.update(compact=compact, percent=percent)
        for name in _WIDENING_FILTERS:
            del self.filters[name]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Reads a key before a method, so that ``group.items`` is what the data says."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str | bytes) and attr in _WIDENING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Wraps nothing, so that ``str.format`` comes to ``is_safe_attribute`` and is refused."""
        return


def _refuse_beyond_bound(size: int) -> None:
    if size > LARGEST_VALUE:
        raise _TooLargeError(
            f"An expression asks for a value of {size} characters, elements or bytes; "
            f"the bound is {LARGEST_VALUE}."
        )


def _size(value: object) -> int:
    if isinstance(value, Sized):
        return len(value)
    return value.bit_length() // 8 if isinstance(value, int) else 0


def _add(left: Any, right: Any) -> Any:
    _refuse_beyond_bound(_size(left) + _size(right))
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    match left, right:
        case (Sized() as repeated, int(times)) | (int(times), Sized() as repeated):
            _refuse_beyond_bound(len(repeated) * times)
        case _:
            _refuse_beyond_bound(_size(left) + _size(right))
    return left * right


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int):
        _refuse_beyond_bound(base.bit_length() * exponent // 8)
    return base**exponent


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes):
        raise SecurityError("Formatting with % is not available; use filters.")
    return left % right


def _bounded_range(*bounds: int) -> range:
    numbers = range(*bounds)
    # len() fails on ranges beyond the machine's word; the slice never does.
    if numbers[LONGEST_RANGE : LONGEST_RANGE + 1]:
        raise _TooLargeError(f"A range has more than {LONGEST_RANGE} numbers.")
    return numbers


_COMPACT_UNITS = ("", "K", "M", "B", "T")


def compact(number: Any) -> str:
    """Shortens a number to at most one decimal and a unit of thousands: 475800000 is 475.8M.

    Units are K, M, B and T; a number beyond them keeps T.

    Raises:
        FilterArgumentError: it is no number.
    """
    _require_number("compact", number)
    scaled = float(number)
    for unit in _COMPACT_UNITS:
        rounded = round(scaled, 1)
        # Rounded first: 999,950 is 1M and never 1000K.
        if abs(rounded) < 1000 or unit == _COMPACT_UNITS[-1]:
            break
        scaled /= 1000
    return f"{_without_trailing_zeros(rounded, decimals=1)}{unit}"


def percent(number: Any, decimals: int = 2) -> str:
    """Writes a number that counts percent, 0 to 100, with at most so many decimals: 1.39%.

    A ratio, 0 to 1, is multiplied first: ``{{ (ratio * 100) | percent }}``.

    Raises:
        FilterArgumentError: it is no number, or ``decimals`` is not from 0 to 6.
    """
    _require_number("percent", number)
    if decimals not in range(7):
        raise FilterArgumentError(f"percent takes 0 to 6 decimals, not {decimals!r}")
    return f"{_without_trailing_zeros(float(number), decimals=decimals)}%"


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FilterArgumentError(f"{name} needs a number, not {value!r:.60}")


def _without_trailing_zeros(number: float, *, decimals: int) -> str:
    written = f"{number:.{decimals}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written
