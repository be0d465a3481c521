"""Freed memory stays in the process, as the kernel counts it."""

import subprocess
import sys

import pytest

from als.machine import keep_freed_memory

BLOCKS, MEGABYTES = 5, 20
GIVEN_BACK = f"""
import re, sys
from pathlib import Path
from als.machine import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

blocks = [bytearray(b"x") * ({MEGABYTES} * 2**20) for _ in range({BLOCKS})]
full = resident()
blocks.clear()
print(full - resident())
"""


def given_back(how: str) -> float:
    """Megabytes that a process is smaller by after it freed all its blocks."""
    command = [sys.executable, "-c", GIVEN_BACK, how]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is what is set")
def test_freed_blocks_stay():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert given_back("leave") > 0.9 * BLOCKS * MEGABYTES
    assert given_back("keep") < 0.1 * BLOCKS * MEGABYTES
