"""Freed memory stays in the process: counted in pages that the kernel had to map."""

import subprocess
import sys

import pytest

from als.allocator import keep_freed_memory

FAULTS = """
import resource, sys, torch
from als.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.ones(2**24)  # 64 MB, more than glibc keeps by itself
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is what is set")
def test_freed_blocks_are_mapped_once():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    kept, given_back = faults("keep"), faults("leave")
    assert kept < given_back / 10, "each block's pages were mapped again"
