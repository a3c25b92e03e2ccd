"""What batches are made of here."""

from __future__ import annotations

from batchwork.v1.item_pb2 import ItemInput


def inputs(count: int) -> list[ItemInput]:
    """Returns items with about sixty bytes of data each."""
    return [_input(number) for number in range(1_000_000, 1_000_000 + count)]


def _input(number: int) -> ItemInput:
    data = f'{{"account":{number},"handle":"account-{number}","followers":48213}}'
    return ItemInput(item_id=f"item-{number}", data_json=data)
