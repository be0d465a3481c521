"""The app: `build_app` puts the page together, `launch` serves it on this machine."""

from als.ui.page import build_app
from als.ui.serve import launch, serving

__all__ = ["build_app", "launch", "serving"]
