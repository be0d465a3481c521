"""The fields of annotation files, whatever tool wrote them: a number, a size, a mark, a name.

Each function takes what a JSON or XML file holds there and the field's name, and raises ValueError
that names the field, shows what it holds and says what to write. What can have one meaning only is
taken: a number as text, an empty mark.
"""

import math
import reprlib
from collections.abc import Sequence
from typing import Any

from als.images import MAX_PIXELS

_UNSAID = ("", "unspecified")  # as VOC's own later annotations say


def shown(value: Any) -> str:
    """A value as a sentence shows it: short, in one line, printable."""
    if value is None:
        return "missing or null"
    return "empty" if value == "" else reprlib.repr(value)


def number(value: Any, name: str) -> float:
    """A finite number, or the text of one."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{name} is {shown(value)}; write a number")
    return found


def numbers(value: Any, names: Sequence[str], name: str) -> list[float]:
    """A list of as many finite numbers as there are names."""
    if not isinstance(value, list) or len(value) != len(names):
        raise ValueError(f"{name} is {shown(value)}; write {', '.join(names)}")
    return [number(item, f"{part} of {name}") for item, part in zip(value, names, strict=True)]


def size(height: Any, width: Any) -> tuple[int, int] | None:
    """(height, width) in whole pixels; None where a side is missing, empty or 0."""
    if any(
        side is None or (isinstance(side, str) and not side.strip()) for side in (height, width)
    ):
        return None
    sides = number(height, "height"), number(width, "width")
    for side, value, name in zip(sides, (height, width), ("height", "width"), strict=True):
        if side < 0 or not side.is_integer():
            raise ValueError(f"{name} is {shown(value)}; write a whole number of pixels")
    if math.prod(sides) > MAX_PIXELS:
        told = f"a size of {sides[1]:.0f}x{sides[0]:.0f} pixels is over the limit of"
        raise ValueError(f"{told} {MAX_PIXELS / 1e6:g} megapixels; reduce the image, or correct it")
    return None if 0 in sides else (int(sides[0]), int(sides[1]))


def mark(value: Any, name: str) -> bool:
    """A 0 or 1; nothing, and VOC's 'Unspecified', is 0."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _UNSAID:
        return False
    try:
        found = number(value, name)
    except ValueError:
        found = math.nan
    if found not in (0, 1):
        raise ValueError(f"{name} is {shown(value)}; write 0 or 1")
    return bool(found)


def text(value: Any, name: str) -> str:
    """Text that is not empty and that UTF-8 can hold."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {shown(value)}; write text")
    if "\0" in value or not value.isascii() and value != value.encode(errors="replace").decode():
        raise ValueError(f"{name} is {shown(value)}, which is no text; write it as UTF-8")
    return value


def identity(value: Any, name: str) -> int | str:
    """An id: a whole number or text."""
    if isinstance(value, str):
        return text(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise ValueError(f"{name} is {shown(value)}; write a whole number or text")
    return int(value)


def id_order(value: int | str) -> tuple[bool, int | str]:
    """What ids are sorted by: numbers by their value, then texts."""
    return isinstance(value, str), value
