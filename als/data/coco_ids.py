"""The ids that COCO's results JSON calls images and categories by, of a data set in any layout."""

from collections.abc import Iterable
from os.path import splitext
from pathlib import Path, PurePath
from typing import NamedTuple

from als.data import coco_file, voc_layout
from als.data.record import Record
from als.errors import InputError

Id = int | str


class CocoIds(NamedTuple):
    """Ids of images by name, and of categories by name.

    Of COCO's layout they are the file's; of VOC's those that `als data to-coco` gives.
    """

    images: dict[str, Id]
    categories: dict[str, Id]

    def of_file(self, path: Path) -> Id:
        """The id of an image file, by the end of its path, with its ending or without.

        Raises InputError where no image of the data set is called so.
        """
        parts = PurePath(path).parts
        for first in range(len(parts)):
            name = "/".join(parts[first:])
            for known in (name, splitext(name)[0]):
                if known in self.images:
                    return self.images[known]
        raise InputError(f"{path}: the data set whose ids are to be taken has no such image.")

    def require(self, classes: Iterable[str]) -> None:
        """Raise InputError where a class is none of the categories."""
        if unknown := [name for name in classes if name not in self.categories]:
            raise InputError(
                f"class '{unknown[0]}' is no category of the data set, which COCO's results need; "
                f"its categories are {', '.join(self.categories)}."
            )


def ids_of(records: Iterable[Record]) -> CocoIds:
    """The ids of records, whose names are their image ids.

    Of VOC's layout all annotated images of the folder have one. Raises InputError where the records
    are of several data sets, of which one could hold an id of another.
    """
    found: dict[Path, CocoIds] = {}
    for record in records:
        if (entry := record.coco) is None:
            folder = voc_layout.data_folder(record)
            if folder not in found:
                found[folder] = _numbered(folder)
        else:
            ids = found.setdefault(entry.file, CocoIds({}, {n: i for i, n in entry.names.items()}))
            ids.images[record.image_id] = entry.image_id
    if len(found) > 1:
        first, second = list(found)[:2]
        raise InputError(
            f"{first} and {second}: COCO's results are of one data set, whose ids they hold; take "
            "one at a time."
        )
    return next(iter(found.values()), CocoIds({}, {}))


def ids_in(place: Path, classes: Iterable[str] = ()) -> CocoIds:
    """The ids in a COCO file, by file name, or of a folder in VOC's layout, by name without ending.

    The file may list images alone, as those of COCO's test sets do, and its categories are called
    by VOC's words where `classes` have them. Raises InputError for what is neither.
    """
    place = Path(place)
    if place.is_dir():
        if not (place / "Annotations").is_dir():
            raise InputError(f"{place}: has no Annotations/; give a COCO file, or VOC's layout.")
        return _numbered(place)
    file = coco_file.read_file(place, annotated=False).in_words_of(classes)
    names = {name: id_ for id_, name in file.categories.items()}
    images: dict[str, Id] = {}
    for entry in file.images:
        name = entry["file_name"].replace("\\", "/")
        if images.setdefault(name, entry["id"]) != entry["id"]:
            raise InputError(
                f"{place}: images {images[name]} and {entry['id']} are both {name}; remove one."
            )
    return CocoIds(images, names)


def _numbered(folder: Path) -> CocoIds:
    names = voc_layout.class_names(folder)
    numbers = {name: label for label, name in enumerate(names, start=1)}
    return CocoIds(voc_layout.image_numbers(folder), numbers)
