"""The machine that a process runs on: what it is, its devices, its memory, the code on it."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from als.errors import InputError

# Names of glibc's malloc.h, and what `keep_freed_memory` and `return_freed_memory` set them to.
COMPUTE_MALLOC = {
    -1: -1,  # M_TRIM_THRESHOLD: the heap's free end is never given back
    -2: 64 * 2**20,  # M_TOP_PAD: bytes that the heap grows by at least
    -3: 32 * 2**20,  # M_MMAP_THRESHOLD: larger blocks still are; glibc allows no more
}
SERVER_MALLOC = {-8: 1}  # M_ARENA_MAX


def machine() -> dict[str, Any]:
    """Processor, threads, accelerator and versions that a figure was made with."""
    import torch
    import torchvision

    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [x for x in information.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].split(": ", 1)[1] if names else cpu
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def revision() -> str | None:
    """The commit of the code, with "+changes" for an uncommitted tree; None outside git."""
    try:
        # Installed into a folder of somebody's own repository the package is no part of that.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        dirty = _git("status", "--porcelain", "--untracked-files=no")
        return _git("rev-parse", "HEAD") + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def device_named(name: str):
    """The torch.device "cpu", "cuda", "cuda:1", ... Raises InputError where it is not here."""
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"device '{name}' cannot be used here ({reason}); try cpu.") from error
    if device.type == "meta":
        raise InputError("device 'meta' holds no numbers; try cpu.")
    return device


def return_freed_memory() -> bool:
    """Let this process give freed memory back, for a server, which calls `trim_memory` at times.

    By default glibc has an arena for each of many threads, and what is freed stays in the arena
    where it lay: a server grew to several times what it holds. It has one arena now. Were large
    blocks given back at once, a detection would take 1.4 times as long: their pages are mapped and
    cleared anew. Call it before threads start. Returns False, and does nothing, where the C library
    is not glibc.
    """
    return _set_malloc(SERVER_MALLOC)


def trim_memory() -> bool:
    """Give back what is freed but lies between blocks in use; a server calls it now and then.

    Returns False, and does nothing, where the C library is not glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and bool(trim(0))


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory without asking the kernel for it anew.

    Every layer writes megabytes that are freed soon after. By default glibc gives the free end of
    a heap back to the kernel, and when it is wanted again every page is cleared and mapped anew,
    while other threads that want memory wait. The process stays as large as it ever was, so this
    is for commands, not for servers, and it is for the whole process: call it first.

    Returns False, and does nothing, where the C library is not glibc.
    """
    return _set_malloc(COMPUTE_MALLOC)


def _set_malloc(options: dict[int, int]) -> bool:
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return set_option is not None and all(set_option(*one) for one in options.items())
