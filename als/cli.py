"""The command line `als`: thin, each command one call into the package.

A command imports what it needs when it runs, so that `als --help` answers at once.
"""

import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from als import __version__
from als.errors import InputError
from als.files import (
    FULL,
    UNWRITABLE,
    atomic_folder,
    check_writable,
    printable,
    read_json,
    write_json,
)
from als.machine import keep_freed_memory

CHECKPOINT = "a file, or the name of one in the package: shipped, animals-parts, animals, twenty"
SHIPPED_FIGURES = ("AP50_area", "AP75", "AP")
SEVERAL: dict[str, Any] = {"nargs": "+", "action": "extend"}  # --set A --set B is --set A B
# In a checkpoint's info.
TOLD_APART_BY = ("epochs", "data", "seed", "time", "machine", "calibration", "averaged")


def train(arguments: list[str]) -> None:
    """Train a detector: als train configs/compact-stage1.yaml [--resume] [--data.root DIR] ..."""
    from als.training.options import read_options

    config, trainer, resume = read_options(arguments, train.__doc__)

    from als.training.train import train as run  # after the options are known to be right

    print(run(config, resume, **trainer.given()))


def ship(arguments: list[str]) -> None:
    """Make a checkpoint the one that ships: als ship CHECKPOINT [--record FILE]"""
    from als.checkpoint import SHIPPED

    parser = ArgumentParser(prog="als ship", description=ship.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--record", type=Path, help="of `als evaluate`; its figures go along")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args(arguments)

    from als.checkpoint import load_checkpoint, save_checkpoint

    detector, info = load_checkpoint(given.checkpoint)
    if given.record is not None:
        info["figures"] = _figures(given.record, info)
    save_checkpoint(detector, given.out, info, half=True)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB; write its card beside it")


def configs(arguments: list[str]) -> None:
    """The runs that come with the package: als configs [--copy DIR]"""
    from als.config import CONFIGS

    parser = ArgumentParser(prog="als configs", description=configs.__doc__)
    parser.add_argument("--copy", type=Path, help="a new folder to copy them into")
    given = parser.parse_args(arguments)
    files = sorted(CONFIGS.rglob("*.yaml"))
    if given.copy is None:
        print("\n".join(f"{file.relative_to(CONFIGS)}" for file in files))
        return
    if given.copy.exists():
        raise InputError(f"{given.copy}: is there already; give a new folder.")
    with atomic_folder(given.copy) as aside:
        shutil.copytree(CONFIGS, aside, dirs_exist_ok=True)
    print(f"{given.copy}: {len(files)} configs")


def average(arguments: list[str]) -> None:
    """Mean of one network's checkpoints: als average CHECKPOINT CHECKPOINT --out FILE"""
    parser = ArgumentParser(prog="als average", description=average.__doc__)
    parser.add_argument("checkpoints", type=str, nargs="+", help="the last one's config is taken")
    parser.add_argument("--shares", type=float, **SEVERAL, help="how much each counts")
    parser.add_argument("--out", type=Path, required=True, help="the averaged checkpoint")
    given = parser.parse_args(arguments)

    from als.checkpoint import average_checkpoints, save_checkpoint

    check_writable(given.out)
    detector, info = average_checkpoints(given.checkpoints, given.shares)
    save_checkpoint(detector, given.out, info)
    print(f"{given.out}: choose it by a val split, and calibrate it there")


def calibrate(arguments: list[str]) -> None:
    """Make scores chances: als calibrate CHECKPOINT --data VAL --root DIR --out FILE"""
    parser = ArgumentParser(prog="als calibrate", description=calibrate.__doc__)
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT)
    parser.add_argument("--data", type=str, required=True, help="that it was not trained on")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the data folders")
    parser.add_argument("--out", type=Path, required=True, help="the calibrated checkpoint")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)
    _refuse_negative(given.workers)

    from als.checkpoint import load_checkpoint, save_checkpoint
    from als.data.layouts import load_records
    from als.evaluation.calibration import calibrate as run

    check_writable(given.out)
    detector, info = load_checkpoint(given.checkpoint)
    records = load_records(given.data, given.root, detector.config.classes)
    fitted = run(detector, records, given.workers)
    save_checkpoint(detector, given.out, info | {"calibration": {"data": given.data, **fitted}})
    before, after = (100 * fitted[name]["error"] for name in ("before", "after"))
    print(
        f"{given.out}: temperature {fitted['temperature']:.2f}, shift of the background "
        f"{fitted['shift']:.2f}; calibration error on "
        f"{given.data}: {before:.1f}% before, {after:.1f}% after"
    )


