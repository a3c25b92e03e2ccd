"""Files that say what a batch is to be: its items, or a whole JSON document."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.item_pb2 import ItemInput

from batchwork_client.batches import BatchFields
from batchwork_client.cli.inputs import InputError, items_from, json_from, read_text
from batchwork_client.documents import DocumentError, batch_from_document


def batch_from(
    path: str, *, id_field: str = "", user_field: str = ""
) -> tuple[list[ItemInput], BatchFields]:
    """Returns the items of a file, and what else a JSON document says of their batch.

    A list, JSON lines and CSV hold nothing but items, and of a document whose items are named by
    fields of the caller's nothing else is read.

    Raises:
        InputError: Names everything that is wrong with its place.
    """
    if id_field or user_field or Path(path).suffix.lower() != ".json":
        return items_from(path, id_field=id_field, user_field=user_field), BatchFields()
    try:
        document = json_from(read_text(path))
    except ValueError as error:
        raise InputError([f"{path}: not JSON: {error}"]) from error
    if not isinstance(document, dict):
        return items_from(path), BatchFields()
    try:
        return batch_from_document(document)
    except DocumentError as error:
        raise InputError([f"{path}: {problem}" for problem in error.problems]) from error


def over(stated: BatchFields, given: BatchFields) -> BatchFields:
    """Returns what a file says of its batch, with what the command line says over it."""
    together: dict[str, Any] = dict(stated)
    for name, value in given.items():
        before = together.get(name)
        if isinstance(value, BatchOptions):
            options = BatchOptions()
            options.CopyFrom(cast("BatchOptions", before) if before is not None else options)
            options.MergeFrom(value)
            together[name] = options
        elif isinstance(value, dict) and isinstance(before, dict):
            together[name] = {**before, **value}
        elif value:
            together[name] = value
    return cast("BatchFields", together)
