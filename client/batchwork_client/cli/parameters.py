"""The options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Writes JSON instead of text.")]
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="The id of the batch.")]
Limit = Annotated[int, typer.Option(min=0, help="Shows at most so many.")]
Note = Annotated[str, typer.Option("--note", help="Says why, for people.")]
Users = Annotated[
    list[str] | None, typer.Option("--user", help="Only items of this user; repeatable.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Shows the batch until it is done.")]
RequestId = Annotated[
    str,
    typer.Option(
        "--request-id",
        show_default=False,
        help="Makes a repeat of the command return the first answer.",
    ),
]
