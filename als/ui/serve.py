"""Serving the page: to its own names, with limits, from a cache that is swept and does not stay."""

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import gradio as gr
import gradio.mcp
from anyio.to_thread import run_sync

from als.errors import InputError
from als.inference import load
from als.machine import return_freed_memory, trim_memory
from als.ui.cache import SWEEP_SECONDS, private_cache, sweep
from als.ui.gate import LOCAL, MAX_FILE_SIZE, Gate
from als.ui.handlers import MODELS
from als.ui.page import build_app
from als.ui.style import CSS, THEME

EVERYWHERE = ("0.0.0.0", "::", "[::]")  # addresses to listen at, and no names


def launch(
    checkpoint: str | Path | None = None,
    host: str = LOCAL[1],
    port: int = 7860,
    other: str | Path | None = None,
    allow_hosts: Iterable[str] = (),
    mcp: bool = False,
) -> None:
    """Serve the app until it is interrupted, from a private cache that is deleted afterwards.

    To be called from the main thread, which alone can be told to end (SIGTERM).

    Args:
        checkpoint: None for the one that ships. other: a second one to compare it with.
        host: only this machine by default; whoever opens it to others reads SECURITY.md.
        allow_hosts: names that browsers know the page by, besides localhost and `host`.
        mcp: whether `/analyse` is a tool of the Model Context Protocol too.

    Raises:
        InputError: a checkpoint is missing or not one of ours, the port is none or taken, or the
            package for `mcp` is not installed.
    """
    if not 0 < port < 2**16:
        raise InputError(f"{host}:{port}: there is no such port; give --port 1 to 65535.")
    if mcp and importlib.util.find_spec("mcp") is None:
        raise InputError(
            "mcp is not installed; `pip install 'attentive-layer-separation[mcp]'`, or start "
            "without --mcp."
        )
    return_freed_memory()
    name = str(checkpoint or "shipped")
    predictor = load(name).require_branches()
    second = None if other is None else load(other).require_branches()
    # Without a handler the process would end on the spot and leave the photos behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with private_cache() as cache:
        os.environ["GRADIO_TEMP_DIR"] = str(cache)
        gradio.mcp.DEFAULT_TEMP_DIR = str(cache)  # it looked when it was imported
        # After each event Gradio sums up so many of the last ones, for a page that is turned off.
        os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
        page = build_app(predictor, second, name if name in MODELS else None)
        try:
            page.launch(**serving(page, cache, host, port, allow_hosts, mcp))
        except OSError as error:
            raise InputError(
                f"{host}:{port}: nothing can be served there; if the port is taken, give another "
                "with --port."
            ) from error


def serving(
    page: gr.Blocks,
    cache: Path,
    host: str = LOCAL[1],
    port: int | None = None,
    allow_hosts: Iterable[str] = (),
    mcp: bool = False,
) -> dict:
    """How the app is served: nothing is shared, no folder is opened, files are limited.

    cache: the folder that GRADIO_TEMP_DIR names, as it did when the page was built.
    """
    names = [*allow_hosts, *(() if host in EVERYWHERE else (host,))]
    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "max_file_size": MAX_FILE_SIZE,
        "state_session_capacity": 100,
        "ssr_mode": False,
        "enable_monitoring": False,
        "run_history": False,
        "mcp_server": mcp,
        "show_error": False,
        "app_kwargs": {"lifespan": partial(_guarded, page=page, cache=cache, names=names)},
        "theme": THEME,
        "css": CSS,
    }


@asynccontextmanager
async def _guarded(app, page: gr.Blocks, cache: Path, names: Iterable[str]) -> AsyncIterator[None]:
    """The gate before everything that Gradio puts around its routes, and the sweeping."""
    # The examples of the page are files of the cache too.
    keep = {path for block in page.blocks.values() for path in getattr(block, "keep_in_cache", ())}

    async def swept() -> bool:
        return await run_sync(sweep, cache, keep)

    async def go_on() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await swept()
            await run_sync(trim_memory)

    app.middleware_stack = Gate(app.middleware_stack, names, swept)
    sweeping = asyncio.create_task(go_on())
    try:
        yield
    finally:
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
