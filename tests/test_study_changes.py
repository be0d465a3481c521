"""The study's checks that change something: weights, the photograph, the maps inside."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_study import detector, predictor, records, root  # noqa: F401  (fixtures)

from als.data.dataset import read_image
from als.data.toy import TOY_CLASSES
from als.errors import InputError
from als.evaluation import Detections
from als.evaluation.run import judge
from als.explain.blackbox import black_box
from als.explain.faithfulness import deletion, insertion
from als.predictor import Predictor
from als.study import interventions
from als.study.faithfulness import STEPS, Curves
from als.study.files import read_arrays, write_arrays
from als.study.interventions import _displaced, intervene
from als.study.live import map_row
from als.study.maps import PROPOSALS, default_maps, make_maps
from als.study.measures import MEASURES
from als.study.run import run_study
from als.study.sanity import (
    CASCADE,
    randomized,
    similarity,
    under_flip,
    under_randomization,
    under_shift,
)
from als.study.scenes import scene_of, scene_of_class


@pytest.fixture(scope="module")
def scene(predictor, records):  # noqa: F811
    analysis = predictor.analyse(read_image(records[0].path))
    return scene_of(predictor, analysis, [0, 1, 2])


def test_all_maps_of_an_image_share_one_pass_of_the_trunk(predictor, records):  # noqa: F811
    passes = []
    hook = predictor.detector.trunk.register_forward_hook(lambda *_: passes.append(1))
    try:
        several = scene_of(predictor, predictor.analyse(read_image(records[0].path)), [0, 1, 2])
        for name in default_maps():
            assert make_maps(name, several).shape == (3, *several.size)
    finally:
        hook.remove()
    assert len(passes) == 1


def test_a_class_can_be_explained_without_a_detection(predictor, records):  # noqa: F811
    analysis = predictor.analyse(read_image(records[0].path))
    for label in range(1, len(predictor.classes) + 1):
        one = scene_of_class(predictor, analysis, label)
        told = predictor.explain(analysis, label=label)
        np.testing.assert_allclose(one.boxes[0], told.box, atol=1e-3)
        np.testing.assert_allclose(make_maps("gradcam", one)[0], told.map, atol=1e-6)
    figure = map_row(predictor, records[0].path, ["gradcam"], class_name=predictor.classes[0])
    assert figure.axes[0].get_title() == predictor.classes[0]
    with pytest.raises(InputError, match="'unicorn' is unknown"):
        map_row(predictor, records[0].path, ["gradcam"], class_name="unicorn")


def test_similarity_is_of_ranks():
    map = np.random.default_rng(0).random((40, 40))
    assert similarity(map, map**3) == pytest.approx(1)
    assert similarity(map, -map) == pytest.approx(-1)
    assert np.isnan(similarity(map, np.ones((40, 40))))


def test_randomization_goes_from_the_output_to_the_input(detector):  # noqa: F811
    before = {name: tensor.clone() for name, tensor in detector.named_parameters()}
    copies = randomized(detector, seed=0)
    started: tuple[str, ...] = ()
    for stage, prefixes in CASCADE.items():
        started += prefixes
        for name, tensor in copies[stage].named_parameters():
            same = torch.equal(tensor, before[name])
            if not name.startswith(started):
                assert same, f"{stage} changed {name}"
            elif before[name].unique().numel() > 3:
                assert not same, f"{stage} left {name}"
                assert torch.equal(tensor.flatten().sort()[0], before[name].flatten().sort()[0])
    assert all(torch.equal(t, before[n]) for n, t in detector.named_parameters())


def test_a_map_follows_the_weights_that_it_depends_on(scene, detector):  # noqa: F811
    copies = randomized(detector, seed=0)
    maps = make_maps("localization", scene)
    values = {s: under_randomization(scene, copies[s])("localization", maps)[0] for s in CASCADE}
    # A_loc stands before the RoIs: nothing behind it can change it.
    assert values["random_head"] == pytest.approx(1) and values["random_conv5"] == pytest.approx(1)
    assert values["random_attention"] < 0.9
    cams = make_maps("gradcam", scene)
    assert under_randomization(scene, copies["random_head"])("gradcam", cams)[0] < 0.9


def test_a_symmetric_map_stays_under_a_flip(predictor, records, scene):  # noqa: F811
    image = read_image(records[0].path)
    values = under_flip(predictor, image, scene)(
        "image_gaussian", make_maps("image_gaussian", scene)
    )
    kept = np.isfinite(values)
    assert kept.any() and np.allclose(np.array(values)[kept], 1)


def test_maps_of_a_symmetric_photograph_are_mirrored_back(predictor):  # noqa: F811
    half = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    image = Image.fromarray(np.concatenate([half, half[:, ::-1]], 1))
    scene = scene_of(predictor, predictor.analyse(image), [0])
    maps = make_maps("localization", scene)
    # The mirrored photograph is the photograph: what is compared is the map with its mirror image.
    values = under_flip(predictor, image, scene)("localization", maps)
    mirror = similarity(maps[0], maps[0][:, ::-1])
    assert np.isnan(values[0]) or values[0] == pytest.approx(mirror, abs=1e-3)


def test_a_shift_compares_what_both_photographs_show(predictor, records, scene):  # noqa: F811
    image = read_image(records[0].path)
    again = under_shift(predictor, image, scene)
    maps = make_maps("localization", scene)
    values = np.array(again("localization", maps))
    assert np.nanmax(values) > 0.3


def test_a_study_takes_every_measure(predictor, records, tmp_path):  # noqa: F811
    rows = run_study(
        {"toy": predictor},
        records[:2],
        tmp_path,
        ["localization", "gradact", "drise", "uniform"],
        list(MEASURES),
        drise_masks=8,
        progress=False,
    )
    taken = rows[rows["value"].notna()].groupby("map")["measure"].agg(set)
    # What knows nothing of the network, or takes minutes, is not asked whether it follows it.
    assert {"random_head", "random_trunk", "insertion"} <= taken["localization"]
    assert not {"random_head", "flip"} & (taken["drise"] | taken["uniform"])


@pytest.mark.parametrize("map", ["box_gaussian", "image_gaussian"])
def test_curves_of_a_scene_are_those_of_each_detection(scene, map):
    maps = make_maps(map, scene)
    detect = black_box(scene.detector, PROPOSALS)
    for measure, curve in (("insertion", insertion), ("deletion", deletion)):
        given = zip(maps, scene.boxes, scene.labels, strict=True)
        expected = [
            curve(detect, scene.image, map, box, int(label), STEPS, seed=scene.seed).auc
            for map, box, label in given
        ]
        areas = Curves(scene).areas(maps, measure)
        assert areas == pytest.approx(expected, rel=1e-5) and all(0 < area < 1 for area in areas)


def test_what_an_intervention_keeps_is_what_it_found(tmp_path):
    taken = {
        ("", ""): {"boxes": np.zeros((0, 4), np.float32), "labels": np.array([], int)},
        ("both", "another image"): {"boxes": np.ones((1, 4), np.float32), "labels": np.array([2])},
    }
    write_arrays(tmp_path / "new" / "a,b.npz", taken)
    again = read_arrays(tmp_path / "new" / "a,b.npz")
    assert list(again) == list(taken)
    for row, arrays in taken.items():
        assert list(again[row]) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(again[row][name], array)
            assert again[row][name].dtype == array.dtype


@pytest.fixture(scope="module")
def table(predictor, records):  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interventions, "RESAMPLES", 50)
        rows = intervene(predictor, records, progress=False)
    return {(row["map"], row["by"]): row for row in rows}


def test_the_untouched_row_is_the_evaluation(table, predictor, records):  # noqa: F811
    some = [record for record in records if record.mask is not None]
    # One by one: in a batch the last digits differ, and with them the order of random scores.
    detections = [
        Detections(found.boxes, found.labels, found.scores)
        for found in (predictor.predict(record.path) for record in some)
    ]
    metrics, _ = judge(detections, some, TOY_CLASSES)
    untouched = table["", ""]
    assert untouched["AP50"]["mean"] == pytest.approx(metrics["AP50_area"], abs=1e-6)
    assert untouched["AP"]["mean"] == pytest.approx(metrics["AP"], abs=1e-6)
    assert untouched["AP50"]["change"] == 0


def test_each_map_changes_its_own_task_alone(table):
    for (map, by), row in table.items():
        if map == "classification":
            assert row["proposal_recall"]["change"] == row["box_error"]["change"] == 0, by
        if map == "localization":
            assert row["class_error"]["change"] == 0, by
    changed = {map for (map, _), row in table.items() if row["box_error"]["change"] != 0}
    assert "localization" in changed
    assert any(table["classification", by]["AP"]["change"] for by in ("ones", "other", "mask"))


def test_displaced_boxes_stay_near_and_inside():
    boxes = torch.tensor([[0.0, 0, 40, 60], [10, 10, 30, 20]])
    moved = _displaced(boxes, seed=3, size=(60, 40))
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    assert ((moved - boxes).abs() <= 0.15 * sides + 1e-4).all() and not torch.equal(moved, boxes)
    assert (moved >= 0).all() and (moved[:, 2] <= 40).all() and (moved[:, 3] <= 60).all()
    assert torch.equal(moved, _displaced(boxes, seed=3, size=(60, 40)))


def test_a_model_without_attention_has_nothing_to_replace(records):  # noqa: F811
    from tiny import lively_detector

    plain = Predictor(lively_detector(classes=TOY_CLASSES, attention=False).float(), {})
    with pytest.raises(InputError, match="no attention maps"):
        intervene(plain, records)
