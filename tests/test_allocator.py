"""Freed memory stays in the process: counted in pages that the kernel had to map."""

import subprocess
import sys

import pytest

from als.allocator import keep_freed_memory

FAULTS = """
import resource, sys, threading, torch
from als.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def use(times):
    for _ in range(times):
        blocks = [torch.ones(n * 2**18) for n in (1, 16, 4, 24, 8, 2, 12)]  # megabytes
        del blocks

def main():
    use(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use(20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=main)  # backward passes and `als predict` use such
thread.start()
thread.join()
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is what is set")
def test_freed_blocks_are_mapped_once():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    kept, given_back = faults("keep"), faults("leave")
    assert kept < given_back / 3, "each block's pages were mapped again"
