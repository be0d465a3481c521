"""`als evaluate` and `als predict`: a checkpoint on a data set, or on some images."""

from pathlib import Path

from jsonargparse import ArgumentParser


def evaluate(arguments: list[str]) -> None:
    """Measure a checkpoint: als evaluate CHECKPOINT --data VOC2012:test --root DIR [--out FILE]"""
    parser = ArgumentParser(prog="als evaluate", description=evaluate.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=str, required=True, help="FOLDER:SPLIT [+ FOLDER:SPLIT]")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the data folders")
    parser.add_argument("--out", type=Path, help="where the JSON record goes")
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)

    from als.data.voc import load_records
    from als.evaluation.run import evaluate as run
    from als.evaluation.run import table
    from als.model import load_checkpoint
    from als.records import write_json

    detector, info = load_checkpoint(given.checkpoint)
    records = load_records(given.data, given.root, detector.config.classes)
    record = run(detector.to(given.device), records, given.workers)
    record["data"]["split"] = given.data
    record["training"] = info
    print(table(record, given.checkpoint))
    if record["maps"]:
        print("maps: " + ", ".join(f"{k} {v:.3f}" for k, v in record["maps"].items()))
    if given.out is not None:
        write_json(given.out, record)


def predict(arguments: list[str]) -> None:
    """Detect on images: als predict CHECKPOINT IMAGE... --out DIR (pictures and JSON)"""
    parser = ArgumentParser(prog="als predict", description=predict.__doc__)
    parser.add_argument("checkpoint", type=Path, help="or 'shipped' for the one in the package")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--score-threshold", type=float, default=0.5)
    parser.add_argument("--device", type=str, default="cpu")
    given = parser.parse_args(arguments)

    from als.predictor import load
    from als.report.pictures import save_prediction

    shipped = str(given.checkpoint) == "shipped"
    predictor = load(None if shipped else given.checkpoint, given.device)
    for path in given.images:
        prediction = predictor.predict(path, score_threshold=given.score_threshold)
        written = save_prediction(path, prediction, given.out)
        found = ", ".join(
            f"{name} {score:.2f}"
            for name, score in zip(prediction.names, prediction.scores, strict=True)
        )
        print(f"{path}: {found or 'nothing found'} -> {written}")
