"""`als app`: the app in the browser."""

from pathlib import Path

from jsonargparse import ArgumentParser


def app(arguments: list[str]) -> None:
    """Open the app: als app [--checkpoint FILE] [--host 127.0.0.1] [--port 7860]"""
    parser = ArgumentParser(prog="als app", description=app.__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the one that ships")
    parser.add_argument("--other", type=Path, help="a second checkpoint, for the Compare tab")
    parser.add_argument("--host", type=str, default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)
    given = parser.parse_args(arguments)

    from als.ui import launch

    launch(given.checkpoint, given.host, given.port, given.other)
