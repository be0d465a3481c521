"""`als evaluate` and `als predict`: a checkpoint on a data set, or on some images."""

import sys
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jsonargparse import ArgumentParser

from als.errors import InputError

WAITING = 16  # predictions that wait for being written, at most
WRITERS = 2  # threads; most of a picture's time is spent where Python's lock is not held


def evaluate(arguments: list[str]) -> None:
    """Measure a checkpoint: als evaluate CHECKPOINT --data VOC2012:test --root DIR [--out FILE]"""
    parser = ArgumentParser(prog="als evaluate", description=evaluate.__doc__)
    parser.add_argument("checkpoint", type=Path, help="or 'shipped' for the one in the package")
    parser.add_argument("--data", type=str, required=True, help="FOLDER:SPLIT [+ FOLDER:SPLIT]")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the data folders")
    parser.add_argument("--out", type=Path, default=Path("record.json"), help="the JSON record")
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.out.is_dir():  # else this would be found out after the evaluation
        raise InputError(f"{given.out}: is a folder; give --out a file name in it.")

    from als.data.voc import load_records
    from als.evaluation.evaluate import evaluate as run
    from als.evaluation.evaluate import table
    from als.files import write_json
    from als.inference import load

    predictor = load(given.checkpoint, given.device)
    records = load_records(given.data, given.root, predictor.classes)
    record = run(predictor.detector, records, given.workers)
    record["data"]["split"] = given.data
    record["training"] = predictor.info
    print(table(record, given.checkpoint))
    coco = {k.removeprefix("COCO_"): v for k, v in record["metrics"].items() if "COCO" in k}
    told = ", ".join(f"{name} {100 * value:.1f}" for name, value in coco.items())
    print(f"COCO (by the area of {record['data']['COCO_areas']}): {told}")
    if record["maps"]:
        print("maps: " + ", ".join(f"{k} {v:.3f}" for k, v in record["maps"].items()))
    write_json(given.out, record)
    print(f"the record: {given.out}")


def predict(arguments: list[str]) -> None:
    """Detect on images: als predict CHECKPOINT IMAGE_OR_FOLDER... --out DIR (pictures and JSON)"""
    parser = ArgumentParser(prog="als predict", description=predict.__doc__)
    parser.add_argument("checkpoint", type=Path, help="or 'shipped' for the one in the package")
    parser.add_argument("images", type=Path, nargs="+", help="files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--score-threshold", type=float, default=0.5)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument(
        "--batch-size", type=int, help="images of like shape at once (default: 2, on a GPU 8)"
    )
    given = parser.parse_args(arguments)

    from als.inference import image_files, load, predict_many

    predictor = load(given.checkpoint, given.device)
    files = image_files(given.images)
    _refuse_overwriting(files, given.out)
    broken = []

    def skip(path: Path, error: InputError) -> None:
        print(f"als: {error}", file=sys.stderr)
        broken.append(path)

    found = predict_many(predictor, files, given.batch_size, given.score_threshold, skip)
    save_all(found, given.out)
    if broken:
        raise InputError(f"{len(broken)} of {len(files)} images could not be read, see above.")


def _refuse_overwriting(files: list[Path], out: Path) -> None:
    """Raise InputError where two images would write the same files, or over an image itself."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is no folder; give another --out.")
    seen: dict[str, Path] = {}
    for path in files:
        if seen.setdefault(path.stem, path) is not path:
            raise InputError(
                f"{seen[path.stem]} and {path} would both write {path.stem}.png; rename one or "
                "predict them apart."
            )
        picture = out / f"{path.stem}.png"
        if path.exists() and picture.exists() and picture.samefile(path):
            raise InputError(f"{path}: its picture would overwrite it; give another --out.")


def save_all(found: Iterable, out: Path) -> None:
    """Write pictures and JSON beside the network, and tell each file once written."""
    from als.report.pictures import save_prediction

    def tell() -> None:
        one, written = running.popleft()
        scored = zip(one.prediction.names, one.prediction.scores, strict=True)
        names = ", ".join(f"{name} {score:.2f}" for name, score in scored)
        print(f"{one.path}: {names or 'nothing found'} -> {written.result()}")

    running: deque = deque()
    with ThreadPoolExecutor(WRITERS) as writer:
        for one in found:
            written = writer.submit(save_prediction, one.path, one.prediction, out, one.photo)
            running.append((one, written))
            while running and (running[0][1].done() or len(running) > WAITING):
                tell()
        while running:
            tell()
