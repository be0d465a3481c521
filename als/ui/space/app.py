"""The app as a Space of Hugging Face, which says by SPACE_HOST what browsers call it."""

import os

from als.ui import launch

if __name__ == "__main__":
    port = os.environ.get("GRADIO_SERVER_PORT")
    names = [name for name in os.environ.get("SPACE_HOST", "").split(",") if name]
    launch(host="0.0.0.0", allow_hosts=names, **({"port": int(port)} if port else {}))
