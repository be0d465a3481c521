"""Several photographs at once: what is found in each and, with annotations, what is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from als.data.beside import SUFFIXES, records_beside
from als.drawing import draw_boxes
from als.errors import InputError
from als.evaluation import Detections, GroundTruth
from als.evaluation.evaluate import truths_of
from als.evaluation.missed import Outcomes, outcomes
from als.files import printable
from als.images import IMAGE_SUFFIXES, as_rgb, image_size
from als.inference import Predictor
from als.ui.upload_names import shown_name

MAX_PHOTOGRAPHS = 50
SMALL = 320  # pixels of the longest side of a picture of the gallery
TRUE, FALSE, MISSED = "true", "false", "missed"
COLOURS = {TRUE: "#009E73", FALSE: "#E69F00", MISSED: "#CC79A7"}  # Okabe and Ito's


@dataclass(frozen=True)
class Photograph:
    """A photograph of the gallery: its file, a small picture, what was found and what is there.

    found: every detection over the model's own threshold, in pixels of the photograph of (height,
    width) `size`. truth: None without an annotation.
    """

    name: str
    path: Path
    picture: Image.Image
    size: tuple[int, int]
    found: Detections
    truth: GroundTruth | None


class Tally(NamedTuple):
    """A photograph at a threshold: found and its outcomes (None without annotation), bool each.

    Restricted to a class: `found` [K] and the outcomes hold only what is of the class.
    """

    photograph: Photograph
    found: np.ndarray
    outcomes: Outcomes | None

    def count(self, what: str) -> int:
        """Of `TRUE`, `FALSE` or `MISSED`; 0 without annotation."""
        return int(getattr(self.outcomes, what).sum()) if self.outcomes else 0

    @property
    def wrong(self) -> int:
        """False and missed."""
        return self.count(FALSE) + self.count(MISSED)


# Words of the page -> what photographs are sorted by, falling; of equals the first given is first.
ORDERS: dict[str, Callable[[Tally], int]] = {
    "worst first: false and missed": lambda tally: tally.wrong,
    "most missed first": lambda tally: tally.count(MISSED),
    "most false first": lambda tally: tally.count(FALSE),
    "most detections first": lambda tally: int(tally.found.sum()),
    "as uploaded": lambda tally: 0,
}


@dataclass(frozen=True)
class Gallery:
    """What was uploaded, analysed. classes: the model's. notes: sentences on what is left out."""

    classes: tuple[str, ...]
    photographs: list[Photograph] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tallies(self, threshold: float, name: str | None, order: str) -> list[tuple[int, Tally]]:
        """(place among the photographs, tally) by the order.

        name: only this class, and only photographs in which something of it is found or missed;
        None for all.
        """
        label = None if name is None else self.classes.index(name) + 1
        listed = [(i, self._tally(p, threshold, label)) for i, p in enumerate(self.photographs)]
        if label is not None:
            listed = [one for one in listed if one[1].found.any() or one[1].wrong]
        return sorted(listed, key=lambda one: -ORDERS[order](one[1]))

    def _tally(self, photograph: Photograph, threshold: float, label: int | None) -> Tally:
        found, truth = photograph.found, photograph.truth
        passes = found.scores >= threshold
        of_class = np.ones(len(passes), bool) if label is None else found.labels == label
        if truth is None:
            return Tally(photograph, passes & of_class, None)
        given = Detections(found.boxes[passes], found.labels[passes], found.scores[passes])
        told = outcomes(given, truth, len(self.classes))
        true, false = np.zeros((2, len(passes)), bool)
        true[passes], false[passes] = told.true, told.false
        missed = told.missed if label is None else told.missed & (truth.labels == label)
        kept = Outcomes(true & of_class, false & of_class, missed)
        return Tally(photograph, passes & of_class, kept)

    def drawn(self, tally: Tally) -> Image.Image:
        """The small picture with boxes: in the colours of what became of each, or of classes."""
        photograph, told = tally.photograph, tally.outcomes
        found, picture = photograph.found, photograph.picture
        size = photograph.size
        scale = np.tile([picture.width / size[1], picture.height / size[0]], 2)
        if told is None:
            names = [self.classes[label - 1] for label in found.labels[tally.found]]
            return draw_boxes(picture, found.boxes[tally.found] * scale, names, names)
        groups = {
            MISSED: (photograph.truth, told.missed),  # the first lie on top
            FALSE: (found, told.false),
            TRUE: (found, told.true),
        }
        boxes = np.concatenate([given.boxes[rows] for given, rows in groups.values()])
        labels = np.concatenate([given.labels[rows] for given, rows in groups.values()])
        kinds = [kind for kind, (_, rows) in groups.items() for _ in range(rows.sum())]
        texts = [self.classes[label - 1] for label in labels]
        return draw_boxes(picture, boxes * scale, kinds, texts, colours=COLOURS)

    def bytes(self) -> int:
        """About what it takes in memory; Pillow takes 4 bytes a pixel."""
        return sum(4 * p.picture.width * p.picture.height for p in self.photographs)


