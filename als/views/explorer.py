"""`als.explore`: the app's views in a notebook, as one widget for JupyterLab, VS Code and Colab.

Everything is computed and drawn here; `explorer.js` holds the controls, the cell under the pointer
and the box that is dragged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from als.drawing import COLOUR_MAPS, RULES, Look, comparison, css_gradient, jpeg, scored_names
from als.errors import InputError
from als.explain.reading import cell_shares
from als.files import printable
from als.inference import Explanation, Prediction, Predictor, image_files, load
from als.model.backbone import STRIDE
from als.model.grid import map_to_image
from als.views.keeping import save_views
from als.views.panels import captions, explained_sentence, maps_of, panels_of
from als.views.photo_study import (
    DEFAULT_EXPLAINER,
    DEFAULT_THRESHOLD,
    Choice,
    Settings,
    Study,
    offered,
    study_photo,
    words_of,
)

try:
    import anywidget
    import traitlets as t
except ImportError as error:
    raise InputError("als.explore needs the package anywidget; `pip install anywidget`.") from error

HERE = Path(__file__).parent
IN_A_ROW, STATIC = 3, 1100  # of the static picture: panels, pixels of the longest side


class Explorer(anywidget.AnyWidget):
    """Photographs, one at a time, as a model sees them. What its controls choose can be set, too.

    photo: which of the photographs, from 0. threshold: detections shown score at least this.
    detection: row of the prediction that is explained. explain_class: explain this class instead,
    at the proposal that scores highest for it; "" for none. box: explain x1 y1 x2 y2 in pixels of
    the photo instead, detected or not, as `explain_class` if that is set. explainer: makes the
    last view; a name of `als.explain.EXPLAINERS`. opacity, colour_map, rule: as `Look`.

    A new photo runs the network; a choice runs backward from one proposal; the rest only draws.
    Setting what does not exist raises InputError.
    """

    _esm = HERE / "explorer.js"
    _css = HERE / "explorer.css"

    photo = t.Int(0).tag(sync=True)
    threshold = t.Float(DEFAULT_THRESHOLD).tag(sync=True)
    detection = t.Int(None, allow_none=True).tag(sync=True)
    explain_class = t.Unicode("").tag(sync=True)
    box = t.List(t.Float(), None, allow_none=True).tag(sync=True)
    explainer = t.Unicode(DEFAULT_EXPLAINER).tag(sync=True)
    opacity = t.Float(Look.opacity).tag(sync=True)
    colour_map = t.Unicode(Look.colour_map).tag(sync=True)
    rule = t.Unicode(Look.rule).tag(sync=True)

    # What only the browser reads; each travels when it has changed. menus: [value, words] by trait.
    menus = t.Dict().tag(sync=True)
    said = t.Dict().tag(sync=True)
    panels = t.List().tag(sync=True)
    cells = t.Dict().tag(sync=True)
    reading = t.Dict().tag(sync=True)

    def __init__(self, predictor: Predictor, photographs: Sequence):
        self._predictor, self._photographs = predictor, photographs
        self._study: Study | None = None
        self._refused = ""  # why there is no study
        self._shares: tuple[int, list, bytes] = (0, [], b"")  # of which study and RoIs
        self._settling = True  # traits are set that nobody chose
        super().__init__(menus=_menus(predictor, photographs))
        self._settling = False
        self.on_msg(self._gestured)
        self._open()

    @property
    def prediction(self) -> Prediction:
        """The detections that are shown, and both maps at the photo's size."""
        study = self._seen
        found, encoding = study.prediction, study.analysis.encoding
        shown = study.shown(self.threshold)
        columns = ("boxes", "labels", "names", "scores")
        return replace(
            found,
            **{name: getattr(found, name)[:shown] for name in columns},
            localization_map=map_to_image(encoding.a_loc, encoding),
            classification_map=map_to_image(encoding.a_cls, encoding),
        )

    @property
    def explanation(self) -> Explanation:
        """What the last view shows, with its map at the photo's size."""
        told = self._seen.last_map(self._settings, whole=True)
        assert told is not None  # what is not offered cannot be chosen
        return told

    def save(self, folder: str | Path | None = None) -> list[Path]:
        """Write comparison.png, detections.json and maps.npz into a folder, which is made.

        folder: None is one of the photo's name with '-als' after it, here. Raises OSError where
        they cannot be written.
        """
        seen = self._seen
        named = Path(f"{Path(seen.name).stem}-als") if folder is None else Path(folder)
        return save_views(seen, self._settings, named)

    def _repr_mimebundle_(self, **kwargs):
        """With a picture for where no kernel runs: a saved notebook, its HTML, a code host.

        It is what was seen when the cell ran; to keep what was chosen since, run it again.
        """
        data, metadata = super()._repr_mimebundle_(**kwargs)
        if self._study is not None:
            panels, sentence = panels_of(self._study, self._settings), self.said["sentence"]
            rows = [("", panels[:IN_A_ROW]), ("", panels[IN_A_ROW:])]
            sheet = comparison(rows, self._settings.look, sentence)
            sheet.thumbnail((STATIC, STATIC))
            data["image/jpeg"] = jpeg(sheet)
        return data, metadata

    @property
    def _seen(self) -> Study:
        if self._study is None:
            raise InputError(self._refused)
        return self._study

    @property
    def _best(self) -> int | None:
        return self._study.best.detection if self._study else None

    @property
    def _settings(self) -> Settings:
        look = self.opacity, self.colour_map, self.rule
        return Settings(self.threshold, words_of(self.explainer), *look, self.explainer)

    @t.validate("photo", "explain_class", "explainer", "colour_map", "rule")
    def _of_a_menu(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        known = [key for key, _ in self.menus[name]]
        if value not in known:
            raise InputError(f"{name} {value!r} is unknown; choose one of {known}.")
        return value

    @t.validate("threshold", "opacity")
    def _of_a_share(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if not 0 <= value <= 1:
            raise InputError(f"{name} {value}: give a number from 0 to 1.")
        return value

    @t.validate("detection", "box")
    def _of_the_photo(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if value is not None and not self._settling:
            self._predictor.chosen(self._seen.analysis, **{name: value})
        return value

    @t.observe("photo")
    def _open(self, _=None) -> None:
        """Run the network on the photo that is chosen."""
        name = dict(self.menus["photo"])[self.photo]
        self._study, self._refused = None, ""
        try:
            self._study = study_photo(self._predictor, self._photographs[self.photo], name)
        except InputError as error:
            self._refused = str(error)
        self._settle(self._best)

    @t.observe("detection", "explain_class", "box")
    def _choose(self, change) -> None:
        """A detection takes the place of class and box; a class is of the box, if there is one."""
        if self._settling:
            return
        if change.name == "detection" and self.detection is not None:
            self._settle(self.detection)
        elif self.box is not None or self.explain_class:
            self._settle(None, self.explain_class, self.box)
        else:
            self._settle(self._best)

    def _settle(self, detection=None, explain_class="", box=None) -> None:
        """Let the three traits of a choice agree, and draw."""
        self._settling = True
        with self.hold_sync():
            self.detection, self.explain_class, self.box = detection, explain_class, box
        self._settling = False
        if self._study is not None:
            label = self._predictor.classes.index(explain_class) + 1 if explain_class else None
            self._study.choice = Choice(detection, label, None if box is None else tuple(box))
        self._draw()

    @t.observe("threshold", "explainer", "opacity", "colour_map", "rule")
    def _draw(self, _=None) -> None:
        """All that is shown, of what is kept of the photo."""
        if self._study is None:
            shown = {"sentence": self._refused, "refused": True}, [], {}, {}
        else:
            study, settings = self._study, self._settings
            said = {
                "sentence": explained_sentence(study, self.threshold),
                "detections": scored_names(study.prediction)[: study.shown(self.threshold)],
                "size": study.prediction.size,
            }
            shown = said, _pictures(study, settings), _cells(study, settings), self._read()
        with self.hold_sync():
            self.said, self.panels, self.cells, self.reading = shown
        self.send({"drawn": True})  # also where nothing has changed: the browser waits for it

    def _read(self) -> dict:
        """The RoIs of what is shown, and what each reads of the cells."""
        study, shown = self._seen, self._seen.shown(self.threshold)
        found, told = study.analysis.found, study.class_map()
        names = scored_names(study.prediction)[:shown]
        rois, chosen = found.proposals[found.rois[:shown]], study.choice.detection
        if chosen is None or chosen >= shown:
            chosen, rois = shown, torch.cat([rois, study.roi.to(rois)])
            names.append(f"{told.name} {told.score:.2f}")
        height, width = study.analysis.encoding.images.image_sizes[0]
        boxes = (rois / rois.new_tensor([width, height] * 2)).tolist()
        if self._shares[:2] != (id(study), boxes):  # what is drawn anew reads the same
            shares = cell_shares(self._predictor.detector, study.analysis.encoding, rois)
            self._shares = id(study), boxes, shares.float().cpu().numpy().tobytes()
        return {"names": names, "boxes": boxes, "chosen": chosen, "shares": self._shares[2]}

    def _gestured(self, _, message: dict, buffers) -> None:
        """On a picture: a click, x and y from 0 to 1, or a box that was dragged, in pixels."""
        try:
            if "box" in message:
                self.box = message["box"]
            else:
                self._click(message["x"], message["y"])
        except InputError as error:
            self.said = self.said | {"sentence": str(error)}
        self.send({"drawn": True})

    def _click(self, x: float, y: float) -> None:
        """Explain the smallest detection that is there, also where it was chosen before."""
        row = self._seen.detection_at(x, y, self.threshold)
        if row is not None:
            self._settle(row)


def _menus(predictor: Predictor, photographs: Sequence) -> dict[str, list]:
    """What can be chosen of each menu, as [value, words]."""
    files = [Path(p).name if isinstance(p, str | Path) else "photo" for p in photographs]
    classes = [("", "the chosen detection"), *((name, name) for name in predictor.classes)]
    return {
        "photo": list(enumerate(map(printable, files))),
        "explain_class": classes,
        "explainer": list(offered(predictor).items()),
        "colour_map": [(name, name) for name in COLOUR_MAPS],
        "rule": [(name, name) for name in RULES],
    }


def _pictures(study: Study, settings: Settings) -> list[dict]:
    """The panels as the browser takes them."""
    says, gradient = captions(settings, clickable=True), css_gradient(settings.colour_map)
    return [
        {
            "title": panel.title,
            "picture": None if panel.picture is None else jpeg(panel.picture),
            "alt": panel.alt,
            "bar": [f"{value:.2g}" for value in panel.bar or ()],
            "gradient": gradient,
            "note": panel.note,
            "says": says.get(panel.title, ""),
        }
        for panel in panels_of(study, settings)
    ]


def _cells(study: Study, settings: Settings) -> dict:
    """The conv4 grid over the photo: sides of a cell, 1 being the photo's, and each map in the
    middle of each cell, float32 [maps, rows, columns]."""
    encoding, maps = study.analysis.encoding, maps_of(study, settings)
    sides = [STRIDE / side for side in encoding.images.image_sizes[0]]
    rows, columns = encoding.f.shape[-2:]
    y, x = (
        np.minimum((np.arange(count) + 0.5) * side, 1 - 1e-6)  # a cell may be half in the padding
        for count, side in zip((rows, columns), sides, strict=True)
    )
    values = [
        heat[(y * heat.shape[0]).astype(int)[:, None], (x * heat.shape[1]).astype(int)]
        for heat in maps.values()
    ]
    return {
        "sides": sides,
        "shape": [rows, columns],
        "titles": list(maps),
        "values": np.stack(values).astype(np.float32).tobytes(),
    }


def explore(
    photo_or_folder: str | Path | Image.Image | np.ndarray | Iterable[str | Path],
    predictor: Predictor | None = None,
) -> Explorer:
    """The app's views of photographs as a widget of a notebook; see `Explorer` for what it takes.

    Args:
        photo_or_folder: a file, a folder of images, several of them, or one image as
            `Predictor.predict` takes it.
        predictor: None is the checkpoint that ships.

    Raises:
        InputError: there is no image, the only one cannot be read, or the model is of a family
            without the branches that are explained.
    """
    if isinstance(photo_or_folder, Image.Image | np.ndarray):
        photographs: Sequence = [photo_or_folder]
    elif isinstance(photo_or_folder, str | Path):
        photographs = image_files([Path(photo_or_folder)])
    else:
        photographs = image_files(photo_or_folder)
    if not photographs:
        raise InputError("no photo to explore: give a file or a folder of images.")
    widget = Explorer((predictor or load()).require_branches(), photographs)
    if len(photographs) == 1:
        widget._seen  # noqa: B018  # raises what the widget would only say
    return widget
