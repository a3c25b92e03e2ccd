"""What the command line writes: JSON for programs, tables for people, problems on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, cast

import typer
from batchwork.v1.batch_pb2 import Batch, BatchCounts, BatchState, WaitReason
from batchwork.v1.batch_pb2 import Warning as BatchWarning
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchwork_client.cli.inputs import short_name

# Without a terminal there is nothing to fit into, and a cut id is of no use.
_WIDTH_WITHOUT_TERMINAL = 1_000
_PACKAGE = "batchwork.v1"


def write_json(document: Any) -> None:
    """Writes one JSON document on a line of stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False))


def write_message(message: Message) -> None:
    """Writes one message on a line of stdout."""
    write_json(document_of(message))


def document_of(message: Message) -> dict[str, Any]:
    """Returns a message in the JSON form of protobuf, except that every number is a number.

    Fields are named as in the contract, and those with their default value are there too.
    """
    document: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _make_numbers(cast("Descriptor", message.DESCRIPTOR), document)
    return document


def _make_numbers(descriptor: Descriptor, document: dict[str, Any]) -> None:
    for field in descriptor.fields:
        if field.name in document:
            document[field.name] = _with_numbers(field, document[field.name])


def _with_numbers(field: FieldDescriptor, value: Any) -> Any:
    # Protobuf writes 64-bit integers as strings, which programs then compare as strings.
    kind = field.message_type
    if kind is None:
        return int(value) if field.cpp_type == field.CPPTYPE_INT64 else value
    if kind.GetOptions().map_entry:
        values = kind.fields_by_name["value"]
        return {key: _with_numbers(values, each) for key, each in value.items()}
    if kind.file.package == _PACKAGE:
        for part in value if isinstance(value, list) else [value]:
            _make_numbers(kind, part)
    return value


def write_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes rows under headings to stdout; without a terminal nothing is cut."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        # Text keeps brackets from being read as markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table, soft_wrap=not console.is_terminal)


def write_owned(
    headings: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, with_tenant: bool
) -> None:
    """Writes rows, each with its tenant before it, who is shown where several are listed."""
    if with_tenant:
        write_table(("TENANT", *headings), ((tenant, *row) for tenant, row in rows))
    else:
        write_table(headings, (row for _, row in rows))


def write_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Writes named facts to stdout, those with an empty value left out."""
    write_table(("", ""), [fact for fact in facts if fact[1]])


def note(text: str) -> None:
    """Tells a person something on stderr."""
    typer.echo(printable(text), err=True)


def note_warnings(warnings: Iterable[BatchWarning]) -> None:
    """Tells a person on stderr what was accepted but may not be meant."""
    for warning in warnings:
        note(f"warning: {warning.path}: {warning.message}")


def problem(text: str) -> None:
    """Tells a person on stderr, on one line, what went wrong."""
    note(f"error: {text}")


def printable(text: str) -> str:
    """Returns ``text`` on one line and without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def state_name(batch: Batch) -> str:
    """Returns the state of a batch without its prefix."""
    return short_name(BatchState.DESCRIPTOR, batch.state)


def batch_facts(batch: Batch) -> list[tuple[str, str]]:
    """Returns what a person wants to know of a batch."""
    return [
        ("batch", batch.batch_id),
        ("name", batch.display_name),
        ("state", state_name(batch)),
        ("reason", _joined(batch.state_reason, batch.state_message)),
        ("resumes", time_in_words(batch, "resume_time")),
        *(("waits for", _wait_in_words(wait)) for wait in _more_waits(batch)),
        ("attempt", str(batch.attempt_number) if batch.attempt_number > 1 else ""),
        ("items", counts_in_words(batch.counts)),
        ("operation", batch.operation),
        ("template", batch.template_id),
        ("job", f"{batch.job_id} (revision {batch.job_revision})" if batch.job_id else ""),
        ("categories", ", ".join(batch.categories)),
        ("due", time_in_words(batch, "due_time")),
        ("created", time_in_words(batch, "create_time")),
        ("started", time_in_words(batch, "start_time")),
        ("expires", time_in_words(batch, "expire_time")),
        ("ended", time_in_words(batch, "end_time")),
    ]


def _more_waits(batch: Batch) -> list[WaitReason]:
    """Returns what a batch waits for besides what its state says already."""
    return [wait for wait in batch.wait_reasons if wait.reason != batch.state_reason]


def _wait_in_words(wait: WaitReason) -> str:
    until = time_in_words(wait, "until")
    return _joined(wait.reason, wait.message) + (f" Until {until}." if until else "")


def _joined(code: str, message: str) -> str:
    return f"{code}: {message}" if code and message else code or message


def counts_in_words(counts: BatchCounts) -> str:
    """Returns counts such as ``40 of 200 done, 1 failed``; what is zero is left out."""
    parts = [f"{done_of(counts)} of {counts.total} done"]
    for name in ("failed", "skipped", "cancelled", "expired", "running", "retries"):
        count = getattr(counts, name)
        if count:
            parts.append(f"{count} {name}")
    return ", ".join(parts)


def done_of(counts: BatchCounts) -> int:
    """Returns how many items are done, however they ended."""
    return counts.total - counts.pending - counts.running


def time_in_words(message: Message, field: str) -> str:
    """Returns a timestamp of a message in UTC to the second; empty when it is unset."""
    if not message.HasField(field):
        return ""
    timestamp: Timestamp = getattr(message, field)
    return f"{timestamp.ToDatetime():%Y-%m-%d %H:%M:%S}Z"


def json_in_words(message: Message) -> str:
    """Returns a message as JSON on one line, without what is unset."""
    return MessageToJson(message, indent=None, preserving_proto_field_name=True)


def seconds_in_words(duration: Duration) -> str:
    """Returns a duration such as ``1.25 s``."""
    return f"{duration.ToTimedelta().total_seconds():.2f} s"


def stderr_is_terminal() -> bool:
    """Tells whether somebody can see a bar move."""
    return sys.stderr.isatty()
