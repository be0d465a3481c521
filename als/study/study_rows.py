"""The run: checkpoints x images x objects x maps x measures -> one table of rows, resumable."""

import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from tqdm import tqdm

from als.checkpoint import weights_digest
from als.data.record import Record
from als.errors import InputError
from als.explain.registry import DRISE_MASKS, EXPLAINERS, make_maps
from als.files import atomic_write, read_json, write_json
from als.inference import Predictor
from als.model.interface import AnyDetector
from als.study.cases import Case, StudiedPhoto, keypoints_of
from als.study.measures import MEASURES, SANITY
from als.study.sanity import CASCADE, randomized

IMAGES_A_PART = 10  # lost at most, if the run is interrupted
KEYS = ["checkpoint", "image_id", "map", "measure"]
COLUMNS = ["checkpoint", "image_id", "object", "class", "size", "score", "map", "measure", "value"]
FOUND = ("detector", "found")  # map and measure of the row that says whether the object was found


# Raised when a map or measure of the same name becomes another: 2, Grad-CAM takes the logit.
DEFINITIONS = 2


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

    predictors: checkpoints by name; maps that a model cannot have are left out for it. resume: go
    on in a folder that holds rows; what is there is not computed again, and a part that is cut off
    is named, put aside and measured again. data: fingerprint of the data set that the records were
    chosen of. Others as of `als.study.study_command.study`.

    Returns the rows, of `COLUMNS`. Raises InputError for unknown names, a folder with another
    study, or data that cannot be read.
    """
    check_names(maps, measures)
    out = Path(out)
    checkpoints = {name: weights_digest(one.detector) for name, one in predictors.items()}
    settings = {"checkpoints": checkpoints, "data": data, "seed": seed, "drise_masks": drise_masks}
    settings["definitions"] = DEFINITIONS
    _check_settings(out, settings, resume)
    _put_damaged_aside(out)
    done, empty = _there(out)
    animals = keypoints_of(records)
    for name, predictor in predictors.items():
        config = predictor.detector.config
        own = [m for m in maps if EXPLAINERS[m].goes_with(config)]
        cascade = set(CASCADE) & set(measures)
        if cascade and config.family != "als":
            raise InputError(
                f"{name}: measures {', '.join(sorted(cascade))} are for models of family als."
            )
        stages = randomized(predictor.detector, seed) if cascade else None
        measured = []
        for record in tqdm(records, desc=f"study of {name}", unit="image", disable=not progress):
            todo = _todo(done, name, record.image_id, own, measures)
            if not todo or (name, record.image_id) in empty:
                continue
            photo = StudiedPhoto(predictor, record, animals, stages, seed, drise_masks)
            new = measured_rows(photo, todo)
            if (name, record.image_id, *FOUND) not in done:
                new += found_rows(photo)
            if new:
                measured.append(pd.DataFrame(new).assign(checkpoint=name))
            if len(measured) == IMAGES_A_PART:
                _write_part(out / "parts", measured)
                measured = []
        _write_part(out / "parts", measured)
    rows = read_rows(out)
    _write_parquet(rows, out / "rows.parquet")
    return rows


def found_rows(photo: StudiedPhoto) -> list[dict]:
    """For each annotated object, whether the detector found it."""
    return [_row(photo, case, *FOUND, case.detection is not None) for case in photo.cases]


def measured_rows(photo: StudiedPhoto, todo: Mapping[str, Sequence[str]]) -> list[dict]:
    """Values of the measures of each map of `todo`, for each object that was found.

    A measure that cannot be taken of an object gives a row without a value.
    """
    rows, taken = [], {}
    for name, measures in todo.items() if photo.seen else ():
        started = time.perf_counter()
        with _passes(photo.scene.detector) as seen:
            maps = make_maps(name, photo.scene)
        photo.seconds[name], photo.passes[name] = time.perf_counter() - started, sum(seen)
        for measure in measures:
            if measure not in taken:
                taken[measure] = MEASURES[measure].on(photo)
            values = taken[measure](name, maps)
            pairs = zip(photo.seen, values, strict=True)
            rows += [_row(photo, case, name, measure, value) for case, value in pairs]
    return rows


@contextmanager
def _passes(detector: AnyDetector) -> Iterator[list[int]]:
    """How many images go through the whole detector meanwhile, a number a batch."""
    seen: list[int] = []
    kind = GeneralizedRCNNTransform  # which every family's images pass
    transform = next(module for module in detector.modules() if isinstance(module, kind))
    hook = transform.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    try:
        yield seen
    finally:
        hook.remove()


def _row(photo: StudiedPhoto, case: Case, name: str, measure: str, value: float) -> dict:
    scores, found = photo.prediction.scores, case.detection
    score = float("nan") if found is None else float(scores[found])
    return {
        "image_id": photo.record.image_id,
        "object": case.index,
        "class": case.name,
        "size": case.size,
        "score": score,
        "map": name,
        "measure": measure,
        "value": float(value),
    }


def read_rows(out: Path) -> pd.DataFrame:
    """All rows of a study's folder, also of one that still runs; none where there is no folder.

    What two processes measured at the same time counts once.
    """
    parts = sorted((Path(out) / "parts").glob("*.parquet"))
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.concat(list(map(_read_part, parts)), ignore_index=True)
    return rows.drop_duplicates([*KEYS, "object"], ignore_index=True)


def _read_part(path: Path) -> pd.DataFrame:
    """Its rows. Raises InputError if it is cut off or was altered."""
    try:
        rows = pd.read_parquet(path)
        if missing := set(COLUMNS) - {*rows}:
            raise ValueError(f"has no column {missing.pop()}")
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's own are kinds of these
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path}: this part of a study is cut off or damaged ({reason}); --resume measures "
            "its photographs again."
        ) from error
    return rows


def _put_damaged_aside(out: Path) -> None:
    """Name parts that cannot be read; under another name they count no more."""
    for path in sorted((out / "parts").glob("*.parquet")):
        try:
            _read_part(path)
        except InputError as error:
            path.replace(path.with_suffix(".damaged"))
            print(f"als: {error}", file=sys.stderr)


def _write_part(folder: Path, tables: list[pd.DataFrame]) -> None:
    """One more part; several processes, of several machines, may fill one folder at once."""
    if tables:
        number = len(list(folder.glob("*.parquet")))
        path = folder / f"{number:05d}-{secrets.token_hex(4)}.parquet"
        _write_parquet(pd.concat(tables, ignore_index=True), path)


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
    with atomic_write(path, durable=True) as aside:
        table.to_parquet(aside, index=False)


def _there(out: Path) -> tuple[set[tuple], set[tuple]]:
    """(`KEYS` of what is measured, (checkpoint, image_id) of photographs with nothing found)."""
    rows = read_rows(out)
    found = rows[rows["measure"] == FOUND[1]].groupby(KEYS[:2])["value"].sum()
    measured = rows[KEYS].drop_duplicates().itertuples(index=False, name=None)
    return set(measured), set(found.index[found == 0])


def _todo(
    done: set, checkpoint: str, image_id: str, maps: Sequence[str], measures: Sequence[str]
) -> dict[str, list[str]]:
    """Map -> measures that this image still lacks.

    Sanity is asked of what depends on the network, and not of maps that take minutes.
    """
    todo = {}
    for name in maps:
        sane = EXPLAINERS[name].learnt and not EXPLAINERS[name].slow
        asked = [m for m in measures if sane or MEASURES[m].group != SANITY]
        lacking = [m for m in asked if (checkpoint, image_id, name, m) not in done]
        if lacking:
            todo[name] = lacking
    return todo


def check_names(maps: Sequence[str], measures: Sequence[str]) -> None:
    """Raise InputError for a map or measure that there is not."""
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
    if "," not in str(before.get("data")):  # of before masks and keypoints were counted
        data = settings.get("data")
        settings = settings | {"data": data and data.partition(",")[0]}
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        raise InputError(
            f"{out}: its study had other {' and '.join(changed)}; choose another --out."
        )