def _refuse_negative(workers: int) -> None:
    if workers < 0:
        raise InputError(f"--workers {workers}: give at least 0.")


def _figures(file: Path, info: dict) -> dict:
    """What the checkpoint of this info says of itself, from a record of `als evaluate`."""
    record = read_json(file)
    try:
        judged = record.get("training") or info  # None where detections alone were judged
        if any(judged.get(name) != info.get(name) for name in TOLD_APART_BY):
            raise InputError(f"{file}: is the record of another checkpoint; evaluate this one.")
        figures = {name: round(record["metrics"][name], 3) for name in SHIPPED_FIGURES}
        return {"data": record["data"]["split"], **figures}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file}: is no record of `als evaluate`.") from error


COCO_RESULTS = "coco-results.json"  # of `als predict`, in --out
WAITING = 16  # predictions that wait for being written, at most
WRITERS = 2  # threads; most of a picture's time is spent where Python's lock is not held


def evaluate(arguments: list[str]) -> None:
    """Measure a checkpoint: als evaluate CHECKPOINT --data VOC2012:test --root DIR [--out FILE]"""
    parser = ArgumentParser(prog="als evaluate", description=evaluate.__doc__)
    told = f"{CHECKPOINT}; without one --detections are judged"
    parser.add_argument("checkpoint", type=str, nargs="?", help=told)
    parser.add_argument("--data", type=str, required=True, help="FOLDER:SPLIT [+ FOLDER:SPLIT]")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the data folders")
    parser.add_argument("--classes", type=str, **SEVERAL, help="judge only these; default: all")
    parser.add_argument(
        "--out", type=Path, default=Path("record.json"), help="the record; detections go beside it"
    )
    told = "judge these, kept before, or a results JSON of COCO's form"
    parser.add_argument("--detections", type=Path, **SEVERAL, default=[], help=told)
    told = "write the detections in that form too"
    parser.add_argument("--coco-results", type=Path, metavar="FILE", help=told)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.out.is_dir():
        raise InputError(f"{given.out}: is a folder; give --out a file name in it.")
    _refuse_negative(given.workers)
    if given.checkpoint is None and not given.detections:
        raise InputError("there is nothing to evaluate: give a checkpoint, or --detections.")
    for out in filter(None, (given.out, given.coco_results)):
        check_writable(out)  # else this would be found out after the evaluation
    stem = given.out.stem if given.out.suffix in (".json", ".npz") else given.out.name
    keep = None if given.detections else given.out.with_name(f"{stem}.npz")
    if keep == given.out:
        raise InputError(f"{given.out}: the detections go there; give --out another name.")
    written = [path.resolve() for path in (given.out, given.coco_results, keep) if path]
    read = [Path(one).resolve() for one in (given.checkpoint, *given.detections) if one]
    if twice := [path for path in written if (written + read).count(path) > 1]:
        raise InputError(f"{twice[0].name}: would be written over; give each file its own name.")

    from als.data.layouts import all_classes, load_records
    from als.evaluation.evaluate import evaluate as run
    from als.evaluation.evaluate import table
    from als.inference import load

    predictor = load(given.checkpoint, given.device) if given.checkpoint else None
    classes = given.classes or (predictor and predictor.classes)
    classes = tuple(classes or all_classes(given.data, given.root))
    records = load_records(given.data, given.root, classes)
    files = {"keep": keep, "detections": given.detections, "coco_results": given.coco_results}
    detector = predictor and predictor.detector
    record = run(detector, records, given.workers, classes=classes, **files)
    record["data"]["split"] = given.data
    record["training"] = predictor and predictor.info
    print(table(record, given.checkpoint or given.detections[0]))
    coco = {k.removeprefix("COCO_"): v for k, v in record["metrics"].items() if "COCO" in k}
    told = ", ".join(f"{name} {100 * value:.1f}" for name, value in coco.items())
    print(f"COCO (by the area of {record['data']['COCO_areas']}): {told}")
    if record["maps"]:
        print("maps: " + ", ".join(f"{k} {v:.3f}" for k, v in record["maps"].items()))
    try:
        write_json(given.out, record)
    except OSError as error:  # the disk filled up meanwhile; hours may be in the record
        kept = Path(tempfile.mkdtemp(prefix="als-"), "record.json")
        write_json(kept, record)
        raise InputError(
            f"{given.out}: cannot be written ({error.strerror}); the record is {kept} instead."
        ) from error
    print(f"the record: {given.out}" + (f"; the detections: {keep}" if keep else ""))


