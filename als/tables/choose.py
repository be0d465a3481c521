"""Menus above a chart in a notebook."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from als.errors import InputError

try:
    from IPython.display import display
    from ipywidgets import Dropdown, HBox
except ImportError as error:
    raise InputError("menus need the package ipywidgets; `pip install ipywidgets`.") from error


def choose(chart: Callable[..., Figure], **options: Sequence | Mapping) -> None:
    """Show `chart(name=value, ...)` of the first options, and anew as others are chosen.

    The chart is an output of the cell itself, unlike that of `ipywidgets.interact`, so that a saved
    notebook shows it.

    Args:
        options: of each argument its values, or words -> value. One without any is left
            to the chart.
    """
    menus = {
        name: Dropdown(options=values, description=name)
        for name, values in options.items()
        if len(values)
    }

    def drawn() -> Figure:
        return chart(**{name: menu.value for name, menu in menus.items()})

    if menus:
        told = f"In a running notebook, choose here: {', '.join(menus)}."
        display(HBox([*menus.values()])._repr_mimebundle_() | {"text/plain": told}, raw=True)
    shown = display(drawn(), display_id=True)
    for menu in menus.values():
        menu.observe(lambda _: shown.update(drawn()), "value")
