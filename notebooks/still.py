"""For `make notebooks`: what is committed shows the pictures and words that widgets leave.

JupyterLab shows an error in place of a widget whose kernel is gone, whatever stands beside it.
"""

from nbconvert.preprocessors import Preprocessor

WIDGET = "application/vnd.jupyter.widget-view+json"


class Still(Preprocessor):
    """Outputs without their widgets, where they hold something else."""

    def preprocess_cell(self, cell, resources, index):
        """nbconvert's own signature; gives cell and resources."""
        for output in cell.get("outputs", []):
            if len(output.get("data", {})) > 1:
                output["data"].pop(WIDGET, None)
        return cell, resources
