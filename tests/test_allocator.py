"""Freed memory stays in the process, or goes back, as the kernel counts it."""

import subprocess
import sys

import pytest

from als.machine import keep_freed_memory

BLOCKS, MEGABYTES = 5, 20
RESIDENT = r"""
import re, sys
from pathlib import Path
from als.machine import keep_freed_memory, return_freed_memory, trim_memory

def resident():
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
"""
GIVEN_BACK = f"""
if sys.argv[1] == "keep":
    assert keep_freed_memory()

blocks = [bytearray(b"x") * ({MEGABYTES} * 2**20) for _ in range({BLOCKS})]
full = resident()
blocks.clear()
print(full - resident())
"""


def given_back(how: str) -> float:
    """Megabytes that a process is smaller by after it freed all its blocks."""
    return float(said(GIVEN_BACK, how))


def said(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", RESIDENT + script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is what is set")
def test_freed_blocks_stay():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert given_back("leave") > 0.9 * BLOCKS * MEGABYTES
    assert given_back("keep") < 0.1 * BLOCKS * MEGABYTES


BETWEEN = """
assert return_freed_memory()
blocks = [bytearray(b"x") * 100_000 for _ in range(1000)]
blocks = blocks[::20]
full = resident()
assert trim_memory()
print(full - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is what is trimmed")
def test_a_server_gives_back_what_lies_between_blocks_in_use():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert float(said(BETWEEN)) > 0.8 * 95  # megabytes
