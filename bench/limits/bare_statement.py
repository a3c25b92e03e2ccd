"""The users of a database, looked up by its driver in one statement, for nobody.

``python -m bench.limits.bare_statement URL`` reads a number of ids from each line of its input and
answers with the seconds that it took to count those that are users. Each database gets the ids the
fastest way that it has: SQLite as JSON, ten thousand a statement, PostgreSQL as one array of all.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Sequence

import asyncpg
import orjson
import sqlalchemy as sa

from bench.user_ids import PAGE, unsorted_ids

# A cross join keeps its order in SQLite; otherwise each user would be looked for among the ids.
_SQLITE = """
    SELECT count(*) FROM json_each(?) AS asked
    CROSS JOIN system_users AS own ON own.tenant_id = 'default' AND own.user_id = asked.value
    WHERE own.active
"""

_POSTGRESQL = """
    SELECT count(*) FROM unnest($1::text[]) AS asked (user_id)
    JOIN system_users AS own ON own.tenant_id = 'default' AND own.user_id = asked.user_id
    WHERE own.active
"""


async def count_in_sqlite(url: sa.URL, ids: Sequence[str]) -> int:
    connection = sqlite3.connect(f"file:{url.database}?mode=ro", uri=True)
    try:
        pages = (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))
        return sum(
            connection.execute(_SQLITE, (orjson.dumps(p).decode(),)).fetchone()[0] for p in pages
        )
    finally:
        connection.close()


async def count_in_postgresql(url: sa.URL, ids: Sequence[str]) -> int:
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        return int(await connection.fetchval(_POSTGRESQL, ids))
    finally:
        await connection.close()


async def main(url: sa.URL) -> None:
    count = count_in_sqlite if url.get_backend_name() == "sqlite" else count_in_postgresql
    for line in sys.stdin:
        ids = unsorted_ids(int(line))
        begin = time.perf_counter()
        found = await count(url, ids)
        seconds = time.perf_counter() - begin
        if found != len(ids):
            raise RuntimeError(f"{found} of {len(ids)} ids were found.")
        print(seconds, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sa.make_url(sys.argv[1])))
