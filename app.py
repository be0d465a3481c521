"""Open the app with the checkpoint that ships: `python app.py`; `als app --help` has options."""

from als.ui import launch

if __name__ == "__main__":
    launch()
