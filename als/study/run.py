"""The run: checkpoints x images x objects x maps x measures -> one table of rows, resumable."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from als.data.record import Record
from als.errors import InputError
from als.explain.parts import Animal
from als.explain.registry import DRISE_MASKS, EXPLAINERS, make_maps
from als.files import read_json, write_json
from als.images import as_rgb
from als.inference import Predictor
from als.study.cases import Case, cases_of, keypoints_of
from als.study.faithfulness import CURVES, Curves
from als.study.files import own_seed, read_parts, write_parquet, write_part
from als.study.measures import MEASURES
from als.study.sanity import CASCADE, REPEATS, Compare, randomized, under_randomization

IMAGES_A_PART = 10  # lost at most, if the run is interrupted
KEYS = ["checkpoint", "image_id", "map", "measure"]
FOUND = ("detector", "found")  # map and measure of the row that says whether the object was found


def run_study(
    predictors: dict[str, Predictor],
    records: Sequence[Record],
    out: Path,
    maps: Sequence[str],
    measures: Sequence[str],
    seed: int = 0,
    drise_masks: int = DRISE_MASKS,
    resume: bool = False,
    progress: bool = True,
    data: str | None = None,
) -> pd.DataFrame:
    """Measure, and write `<out>/rows.parquet`: one row an object, map and measure.

    Only objects that the detector found are measured, since only a detection can be explained;
    for all of them there is a row of map "detector" and measure "found", 1 or 0.

    Args:
        predictors: checkpoints by name. Maps that need attention are left out for those without.
        records: photographs, as `als.data.voc_layout.load_records` gives them.
        maps, measures: names of `EXPLAINERS` and `MEASURES`.
        seed: of maps and measures that draw at random. drise_masks: passes of D-RISE an image.
        resume: go on in a folder that holds rows; what is there is not computed again.
        data: fingerprint of the data set that the records were chosen of.

    Returns:
        Columns checkpoint, image_id, object, class, size, score, map, measure, value.

    Raises:
        InputError: unknown names, a folder with another study, or data that cannot be read.
    """
    _check_names(maps, measures)
    out = Path(out)
    checkpoints = {name: _digest(predictor) for name, predictor in predictors.items()}
    settings = {"checkpoints": checkpoints, "data": data, "seed": seed, "drise_masks": drise_masks}
    _check_settings(out, settings, resume)
    done, empty = _there(out)
    animals = keypoints_of(records)
    for name, predictor in predictors.items():
        own = [m for m in maps if predictor.detector.config.attention or not _attends(m)]
        stages = _stages(predictor, measures, seed)
        measured = []
        for record in tqdm(records, desc=f"study of {name}", unit="image", disable=not progress):
            todo = _todo(done, name, record.image_id, own, measures)
            if not todo or (name, record.image_id) in empty:
                continue
            study = ImageStudy(predictor, record, animals, stages, seed, drise_masks)
            new = study.rows(todo)
            if (name, record.image_id, *FOUND) not in done:
                new += study.found()
            if new:
                measured.append(pd.DataFrame(new).assign(checkpoint=name))
            if len(measured) == IMAGES_A_PART:
                write_part(out / "parts", measured)
                measured = []
        write_part(out / "parts", measured)
    rows = read_rows(out)
    write_parquet(rows, out / "rows.parquet")
    return rows


class ImageStudy:
    """One photograph: its objects, the scene of those that were found, and their rows."""

    def __init__(
        self,
        predictor: Predictor,
        record: Record,
        animals: dict[str, list[Animal]],
        stages: dict,
        seed: int,
        drise_masks: int,
    ):
        self.predictor, self.stages, self.record = predictor, stages, record
        self.image = as_rgb(record.path)
        analysis = predictor.analyse(self.image)
        self.scores = analysis.prediction.scores
        self.cases = cases_of(
            record, predictor.classes, analysis.prediction, animals.get(record.image_id, [])
        )
        self.seen = [case for case in self.cases if case.detection is not None]
        detections = [case.detection for case in self.seen]
        own = own_seed(record, seed)
        self.scene = predictor.scene(analysis, detections, own, drise_masks)
        self.curves = Curves(self.scene)
        self.repeats: dict[str, Compare] = {}

    def found(self) -> list[dict]:
        """Whether each object was found."""
        map, measure = FOUND
        return [self._row(c, map, measure, c.detection is not None) for c in self.cases]

    def rows(self, todo: dict[str, list[str]]) -> list[dict]:
        """Values of the measures of each map of `todo`, for each object that was found.

        A measure that cannot be taken of an object gives a row without a value.
        """
        rows = []
        for name, measures in todo.items() if self.seen else ():
            maps = make_maps(name, self.scene)
            for measure in measures:
                values = self._values(name, maps, measure)
                rows += [
                    self._row(case, name, measure, value)
                    for case, value in zip(self.seen, values, strict=True)
                ]
        return rows

    def _values(self, name: str, maps: np.ndarray, measure: str) -> list[float]:
        if MEASURES[measure].value is not None:
            value = MEASURES[measure].value
            return [value(map, case) for map, case in zip(maps, self.seen, strict=True)]
        if measure in CURVES:
            return self.curves.areas(maps, measure)
        if measure not in self.repeats:  # the network sees the change once for all maps
            self.repeats[measure] = self._repeat(measure)
        return self.repeats[measure](name, maps)

    def _repeat(self, measure: str) -> Compare:
        if measure in CASCADE:
            return under_randomization(self.scene, self.stages[measure])
        return REPEATS[measure](self.predictor, self.image, self.scene)

    def _row(self, case: Case, map: str, measure: str, value: float) -> dict:
        score = float("nan") if case.detection is None else float(self.scores[case.detection])
        return {
            "image_id": self.record.image_id,
            "object": case.index,
            "class": case.name,
            "size": case.size,
            "score": score,
            "map": map,
            "measure": measure,
            "value": float(value),
        }


def read_rows(out: Path) -> pd.DataFrame:
    """All rows of a study's folder, also of one that still runs; none where there is no folder."""
    rows = read_parts(Path(out) / "parts")
    if rows is None:
        columns = ["checkpoint", "image_id", "object", "class", "size", "score"]
        return pd.DataFrame(columns=[*columns, "map", "measure", "value"])
    return rows


