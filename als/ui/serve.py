"""Serving the page: to this machine alone, with limits, from a cache that does not stay."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from als.errors import InputError
from als.inference import load
from als.ui.page import MAX_FILE_SIZE, build_app
from als.ui.style import CSS, THEME


def launch(
    checkpoint: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    other: str | Path | None = None,
) -> None:
    """Serve the app until it is interrupted, from a private cache that is deleted afterwards.

    To be called from the main thread, which alone can be told to end (SIGTERM).

    Args:
        checkpoint: None for the one that ships. other: a second one to compare it with.
        host: only this machine by default; whoever opens it to others adds their own protection.

    Raises:
        InputError: a checkpoint is missing or not one of ours, or the port is taken.
    """
    predictor = load(checkpoint).require_branches()
    second = None if other is None else load(other).require_branches()
    # Without a handler the process would end on the spot and leave the photos behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="als-app-") as cache:
        os.environ["GRADIO_TEMP_DIR"] = cache
        try:
            build_app(predictor, second).launch(**serving(host, port))
        except (OSError, OverflowError) as error:  # the latter for a port over 65535
            raise InputError(
                f"{host}:{port}: nothing can be served there; if the port is taken, give another "
                "with --port."
            ) from error


def serving(host: str = "127.0.0.1", port: int | None = None) -> dict:
    """How the app is served: nothing is shared, no folder is opened, files are limited."""
    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "max_file_size": MAX_FILE_SIZE,
        "state_session_capacity": 100,
        "ssr_mode": False,
        "enable_monitoring": False,
        "theme": THEME,
        "css": CSS,
    }