def sorted_files(payload: list[dict]) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    """Photographs and annotations by name, and a note on what is neither.

    Raises InputError beyond the bounds, or where two files have one name.
    """
    photographs: dict[str, Path] = {}
    annotations: dict[str, Path] = {}
    other = []
    if not isinstance(payload, list) or not all(isinstance(one, dict) for one in payload):
        raise InputError("These are no files that were uploaded to this page: upload them again.")
    for one in payload:
        path = Path(one["path"])
        # The whole name, however long: by it an annotation finds its photograph.
        name = Path(printable(str(one.get("orig_name") or path))).name
        ending = path.suffix.lower()
        if ending not in IMAGE_SUFFIXES + SUFFIXES or name.startswith("."):
            other.append(shown_name(name))
            continue
        files = annotations if ending in SUFFIXES else photographs
        if name in files:
            raise InputError(f"{shown_name(name)}: two files have this name; rename one.")
        files[name] = path
    if not photographs:
        raise InputError("There is no photograph among these files.")
    if max(len(photographs), len(annotations)) > MAX_PHOTOGRAPHS:
        raise InputError(
            f"{len(photographs)} photographs and {len(annotations)} annotation files: at most "
            f"{MAX_PHOTOGRAPHS} of each at once; choose fewer."
        )
    some = ", ".join(other[:3]) + ", ..." * (len(other) > 3)
    notes = [f"{len(other)} of the files are of other kinds and left out: {some}."] if other else []
    return photographs, annotations, notes


def read_gallery(predictor: Predictor, payload: list[dict]) -> Iterator[tuple[Gallery, int]]:
    """The gallery, and how many photographs are still to come, after each that was read.

    The network is free between two, for other visitors. Raises InputError, before anything runs,
    as `sorted_files` and `records_beside` do.
    """
    photographs, annotations, notes = sorted_files(payload)
    readable = {}
    for name, path in photographs.items():
        try:
            image_size(path)
            readable[name] = path
        except InputError as error:
            notes.append(str(error).replace(str(path), shown_name(name)))
    records, told = records_beside(readable, annotations, predictor.classes)
    gallery = Gallery(predictor.classes, notes=notes + told)
    for done, (name, path) in enumerate(readable.items(), start=1):
        record = records.get(name)
        truth = None if record is None else truths_of([record])[0]
        try:
            gallery.photographs.append(_read(predictor, shown_name(name), path, truth))
        except InputError as error:
            gallery.notes.append(str(error))
        yield gallery, len(readable) - done
    if not readable:
        yield gallery, 0


def _read(predictor: Predictor, name: str, path: Path, truth: GroundTruth | None) -> Photograph:
    image = as_rgb(path, name=name)
    told = predictor.predict(image)
    found = Detections(told.boxes, told.labels, told.scores)
    image.thumbnail((SMALL, SMALL))
    return Photograph(name, path, image, told.size, found, truth)