def _there(out: Path) -> tuple[set[tuple], set[tuple]]:
    """(`KEYS` of what is measured, (checkpoint, image_id) of photographs with nothing found)."""
    rows = read_rows(out)
    found = rows[rows["measure"] == FOUND[1]].groupby(KEYS[:2])["value"].sum()
    measured = rows[KEYS].drop_duplicates().itertuples(index=False, name=None)
    return set(measured), set(found.index[found == 0])


def _attends(map: str) -> bool:
    return EXPLAINERS[map].needs_attention


def _todo(
    done: set, checkpoint: str, image_id: str, maps: Sequence[str], measures: Sequence[str]
) -> dict[str, list[str]]:
    """Map -> measures that this image still lacks."""
    todo = {}
    for map in maps:
        lacking = [m for m in measures if (checkpoint, image_id, map, m) not in done]
        todo[map] = [measure for measure in lacking if _applies(map, measure)]
    return {map: lacking for map, lacking in todo.items() if lacking}


def _applies(map: str, measure: str) -> bool:
    """Sanity is asked of what depends on the network, and not of maps that take minutes."""
    kind = EXPLAINERS[map]
    return MEASURES[measure].group != "sanity" or (kind.learnt and not kind.slow)


def _stages(predictor: Predictor, measures: Sequence[str], seed: int) -> dict:
    return randomized(predictor.detector, seed) if set(CASCADE) & set(measures) else {}


def _check_names(maps: Sequence[str], measures: Sequence[str]) -> None:
    for kind, given, known in (("map", maps, EXPLAINERS), ("measure", measures, MEASURES)):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise InputError(f"{kind} '{unknown[0]}' is unknown; choose of {', '.join(known)}.")


def _check_settings(out: Path, settings: dict, resume: bool) -> None:
    """Rows of one folder are of one data set, one set of checkpoints and one seed."""
    file = out / "settings.json"
    if not file.exists():
        write_json(file, settings)
        return
    if not resume:
        raise InputError(f"{out}: holds a study already; pass --resume or choose another --out.")
    before = read_json(file)
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        raise InputError(
            f"{out}: its study had other {' and '.join(changed)}; choose another --out."
        )


def _digest(predictor: Predictor) -> str:
    digest = hashlib.sha256()
    for tensor in predictor.detector.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