def predict(arguments: list[str]) -> None:
    """Detect on images: als predict CHECKPOINT IMAGE_OR_FOLDER... --out DIR (pictures and JSON)"""
    parser = ArgumentParser(prog="als predict", description=predict.__doc__)
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT)
    parser.add_argument("images", type=str, nargs="+", help="files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--score-threshold", type=float, default=0.5)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument(
        "--batch-size", type=int, help="images of like shape at once (default: 2, on a GPU 8)"
    )
    told = f"a COCO file, or a folder in VOC's layout: {COCO_RESULTS} gets its ids"
    parser.add_argument("--coco-ids", type=Path, metavar="PLACE", help=told)
    given = parser.parse_args(arguments)

    from als.data.coco_ids import ids_in
    from als.evaluation.coco_results import result_rows, write_results
    from als.inference import image_files, load, predict_many

    predictor = load(given.checkpoint, given.device)
    files = image_files(map(Path, given.images))
    _refuse_overwriting(files, given.out)
    if given.coco_ids and any(path.stem == Path(COCO_RESULTS).stem for path in files):
        raise InputError(f"an image is called as {COCO_RESULTS}; rename it.")
    broken, rows, ids = [], [], None
    if given.coco_ids is not None:
        ids = ids_in(given.coco_ids, predictor.classes)
        ids.require(predictor.classes)
        image_ids = {path: ids.of_file(path) for path in files}

    def skip(path: Path, error: InputError) -> None:
        print(f"als: {printable(str(error))}", file=sys.stderr)
        broken.append(path)

    def noted(found: Iterable) -> Iterator:
        for one in found:
            some = one.prediction
            rows.extend(result_rows(image_ids[one.path], some.boxes, some.names, some.scores, ids))
            yield one

    found = predict_many(predictor, files, given.batch_size, given.score_threshold, skip)
    save_all(found if ids is None else noted(found), given.out)
    if ids is not None:
        write_results(given.out / COCO_RESULTS, rows)
        print(printable(f"{given.out / COCO_RESULTS}: {len(rows)} detections"))
    if broken:
        raise InputError(f"{len(broken)} of {len(files)} images could not be read, see above.")


