"""Files the page fetches, each in a new folder: none is rewritten while it is read."""

import tempfile
from pathlib import Path

from gradio.utils import get_upload_folder
from PIL import Image


def fresh_folder() -> Path:
    """An empty folder of Gradio's cache, which the page may read."""
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="als-", dir=get_upload_folder()))


def fresh_picture(picture: Image.Image) -> str:
    """The path of a new PNG of `picture`.

    A picture that Gradio stores itself goes to a file named after its content, which is truncated
    and written again when the same picture comes again: a browser that is reading it gets less
    than it was promised.
    """
    path = fresh_folder() / "photo.png"
    picture.save(path, compress_level=1)
    return str(path)
