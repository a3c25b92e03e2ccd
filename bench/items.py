"""What batches are made of here."""

from __future__ import annotations

from collections.abc import Iterator

from batchwork.v1.item_pb2 import ItemInput


def inputs(count: int) -> list[ItemInput]:
    """Returns items with about sixty bytes of data each."""
    return list(stream_of_inputs(count))


def stream_of_inputs(count: int) -> Iterator[ItemInput]:
    """Yields the same items, one by one."""
    return map(_input, range(1_000_000, 1_000_000 + count))


def _input(number: int) -> ItemInput:
    data = f'{{"account":{number},"handle":"account-{number}","followers":48213}}'
    return ItemInput(item_id=f"item-{number}", data_json=data)
