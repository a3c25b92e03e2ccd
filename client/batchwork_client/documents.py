"""Batches as JSON documents, in the shapes that the requirement documents have.

One shape names items, the other one an operation with filters:

    {"source", "template_id", "items": [{"id", "name", "user_ids", "data"}], "batch_metadata"}
    {"operation", "filters": {"category", …}, "options": {"batchSize", …}, "name", "description"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_pb2 import Priority
from google.protobuf.json_format import ParseDict, ParseError

from batchwork_client.batches import BatchFields, item_input

_TEXTS = {
    "source": "source",
    "operation": "operation",
    "template_id": "template_id",
    "category": "category",
    "name": "display_name",
    "display_name": "display_name",
    "description": "description",
    "purpose_id": "purpose_id",
    "batch_id": "batch_id",
}
_OBJECTS = ("filters", "batch_metadata", "labels")
_KNOWN = (*_TEXTS, *_OBJECTS, "items", "limit", "options")

_OPTIONS = {
    "batchSize": "chunk_size",
    "retryAttempts": "retry_limit",
    "notifyOnComplete": "notify_on_complete",
}
_TIMEOUT = "timeout"  # in milliseconds
_NAMES_OF_ITEMS = ("item_id", "id")


class DocumentError(ValueError):
    """A document is no batch.

    Attributes:
        problems: Everything that is wrong, each with its place.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def batch_from_document(document: Any) -> tuple[list[ItemInput], BatchFields]:
    """Returns what ``create_batch`` and ``validate_batch`` take, of a JSON document.

    Nothing of the document is lost. An item is named by ``id`` or ``item_id``, and its user by
    ``user_id``; what else stands beside its ``data``, such as ``name``, ``user_ids`` and
    ``member_ids``, goes into the data. The category of a document without items may stand among
    its filters.

    Args:
        document: JSON values.

    Raises:
        DocumentError: Names everything that is wrong.
    """
    reader = _Reader(document)
    fields = reader.fields()
    items = reader.items()
    if reader.problems:
        raise DocumentError(reader.problems)
    return items, fields


class _Reader:
    """Takes a document apart, and notes what is wrong with it."""

    def __init__(self, document: Any) -> None:
        self.problems: list[str] = []
        self._document: Mapping[str, Any] = {}
        if isinstance(document, Mapping):
            self._document = {name: value for name, value in document.items() if value is not None}
        else:
            self.problems.append(f"{_shown(document)} is not an object")

    def fields(self) -> BatchFields:
        found: dict[str, Any] = {}
        for name, value in self._document.items():
            if name in _TEXTS:
                self._take_text(found, name, value)
            elif name in _OBJECTS:
                found[name] = self._object(name, value)
            elif name == "limit":
                found[name] = self._whole(name, value)
            elif name == "options":
                found[name] = self._options(self._object(name, value))
            elif name != "items":
                self.problems.append(f"{name}: there is no such field; there are {_listed(_KNOWN)}")
        if "items" not in self._document and "category" not in found:
            _take_category(found)
        return cast("BatchFields", found)

    def items(self) -> list[ItemInput]:
        entries = self._document.get("items", [])
        if not isinstance(entries, list):
            self.problems.append(f"items: {_shown(entries)} is not a list")
            return []
        items = [self._item(f"items[{index}]", entry) for index, entry in enumerate(entries)]
        return [item for item in items if item is not None]

    def _take_text(self, found: dict[str, Any], name: str, value: Any) -> None:
        field = _TEXTS[name]
        if not isinstance(value, str):
            self.problems.append(f"{name}: {_shown(value)} is not text")
        elif found.setdefault(field, value) != value:
            self.problems.append(f"{name}: this is another name of `{field}`; keep one")

    def _object(self, name: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        self.problems.append(f"{name}: {_shown(value)} is not an object")
        return {}

    def _whole(self, name: str, value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self.problems.append(f"{name}: {_shown(value)} is not a whole number")
        return 0

    def _options(self, given: Mapping[str, Any]) -> BatchOptions:
        options = BatchOptions()
        for name, value in given.items():
            try:
                ParseDict(dict([_option(name, value)]), options)
            except (ParseError, TypeError, ValueError):
                self.problems.append(f"options.{name}: {_refused(name, value)}")
        return options

    def _item(self, path: str, entry: Any) -> ItemInput | None:
        if not isinstance(entry, Mapping):
            self.problems.append(f"{path}: {_shown(entry)} is not an object")
            return None
        rest = dict(entry)
        names = [rest.pop(name) for name in _NAMES_OF_ITEMS if name in rest]
        if len(names) > 1:
            self.problems.append(f"{path}: `item_id` and `id` name the item both; keep one")
        user_id = rest.pop("user_id", None)
        data = self._data(path, rest)
        try:
            return item_input(_name(names[0] if names else None), data, user_id=_name(user_id))
        except (TypeError, ValueError) as error:
            self.problems.append(f"{path}: {error}")
            return None

    def _data(self, path: str, rest: dict[str, Any]) -> Any:
        """Returns the data of an item, with what stands beside it."""
        if "data" not in rest:
            return rest
        data = rest.pop("data")
        if not rest:
            return data
        if data is None:
            return rest
        if not isinstance(data, Mapping):
            beside = _listed(tuple(rest))
            self.problems.append(f"{path}.data: is no object that could hold {beside}, too")
            return data
        for name in rest.keys() & data.keys():
            if rest[name] != data[name]:
                self.problems.append(f"{path}.{name}: stands in `data`, too; keep one")
        return {**rest, **data}


def _take_category(found: dict[str, Any]) -> None:
    """The documents name the category among the filters."""
    filters = dict(found.get("filters", {}))
    if isinstance(filters.get("category"), str):
        found["category"] = filters.pop("category")
        found["filters"] = filters


def _option(name: str, value: Any) -> tuple[str, Any]:
    """Returns an option as the contract has it."""
    if name == _TIMEOUT:
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse(value)
        return "item_timeout", f"{value / 1000:.9f}s"
    if name == "priority":
        return name, f"PRIORITY_{value.upper()}" if isinstance(value, str) else _refuse(value)
    return _OPTIONS.get(name, name), value


def _refuse(value: Any) -> NoReturn:
    raise TypeError(value)


def _refused(name: str, value: Any) -> str:
    known = [field.name for field in BatchOptions.DESCRIPTOR.fields]
    field = "item_timeout" if name == _TIMEOUT else _OPTIONS.get(name, name)
    if field not in known:
        names = [other for other, meant in _OPTIONS.items() if meant in known]
        return f"there is no such option; there are {_listed((*known, *names, _TIMEOUT))}"
    if field == "priority":
        names = [each.removeprefix("PRIORITY_").lower() for each in Priority.keys()[1:]]
        return f"{_shown(value)} is none of {_listed(names)}"
    return f"{_shown(value)} is no value for it"


def _name(value: Any) -> str:
    return "" if value is None else str(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
