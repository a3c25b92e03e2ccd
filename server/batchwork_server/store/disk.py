"""The disk under a SQLite file: how much is left of it, and a reserve for when nothing is."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from batchwork_server.errors import StorageFull

BALLAST_BYTES = 8 * 1024 * 1024
"""Enough for the log of a purge, which has to write before it can delete."""

_PROBE_BYTES = 64 * 1024

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # the disk, a quota, a limit


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimits:
    """What is kept free.

    Attributes:
        min_free_bytes: Below this no batch is accepted; 0 accepts until the disk is full.
        ballast_bytes: The size of the reserve beside the database; 0 keeps none.
    """

    min_free_bytes: int = 0
    ballast_bytes: int = 0


NO_LIMITS = DiskLimits()


class DiskSpace:
    """The space for one database file, whose folder also has its log and its ballast."""

    def __init__(self, path: Path, limits: DiskLimits) -> None:
        self._path = path.resolve()
        self._ballast = self._beside(".ballast")
        self._limits = limits

    def refuse_when_full(self) -> None:
        """Refuses when less is left than the least that is to be free.

        Raises:
            StorageFull: so it is.
        """
        least = self._limits.min_free_bytes
        if not least:
            return
        free = self._free_bytes()
        if free < least:
            raise StorageFull(
                f"The disk of the database has {free} bytes left, and no work is accepted below "
                f"{least} (BATCHWORK_MIN_FREE_BYTES); free some space, what runs goes on."
            )

    def is_exhausted(self) -> bool:
        """Tells whether a file as large as the database's own cannot grow any more.

        SQLite says of some such writes only that they failed. This one says why.
        """
        probe = self._beside(".probe")
        try:
            return _write_at(probe, self._largest_size()) < _PROBE_BYTES
        except OSError as error:
            return error.errno in _NO_ROOM
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)

    def _largest_size(self) -> int:
        files = (self._path, self._beside("-wal"))
        return max((file.stat().st_size for file in files if file.exists()), default=0)

    def put_ballast(self) -> None:
        """Sets the reserve aside, unless it is there.

        Without space for twice as much there is none: after a purge the file has room, and the
        log has to have some as well before the work can go on. The next purge, or the next start,
        tries again.
        """
        size = self._limits.ballast_bytes
        if not size or self._has_ballast(size) or self._free_bytes() < 2 * size:
            return
        try:
            _allocate(self._ballast, size)
        except OSError:
            self.drop_ballast()

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def _has_ballast(self, size: int) -> bool:
        # A file with holes has the size of the reserve, and nothing in reserve.
        with contextlib.suppress(FileNotFoundError):
            found = self._ballast.stat()
            return found.st_size == size and found.st_blocks * 512 >= size
        return False

    def drop_ballast(self) -> bool:
        """Gives the reserve to whoever writes next; false when there was none."""
        try:
            self._ballast.unlink()
        except OSError:
            return False
        return True

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)


def _write_at(path: Path, offset: int) -> int:
    """Writes a few bytes far into a new file, and returns how many there was space for."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        written = os.pwrite(file, b"\1" * _PROBE_BYTES, offset)
        os.fsync(file)  # some file systems look for space only now
        return written
    finally:
        os.close(file)


def _allocate(path: Path, size: int) -> None:
    """Writes a file that really has its blocks."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            _write_noise(file, size)
    finally:
        os.close(file)


def _write_noise(file: int, size: int) -> None:
    # Zeros would be compressed away, or kept as a hole.
    block = 1024 * 1024
    for start in range(0, size, block):
        os.pwrite(file, os.urandom(min(block, size - start)), start)
