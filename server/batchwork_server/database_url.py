"""A database that is named by its parts, as the variables ``DB_HOST`` and so on do."""

from __future__ import annotations

from urllib.parse import quote, urlencode


def postgresql_url(
    *,
    host: str,
    name: str,
    port: int | None = None,
    user: str | None = None,
    password: str | None = None,
    sslmode: str | None = None,
) -> str:
    """Returns the URL of a PostgreSQL database.

    Args:
        host: A name, an address, or the folder of a unix socket.
        name: Of the database.
        port: None means PostgreSQL's own.
        user: None means whoever runs the process.
        password: Whatever it holds is quoted.
        sslmode: A word of libpq; None leaves it to the driver.
    """
    query: dict[str, str] = {}
    if host.startswith("/"):
        query["host"] = host
        if port is not None:
            query["port"] = str(port)
        address = ""
    else:
        address = f"[{host}]" if ":" in host else host
        if port is not None:
            address += f":{port}"
    if sslmode is not None:
        query["sslmode"] = sslmode
    who = "" if user is None else quote(user, safe="")
    if password is not None:
        who += f":{quote(password, safe='')}"
    suffix = f"?{urlencode(query)}" if query else ""
    return f"postgresql://{who + '@' if who else ''}{address}/{quote(name, safe='')}{suffix}"
