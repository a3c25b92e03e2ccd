"""A file that somebody else writes, and whether its content is another one than before."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from batchwork_server.domain.job import PAYLOAD_TOO_LARGE
from batchwork_server.errors import Violation

FILE_UNREADABLE = "FILE_UNREADABLE"

_PATH = "$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look at a file found.

    Attributes:
        text: The content; empty when there is a problem.
        problem: Why there is no text.
        stamp: Tells without reading that the file is another one; empty when it cannot be opened.
        digest: The same for the same content, and for the same problem.
    """

    text: str = ""
    problem: Violation | None = None
    stamp: tuple[int, ...] = ()
    digest: bytes


class WatchedFile:
    """Tells what stands in a file when it is something else than what was dealt with last.

    Links are followed, and nothing is kept open, so a file that is replaced by renaming another
    one, or by pointing a link elsewhere, is noticed like one that is written in its place.

    Args:
        path: The file; it need not be there.
        max_bytes: A larger one is a problem, and is not read to its end.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._stamp: tuple[int, ...] = ()
        self._digest = b""
        self._is_settled = False

    def look(self) -> Found | None:
        """Returns what stands in the file, or none when that was dealt with. It blocks."""
        found = self._find()
        if found is not None and found.digest == self._digest:
            # A stamp is as coarse as the clock of the file system: what was written in the same
            # tick as our first look bears the same one. At the second look the tick is over.
            self._is_settled = bool(found.stamp) and found.stamp == self._stamp
            self._stamp = found.stamp
            return None
        return found

    def done_with(self, found: Found) -> None:
        """Takes note that something was dealt with; ``look`` does not return it again."""
        self._stamp, self._digest, self._is_settled = found.stamp, found.digest, False

    def _find(self) -> Found | None:
        """Returns what is there, or none when its stamp says that it is what it was."""
        try:
            with open(self._path, "rb", opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                stamp = _stamp_of(status)
                if self._is_settled and stamp == self._stamp:
                    return None
                if not stat.S_ISREG(status.st_mode):
                    return _unreadable(f"{self._path} is no file.", stamp=stamp)
                content = file.read(self._max_bytes + 1)
        except OSError as error:
            reason = error.strerror or str(error)
            return _unreadable(f"{self._path} cannot be read: {reason}.")
        if len(content) > self._max_bytes:
            return self._too_large(max(status.st_size, len(content)), stamp=stamp)
        return _found(content, stamp=stamp)

    def _too_large(self, size: int, *, stamp: tuple[int, ...]) -> Found:
        message = f"The file has {size} bytes; the limit is {self._max_bytes}."
        problem = Violation(_PATH, message, PAYLOAD_TOO_LARGE, limit=self._max_bytes)
        return Found(problem=problem, stamp=stamp, digest=message.encode())


def _open_at_once(path: str, flags: int) -> int:
    """Opens a file without waiting for somebody at the other end, should it be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _stamp_of(status: os.stat_result) -> tuple[int, ...]:
    # The time of change beside that of modification: copying tools set the latter as they like.
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


def _found(content: bytes, *, stamp: tuple[int, ...]) -> Found:
    if not content:
        return _unreadable("The file is empty.", stamp=stamp)
    digest = sha256(content).digest()
    try:
        return Found(text=content.decode(), stamp=stamp, digest=digest)
    except UnicodeDecodeError as error:
        message = f"The file is not UTF-8: the byte at {error.start} is {content[error.start]:#x}."
        problem = Violation(_PATH, message, FILE_UNREADABLE)
        return Found(problem=problem, stamp=stamp, digest=digest)


def _unreadable(message: str, *, stamp: tuple[int, ...] = ()) -> Found:
    problem = Violation(_PATH, message, FILE_UNREADABLE)
    return Found(problem=problem, stamp=stamp, digest=message.encode())
