"""A folder of photographs as `als predict` does it, beside one photograph after another."""

import contextlib
import io
import tempfile
from pathlib import Path

from PIL import Image

from als.cli.evaluate import save_all
from als.drawing import save_prediction
from als.inference import Predictor, predict_many
from benchmarks.pairs import Measured, in_turns
from benchmarks.subjects import Setting, Subject, photographs

COPIES = 4  # of each photograph, half of them upright; so many that the pipeline fills
SIZE = (1200, 1600)  # (height, width) of the JPEG files: decoding and reducing cost something
QUICK_SIZE = (64, 96)
THRESHOLD = 0.5  # of `als predict`
ROUNDS = 2


def measure(subject: Subject, setting: Setting) -> Measured:
    """From files to pictures and JSON, as the command does."""
    predictor = Predictor(subject.als, {}, setting.device)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        paths = write_photographs(Path(folder), setting)

        def one_by_one() -> None:
            for path in paths:
                analysis = predictor.analyse(path, score_threshold=THRESHOLD)
                save_prediction(path, analysis.prediction, out, analysis.image)

        def together() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                save_all(predict_many(predictor, paths, score_threshold=THRESHOLD), out)

        sides = {"one by one": one_by_one, "folder": together}
        turns = in_turns(sides, setting.few(ROUNDS))
    return Measured(
        {"predict_folder_speedup": turns.ratio("one by one", "folder")},
        {f"predict {side}": turns.seconds(side) for side in sides},
        {
            "predict_folder": {
                "photos": len(paths),
                "size": QUICK_SIZE if setting.quick else SIZE,
            }
        },
    )


def write_photographs(folder: Path, setting: Setting) -> list[Path]:
    """JPEG files, every other one upright."""
    height, width = QUICK_SIZE if setting.quick else SIZE
    paths = []
    for copy in range(setting.few(COPIES)):
        size = (height, width) if copy % 2 == 0 else (width, height)
        for i, photo in enumerate(photographs(size, 4)):
            paths.append(folder / f"{copy}-{i}.jpg")
            Image.fromarray(photo).save(paths[-1], quality=90)
    return paths
