"""Makes the C library keep the memory that is freed, for processes that compute on a CPU."""

import ctypes
import sys

# Names of glibc's malloc.h, and what they are set to.
KEEP = {
    -1: -1,  # M_TRIM_THRESHOLD: the heap's free end is never given back
    -2: 64 * 2**20,  # M_TOP_PAD: bytes that the heap grows by at least
    -3: 32 * 2**20,  # M_MMAP_THRESHOLD: larger blocks still are; glibc allows no more
}


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory without asking the kernel for it anew.

    Every layer writes megabytes that are freed soon after. By default glibc gives the free end of
    a heap back to the kernel, above all that of a thread; when it is wanted again every page is
    cleared and mapped anew, while other threads that want memory wait. The process stays as large
    as it ever was, so this is for commands, not for servers. It is for the whole process: call it
    first.

    Returns False, and does nothing, where the C library is not glibc.
    """
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return set_option is not None and all(set_option(*option) for option in KEEP.items())
