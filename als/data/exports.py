"""Reads what labelling tools export: YOLO's text files, COCO's JSON, VOC's XML, and their folders.

A photograph of which one label cannot be read is left out whole: what else it shows would count as
background. An object without area is left out alone.
"""

from pathlib import Path

from als.data.export_coco import coco_files, read_coco
from als.data.export_voc import read_voc, xml_folders
from als.data.export_yolo import read_yolo, why_not, yolo_config
from als.data.labelled import Export, LeftOut, Report, images_in
from als.errors import InputError


def kind_of(source: Path) -> str | None:
    """What exported a folder, by its files; None where nothing is known of it."""
    if yolo_config(source) is not None:
        return "YOLO (data.yaml)"
    if (source / "classes.txt").is_file() and (source / "labels").is_dir():
        return "Label Studio (YOLO)"
    files = coco_files(source)
    if files:
        names = {"_annotations.coco.json": "Roboflow (COCO)", "result.json": "Label Studio (COCO)"}
        return names.get(files[0].name, "COCO, as CVAT writes it")
    if (source / "labelmap.txt").is_file():
        return "CVAT (VOC)"
    if (source / "Annotations").is_dir():
        own = (source / "images").is_dir()
        return "Label Studio (VOC)" if own else "VOC"
    return "Roboflow (VOC)" if any(xml_folders(source)) else None


def advice(folder: Path) -> str:
    """The sentence for who takes an export for a data set; empty where the folder is none."""
    kind = kind_of(folder) if folder.is_dir() else None
    is_voc = all((folder / name).is_dir() for name in ("JPEGImages", "Annotations", "ImageSets"))
    splits = (file.stem.removeprefix("instances_") for file in coco_files(folder))
    is_coco = any((folder / s).is_dir() or (folder / "images" / s).is_dir() for s in splits)
    if kind is None or (is_voc and "CVAT" not in kind) or (is_coco and "CVAT" in kind):
        return ""
    return (
        f"It looks like an export ({kind}): `als data import '{folder}' NEW` makes it a data set."
    )


def read_export(source: Path, report: Report) -> Export:
    """Read the export of a labelling tool.

    report: told all that cannot be used. Raises InputError when the folder holds no such export,
    or a file of it that everything needs is broken.
    """
    if source.is_file():
        raise InputError(f"{source}: is a file; unpack it and give the folder.")
    kind = kind_of(source) if source.is_dir() else None
    if kind is None:
        for file in sorted(source.glob("data.y*ml")):
            raise InputError(f"{file}: {why_not(file)}; mend it, or export again.")
        raise InputError(
            f"{source}: there is no export in it: no data.yaml, no classes.txt with labels/, no "
            "_annotations.coco.json, result.json or annotations/instances_*.json, no XML; give the "
            "folder that holds them."
        )
    read = read_yolo if "YOLO" in kind else read_coco if "COCO" in kind else read_voc
    named: set[Path] = set()

    def note(left_out: LeftOut) -> None:
        named.add(left_out.file.resolve())
        report(left_out)

    export = read(source, kind, note)
    export.classes = list(dict.fromkeys(export.classes))
    used = named | {photo.path.resolve() for photo in export.photos}
    for folder in sorted({photo.path.parent for photo in export.photos}):
        for path in images_in(folder.glob("*")):
            if path.resolve() not in used:
                report(LeftOut("photograph", path, "it stands alone: no label file names it"))
    return export
