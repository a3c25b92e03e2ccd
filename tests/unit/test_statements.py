"""Statements that go to the driver as they are."""

from __future__ import annotations

import pytest
from batchwork_server.store.statements import for_driver, none_of, one_of


@pytest.mark.parametrize("condition", [one_of, none_of])
def test_on_postgresql_a_statement_is_the_same_for_any_number_of_keys(condition):
    one, keys_of_one = condition("chunk_key", [7], "postgresql")
    many, keys_of_many = condition("chunk_key", range(3), "postgresql")

    assert one == many
    assert (keys_of_one, keys_of_many) == (([7],), ([0, 1, 2],))


def test_the_array_has_the_type_of_the_column():
    condition, keys = one_of("state", ("FAILED",), "postgresql", key_type="text")

    assert for_driver(condition, "postgresql") == "state = ANY($1::text[])"
    assert keys == (["FAILED"],)


def test_on_sqlite_each_key_has_its_mark():
    assert one_of("chunk_key", [7, 8], "sqlite") == ("chunk_key IN (?, ?)", (7, 8))
    assert none_of("chunk_key", [7, 8], "sqlite") == ("chunk_key NOT IN (?, ?)", (7, 8))