def _refuse_overwriting(files: list[Path], out: Path) -> None:
    """Raise InputError where two images would write one file, or one over what lies beside it."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is no folder; give another --out.")
    from als.drawing import output_stem

    check_writable(out / f"{output_stem(files[0])}.png")  # it may hold a folder, predictions
    seen: dict[str, Path] = {}
    for path in files:
        stem = output_stem(path)
        if seen.setdefault(stem, path) is not path:
            raise InputError(
                f"{seen[stem]} and {path} would both write {stem}.png; rename one or predict them "
                "apart."
            )
        for written in (out / f"{stem}.png", out / f"{stem}.json"):
            if written.exists() and written.resolve().parent == path.resolve().parent:
                raise InputError(
                    f"{written}: would be written over, and lies beside {path.name}; give another "
                    "--out."
                )


def save_all(found: Iterable, out: Path) -> None:
    """Write pictures and JSON beside the network, and tell each file once written."""
    from als.drawing import save_prediction

    def tell() -> None:
        one, written = running.popleft()
        scored = zip(one.prediction.names, one.prediction.scores, strict=True)
        names = ", ".join(f"{name} {score:.2f}" for name, score in scored)
        told = f"{one.path}: {names or 'nothing found'} -> {written.result()}"
        print(printable(told))

    running: deque = deque()
    with ThreadPoolExecutor(WRITERS) as writer:
        for one in found:
            written = writer.submit(save_prediction, one.path, one.prediction, out, one.photo)
            running.append((one, written))
            while running and (running[0][1].done() or len(running) > WAITING):
                tell()
        while running:
            tell()


def study(arguments: list[str]) -> None:
    """Compare maps: als study CHECKPOINT... --data VOC2012:test --root DIR --out DIR [--resume]"""
    parser = ArgumentParser(prog="als study", description=study.__doc__)
    parser.add_argument("checkpoints", nargs="+", help=CHECKPOINT)
    parser.add_argument("--data", type=str, required=True, help="FOLDER:SPLIT [+ FOLDER:SPLIT]")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the data folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--maps", type=str, **SEVERAL, help="names; default: all quick ones")
    parser.add_argument(
        "--measures", type=str, **SEVERAL, help="names or groups; default: where part"
    )
    parser.add_argument("--interventions", action="store_true", help="replace the maps, too")
    parser.add_argument("--gallery", action="store_true", help="pictures of best and worst cases")
    parser.add_argument("--limit", type=int, help="so many images, drawn at random by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drise-masks", type=int, help="passes of D-RISE an image")
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--resume", action="store_true", help="go on in a folder with a study")
    parser.add_argument("--shard", type=str, help="1/2 or 2/2: half of the images, with --resume")
    given = parser.parse_args(arguments)

    from als.study.study_command import study as run

    options = given.as_dict()
    spec = options.pop("data")
    if options["drise_masks"] is None:
        del options["drise_masks"]
    for folder in run(spec=spec, **options):
        written = "rows" if options["shard"] else "summary.json, tables and figures"
        print(f"{folder}: {written}")


def reproduce(arguments: list[str]) -> None:
    """A table anew: als reproduce TABLE --scale full|compact"""
    from als.tables.rows import ROWS

    parser = ArgumentParser(prog="als reproduce", description=reproduce.__doc__)
    parser.add_argument("table", choices=list(ROWS))
    parser.add_argument("--scale", choices=["full", "compact"], required=True)
    parser.add_argument("--data-root", type=Path, help="default: data, compact data/voc-animals")
    parser.add_argument("--seeds", type=int, **SEVERAL, help="default: 0")
    parser.add_argument("--rows", type=str, **SEVERAL, default=[], help="only these rows")
    parser.add_argument("--weights", type=Path, help="MobileNetV2's file, for the compact rows")
    parser.add_argument("--set", type=str, **SEVERAL, default=[], metavar="OPTION=VALUE")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--force", action="store_true", help="redo what another config made")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    given = parser.parse_args(arguments)
    if given.weights is not None and given.scale == "full":
        raise InputError("--weights is for --scale compact; the full rows have three backbones.")

    from als.tables.plan import describe, make_plan
    from als.tables.plan import reproduce as run
    from als.tables.stage_config import Settings

    settings = Settings(
        given.scale,
        given.data_root,
        tuple(given.seeds or (0,)),
        given.results,
        given.runs,
        given.weights,
        dict(_change(text) for text in given.set),
        given.force,
        rows=tuple(given.rows),
    )
    plan = make_plan(given.table, settings)
    print(describe(plan), flush=True)
    if not given.dry_run:
        run(plan)


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: write OPTION=VALUE, as in data.workers=1.")
    return name, value


def tables(arguments: list[str]) -> None:
    """Paper, full and compact: als tables [TABLE ...] [--format markdown|latex|csv] [--out DIR]

    als tables compare RECORD ... holds records of your own against the seeds of their row.
    """
    if arguments[:1] == ["compare"]:
        return compare(arguments[1:])
    from als.tables.rows import CHOICES, TABLES

    parser = ArgumentParser(prog="als tables", description=tables.__doc__)
    told = f"of {', '.join(TABLES)} (the default), {', '.join(CHOICES)}"
    parser.add_argument("tables", nargs="*", help=told)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the records")
    parser.add_argument("--format", choices=["markdown", "latex", "csv"], default="markdown")
    parser.add_argument("--out", type=Path, help="a folder for all three formats, not the screen")
    given = parser.parse_args(arguments)

    from als.tables.render import render, write_tables

    chosen = given.tables or list(TABLES)
    if given.out is None:
        for name in chosen:
            print(render(name, given.results, given.format))
        return
    for path in write_tables(chosen, given.results, given.out):
        print(path)


def compare(arguments: list[str]) -> None:
    """Records of your own beside the row of their network: als tables compare RECORD ..."""
    parser = ArgumentParser(prog="als tables compare", description=compare.__doc__)
    parser.add_argument("records", nargs="+", type=Path, help="of `als evaluate`")
    parser.add_argument("--row", type=str, help="another row, as table2/proposed")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the tables' records")
    given = parser.parse_args(arguments)

    from als.tables.own_record import beside

    for path in given.records:
        found = beside(path, given.results, given.row)
        print(f"{path}: {found.sentence}")
        print(found.figures.to_string(float_format="{:.1f}".format) + "\n")


def data(arguments: list[str]) -> None:
    """Data sets: als data toy|check|import|masks|to-coco|prepare (and --help after each)"""
    parser = ArgumentParser(prog="als data", description=data.__doc__)
    parser.add_argument("action", choices=list(ACTIONS))
    given = parser.parse_args(arguments[:1])
    ACTIONS[given.action](arguments[1:])


def toy(arguments: list[str]) -> None:
    """Write a drawn data set in the VOC layout: als data toy DIR"""
    parser = ArgumentParser(prog="als data toy", description=toy.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=24, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the drawings")
    given = parser.parse_args(arguments)

    from als.data.toy import next_commands, write_toy

    write_toy(given.folder, given.images, given.seed)
    print(f"{given.folder}: {given.images} drawn images in the VOC layout. To go on:")
    for line in next_commands(given.folder):
        print(f"  {line}")


def check(arguments: list[str]) -> None:
    """Name every broken file of a data set in VOC's or COCO's layout: als data check DIR"""
    parser = ArgumentParser(prog="als data check", description=check.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--classes", type=str, **SEVERAL, help="to detect; default: all of the data"
    )
    given = parser.parse_args(arguments)

    from als.data.check import check_folder

    _tell_problems(check_folder(given.folder, given.classes, tell=print), given.folder)


def import_export(arguments: list[str]) -> None:
    """Make a data set of what a labelling tool exported: als data import SOURCE NEW"""
    parser = ArgumentParser(prog="als data import", description=import_export.__doc__)
    parser.add_argument("source", type=Path, help="folder of YOLO, COCO or VOC files, unpacked")
    parser.add_argument("out", type=Path, help="a new folder, in COCO's layout")
    parser.add_argument("--val", type=float, help="share to validate on, where there are no splits")
    parser.add_argument("--test", type=float, default=0.0, help="share to test on, likewise")
    parser.add_argument("--seed", type=int, default=0, help="of the splits that are made")
    given = parser.parse_args(arguments)

    from als.data.importing import import_export as run
    from als.data.importing import summary

    done = run(given.source, given.out, given.val, given.test, given.seed)
    print(summary(done))
    spec = shlex.quote(f"{given.out.name}:{done.table.index[0]}")
    names = shlex.quote(json.dumps(done.classes, ensure_ascii=False))
    print(f"als data check {shlex.quote(str(given.out))}")
    root = shlex.quote(str(given.out.parent))
    print(f"als train CONFIG --data.root {root} --data.train {spec} --model.classes {names}")


def masks(arguments: list[str]) -> None:
    """Make masks from boxes, marked as such, for photographs without: als data masks DIR"""
    parser = ArgumentParser(prog="als data masks", description=masks.__doc__)
    parser.add_argument("folder", type=Path, help="of one data set, in VOC's or COCO's layout")
    told = "default: all but val, valid, validation, test"
    parser.add_argument("--splits", type=str, **SEVERAL, help=told)
    given = parser.parse_args(arguments)

    from als.data.derived_masks import derive_masks

    made = derive_masks(given.folder, given.splits)
    print(f"{given.folder}: {made} masks made")


def to_coco(arguments: list[str]) -> None:
    """Write a VOC-layout folder in COCO's: als data to-coco DIR --splits train val --out NEW"""
    parser = ArgumentParser(prog="als data to-coco", description=to_coco.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=str, **SEVERAL, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args(arguments)

    from als.data.convert import to_coco as convert

    for split, images in convert(given.folder, given.splits, given.out).items():
        print(f"{given.out}:{split}: {images} images in COCO's layout")


def prepare(arguments: list[str]) -> None:
    """Download and unpack a data set: als data prepare voc07+12|sbd|coco2017 DIR"""
    parser = ArgumentParser(prog="als data prepare", description=prepare.__doc__)
    parser.add_argument("name", type=str)
    parser.add_argument("folder", type=Path, help="the data root")
    given = parser.parse_args(arguments)

    from als.data.prepare import prepare as run

    _tell_problems(run(given.name, given.folder), given.folder)


ACTIONS = {
    "toy": toy,
    "check": check,
    "import": import_export,
    "masks": masks,
    "to-coco": to_coco,
    "prepare": prepare,
}


def _tell_problems(problems, folder: Path) -> None:
    """The table of `check_folder`; raises InputError when it is not empty."""
    from als.data.check import refuse_problems

    refuse_problems(problems, folder)
    print(f"{folder}: no broken file")


def app(arguments: list[str]) -> None:
    """Open the app: als app [--checkpoint FILE] [--host 127.0.0.1] [--port 7860]"""
    parser = ArgumentParser(prog="als app", description=app.__doc__)
    parser.add_argument("--checkpoint", type=Path, help=f"{CHECKPOINT}; default: shipped")
    parser.add_argument("--other", type=Path, help="a second checkpoint, for the Compare tab")
    parser.add_argument("--host", type=str, default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)
    told = "names that browsers know the page by, besides localhost and --host"
    parser.add_argument("--allow-host", type=str, **SEVERAL, default=[], metavar="NAME", help=told)
    told = "be a tool of the Model Context Protocol too, at /gradio_api/mcp/"
    parser.add_argument("--mcp", action="store_true", help=told)
    given = parser.parse_args(arguments)

    from als.ui import launch

    options = given.checkpoint, given.host, given.port, given.other, given.allow_host, given.mcp
    launch(*options)


def export(arguments: list[str]) -> None:
    """For other programs: als export CHECKPOINT --format onnx|torchscript|pt2 [--size H W]"""
    parser = ArgumentParser(prog="als export", description=export.__doc__)
    parser.add_argument("checkpoint", type=str, help=CHECKPOINT)
    parser.add_argument("--format", choices=["onnx", "torchscript", "pt2"], default="onnx")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="pixels of the images that will come; default: the network's min_size and max_size",
    )
    parser.add_argument("--out", type=Path, help="default: <checkpoint's name>.<format>, here")
    given = parser.parse_args(arguments)

    from als.export import export as run
    from als.export import photographs
    from als.inference import load

    predictor = load(given.checkpoint)
    config = predictor.detector.config
    size = tuple(given.size or (config.min_size, config.max_size))
    out = given.out or Path(f"{Path(predictor.source).stem}.{given.format}")
    difference = run(predictor.detector, out, given.format, size)
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, for images of {size[0]} x {size[1]} pixels "
        f"(height x width); differs from PyTorch by at most {difference:.1g} on "
        f"{len(photographs(size))} photographs"
    )


