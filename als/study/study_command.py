"""The whole of `als study`: load, run, and write what a reader opens."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torchvision.transforms.functional import to_tensor

from als.data.derived_masks import without_derived
from als.data.layouts import load_records
from als.data.record import Record, fingerprint
from als.errors import InputError
from als.explain.blackbox import GREEDY_PASSES, PROPOSALS, black_box, estimate_seconds
from als.explain.faithfulness import CURVES, STEPS
from als.explain.registry import DRISE_MASKS, EXPLAINERS, default_explainers
from als.files import atomic_write, check_writable, write_json
from als.images import as_rgb
from als.inference import Predictor, load
from als.machine import machine, revision
from als.study import study_figures as figures
from als.study.cases import keypoints_of
from als.study.interventions import intervene, interventions_table, masked
from als.study.measures import CHEAP, GROUPS, MEASURES
from als.study.study_rows import check_names, run_study
from als.study.summary import by_group, differences, found_share, summarise

HEAT_MEASURES = ("energy_mask", "mask_iou", "coverage", "peak_on_head")
GALLERY_MEASURE = "energy_mask"
GALLERY_MAPS = ("localization", "classification", "gradcam", "gradact", "gradact_box")


def study(
    checkpoints: Sequence[str],
    spec: str,
    root: Path,
    out: Path,
    maps: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    interventions: bool = False,
    gallery: bool = False,
    limit: int | None = None,
    seed: int = 0,
    drise_masks: int = DRISE_MASKS,
    device: str = "cpu",
    resume: bool = False,
    shard: str | None = None,
) -> list[Path]:
    """Run, or go on with, a study; return the folder of each checkpoint's summary.

    Args:
        checkpoints: files, or "shipped". With several, each gets a folder of its own in `out`.
        spec, root: the data, as `als.data.layouts.load_records` takes them.
        maps: names of `EXPLAINERS`; None for `als.explain.default_explainers`.
        measures: names of `MEASURES` or of their groups; None for those that need no pass.
        interventions: also replace the maps inside the network.
        gallery: also write photographs of the best, median and worst cases, with `maps` or, where
            none are named, some of all.
        limit: a random choice of so many images, the same for one seed; None for all.
        shard: "1/2" for every second image, beginning with the first: several processes may fill
            one folder, each with `resume`. A last call without it writes what a reader opens.

    Raises:
        InputError: as `run_study`, a checkpoint that cannot be loaded, a bad `shard`, or a number
            below its least.
    """
    own = shard_slice(shard)
    numbers = {"limit": (limit, 1), "seed": (seed, 0), "drise-masks": (drise_masks, 1)}
    for option, (value, least) in numbers.items():
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: give at least {least}.")
    measures = measure_names(measures)
    check_names(maps or (), measures)
    check_writable(Path(out) / "settings.json")
    predictors = _load(checkpoints, device)
    classes = next(iter(predictors.values())).classes
    everything = without_derived(load_records(spec, root, classes))
    records = chosen(everything, limit, seed)
    if interventions:  # before hours of measuring
        if not any(p.detector.config.attention for p in predictors.values()):
            raise InputError("--interventions: no checkpoint here has attention maps to replace.")
        masked(records)
    if gallery and GALLERY_MEASURE not in measures:
        raise InputError(f"--gallery: goes by {GALLERY_MEASURE}; name it among the --measures too.")
    names = default_explainers() if maps is None else list(maps)
    _announce(predictors, records[own], names, measures, drise_masks)
    started = time.perf_counter()
    given = (predictors, records[own], out, names, measures, seed, drise_masks, resume)
    # The fingerprint is of the boxes; masks and keypoints that came later would count as measured.
    masks, animals = sum(r.mask is not None for r in everything), len(keypoints_of(everything))
    data = f"{fingerprint(everything)}, {masks} masks, keypoints of {animals}"
    rows, folders = run_study(*given, data=data), []
    for name, predictor in predictors.items():
        folder = Path(out) / name if len(predictors) > 1 else Path(out)
        folders.append(folder)
        if interventions and predictor.detector.config.attention:
            _write_interventions(predictor, records, folder, seed, own)
        if shard is not None:
            continue
        some = rows[rows["checkpoint"] == name]
        write_outputs(some, folder)
        if gallery:
            shown = [m for m in maps or GALLERY_MAPS if (some["map"] == m).any()]
            given = (predictor, everything, some, shown, GALLERY_MEASURE)
            figures.write_gallery(*given, folder / "gallery", seed, drise_masks)
        data = {
            "split": spec,
            "images": int(some["image_id"].nunique()),
            "fingerprint": fingerprint(everything),
        }
        settings = {
            "seed": seed,
            "drise_masks": drise_masks,
            "curve_steps": STEPS,
            "black_box_proposals": PROPOSALS,
        }
        _write_record(folder, predictor, some, data, settings, time.perf_counter() - started)
    return folders


def shard_slice(shard: str | None) -> slice:
    """ "2/3" -> every third item from the second on; None -> all. Raises InputError for others."""
    if shard is None:
        return slice(None)
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"--shard {shard}: write it as 1/2 and 2/2, for two processes.")
    return slice(int(number) - 1, None, int(count))


def chosen(records: Sequence[Record], limit: int | None, seed: int) -> list[Record]:
    """`limit` records at random, in their order; all if there are no more than that.

    A smaller limit chooses a part of what a larger one chooses.
    """
    if limit is None or limit >= len(records):
        return list(records)
    order = np.random.default_rng(seed).permutation(len(records))
    return [records[i] for i in sorted(order[:limit])]


def measure_names(given: Sequence[str] | None) -> list[str]:
    """Names of measures and groups -> names of measures, each once; the cheap ones for None."""
    names = []
    for item in CHEAP if given is None else given:
        names += [m for m in MEASURES if MEASURES[m].group == item] if item in GROUPS else [item]
    return list(dict.fromkeys(names))


def write_outputs(rows: pd.DataFrame, folder: Path) -> None:
    """Summary, tables and figures of one checkpoint's rows."""
    summary = summarise(rows)
    per_class = by_group(rows, "class")
    write_json(folder / "summary.json", summary)
    _write_csv(differences(rows), folder / "differences.csv")
    _write_csv(per_class, folder / "per_class.csv")
    _write_csv(by_group(rows, "size"), folder / "per_size.csv")
    if summary:
        figures.save(figures.forest(summary), folder / "forest.png")
        figures.save(figures.class_table(per_class, HEAT_MEASURES), folder / "classes.png")


