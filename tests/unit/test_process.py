"""How the process of a server is set up."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_BLOCKS_OF_THEIR_OWN = """
import ctypes
from batchwork_server.process import prepare_process

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd",
        "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2

def blocks_of(size):
    before = mallinfo2().hblks
    block = bytes(size)
    return mallinfo2().hblks - before

prepare_process()
print(blocks_of(256 * 1024), blocks_of(1024 * 1024))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc"
    or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33),
    reason="Only the C library of GNU, since 2.33, tells what blocks there are.",
)
def test_what_a_socket_is_read_into_is_no_block_of_its_own_and_what_is_larger_is():
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKS_OF_THEIR_OWN], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["0", "1"]