COMMANDS = {
    run.__name__: run
    for run in (
        *(train, evaluate, predict, study, reproduce, tables, data, app),
        *(configs, average, calibrate, ship, export),
    )
}
COMPUTE = ("train", "evaluate", "calibrate", "predict", "study", "reproduce")  # the app stays


def main(arguments: list[str] | None = None) -> None:
    """Run one command; bad input ends with one sentence on stderr and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print("als COMMAND ... (als COMMAND --help tells more)\n")
        for name, run in COMMANDS.items():
            print(f"  {name:<10}{run.__doc__}")
        return
    if arguments == ["--version"]:
        print(f"als {__version__}")
        return
    if arguments[0] in COMPUTE:
        keep_freed_memory()
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(f"'{arguments[0]}' is no command; there are {', '.join(COMMANDS)}.")
        with ended_by_sigterm():
            COMMANDS[arguments[0]](arguments[1:])
            sys.stdout.flush()  # what cannot be written is told here, not when Python ends
    except InputError as error:
        _end("\n".join(map(printable, str(error).splitlines())))
    except KeyboardInterrupt:
        _end("interrupted.", 128 + signal.SIGINT)
    except BrokenPipeError:  # whoever reads what is printed has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        sys.exit(128 + 13)  # SIGPIPE, which Windows lacks
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        reason = f"{error.filename or 'the output'}: {error.strerror}"
        full = error.errno in FULL
        _end(f"{reason}; {'make room, or ' if full else ''}give another place.")


def _end(sentence: str, status: int = 2) -> None:
    print(f"als: {sentence}", file=sys.stderr)
    sys.exit(status)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """A SIGTERM ends the block as an exception does, so that nothing half-written is left."""

    def end(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # let it clean in peace
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