def _write_interventions(predictor, records, folder: Path, seed: int, shard: slice) -> None:
    kept = folder / "parts" / "interventions"
    table = intervene(predictor, records, seed, folder=kept, shard=shard)
    if table is None:
        return
    found = {"photographs": len(masked(records)), "rows": table}
    write_json(folder / "interventions.json", found)
    _write_csv(interventions_table(table), folder / "interventions.csv")
    figures.save(figures.intervention_figure(table), folder / "interventions.png")


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as aside:
        table.to_csv(aside, index=False, float_format="%.5g")


def _write_record(
    folder: Path, predictor: Predictor, rows: pd.DataFrame, data: dict, settings: dict, seconds
) -> None:
    images = rows.groupby("measure")["image_id"].nunique()
    write_json(
        folder / "record.json",
        {
            "command": "als study",
            "checkpoint": {"file": predictor.source, "info": predictor.info},
            "config": predictor.detector.config.to_dict(),
            "data": data,
            "objects": found_share(rows),
            "images_of_measure": {m: int(images[m]) for m in MEASURES if m in images},
            "settings": settings,
            "revision": revision(),
            "machine": machine(),
            "seconds_of_last_call": seconds,
        },
    )


def _load(checkpoints: Sequence[str], device: str) -> dict[str, Predictor]:
    predictors = {}
    for file in checkpoints:
        predictor = load(file, device)
        path = Path(file).absolute()
        # `als train` calls every checkpoint model.safetensors; its folder then tells which.
        name = path.parent.name if path.stem in ("model", "best") else path.stem
        if name in predictors:
            raise InputError(f"two checkpoints are called '{name}'; rename one of the files.")
        predictors[name] = predictor
    if len({predictor.classes for predictor in predictors.values()}) > 1:
        raise InputError("the checkpoints detect different classes; study them one by one.")
    return predictors


def _announce(predictors, records, maps, measures, drise_masks: int) -> None:
    """Say how much is to be done, and about how long the passes of the black box take at most."""
    print(f"{len(records)} images, {len(maps)} maps, {len(measures)} measures")
    quick = default_explainers()
    left_out = [m for m, kind in EXPLAINERS.items() if not kind.slow and m not in quick]
    if left_out and maps == quick:  # who chose maps misses none
        print(f"without {' and '.join(left_out)}: install grad-cam for them")
    objects = sum(int((~record.difficult).sum()) for record in records)
    curves = len(CURVES) if "over_all" in measures else len(set(CURVES) & set(measures))
    passes = drise_masks * len(records) if "drise" in maps else 0
    passes += GREEDY_PASSES * objects if "greedy" in maps else 0
    passes += (STEPS - 1) * curves * len(maps) * objects
    if not passes:
        return
    pixels = to_tensor(as_rgb(records[0].path))
    seconds = [
        estimate_seconds(black_box(p.detector, PROPOSALS), pixels.to(p.device), passes)
        for p in predictors.values()
    ]
    print(f"at most {passes:,} detections with changed pixels: {sum(seconds) / 60:.0f} minutes")
