"""A link to an example with its settings; to no upload, since those are deleted."""

import filecmp
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlencode

from als.errors import InputError
from als.photographs import package_photographs
from als.ui.takeaway import fresh_folder
from als.views.photo_study import Choice, Settings, Study, offered

USUAL = asdict(Settings())


def example_of(path: Path, name: str) -> str | None:
    """The name of the example that a file of this name is; None for any other photo."""
    example = {one.name: one for one in package_photographs()}.get(name)
    return name if example and filecmp.cmp(path, example, shallow=False) else None


def link_of(study: Study, settings: Settings, model: str | None = None) -> str:
    """The query of the page's address that brings an example back; "" for any other photo.

    model: the name of the one that was chosen, None for the page's own.
    """
    if study.example is None or study.choice.box is not None:
        return ""
    asked = {"example": study.example} | ({} if model is None else {"model": model})
    asked |= {key: value for key, value in asdict(settings).items() if value != USUAL[key]}
    if study.choice.label is not None:
        asked["class"] = study.predictor.classes[study.choice.label - 1]
    elif study.choice.detection:
        asked["detection"] = study.choice.detection + 1
    return f"?{urlencode(asked)}"


def asked_for(query: Mapping[str, str], predictor) -> tuple[Path, Settings, Choice] | None:
    """The example, as a file of the page's cache, the settings and the choice of such a query.

    None where it names no example. Raises InputError for what `link_of` never writes.
    """
    if "example" not in query:
        return None
    known = {path.name: path for path in package_photographs()}
    example = known.get(query["example"])
    if example is None:
        raise InputError(f"The address asks for an example that is none of {', '.join(known)}.")
    try:
        given = {key: type(usual)(query[key]) for key, usual in USUAL.items() if key in query}
        detection = int(query["detection"]) - 1 if "detection" in query else None
    except ValueError as error:
        raise InputError("The address holds a setting that is no number: correct it.") from error
    settings = Settings.from_page(*(USUAL | given).values())
    name = query.get("class")
    if settings.explainer not in offered(predictor) or name not in (None, *predictor.classes):
        raise InputError("The address asks for a class or a last view that this model has not.")
    label = None if name is None else predictor.classes.index(name) + 1
    path = fresh_folder() / example.name
    shutil.copyfile(example, path)
    return path, settings, Choice(detection if label is None else None, label)
