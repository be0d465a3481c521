"""How uploaded files are called on the page."""

from pathlib import Path

from als.files import printable


def shown_name(name) -> str:
    """A file's name as a browser gives it, safe to show and no longer than a line."""
    text = printable(str(name))
    return text if len(text) <= 80 else f"{text[:40]}…{text[-39:]}"


def name_of(payload: dict) -> str:
    """An uploaded file's name as its owner knows it, fit to be shown."""
    return shown_name(payload.get("orig_name") or Path(payload["path"]).name)
