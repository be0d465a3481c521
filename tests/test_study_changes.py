"""The study's checks that change something: weights, the photograph, the maps inside."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_study import detector, predictor, records, root  # noqa: F401  (fixtures)
from torch.nn.functional import interpolate
from torchvision.ops import box_iou, clip_boxes_to_image

from als.data.masks import read_class_map
from als.data.toy import TOY_CLASSES
from als.errors import InputError
from als.evaluation.bootstrap import Resampled
from als.evaluation.detections import Detections
from als.evaluation.evaluate import judge
from als.explain import default_explainers, make_maps
from als.explain.blackbox import PROPOSALS, black_box
from als.explain.faithfulness import Curves, blurred, change_curves, plain
from als.images import as_rgb
from als.inference import Predictor
from als.model.grid import image_to_map
from als.study import interventions, sanity
from als.study.cases import Case
from als.study.interventions import (
    REPLACEMENTS,
    _displaced,
    _photograph,
    _replacement,
    _with_change,
    intervene,
    read_arrays,
    with_maps,
    write_arrays,
)
from als.study.measures import MEASURES
from als.study.sanity import (
    CASCADE,
    randomized,
    similarity,
    under_flip,
    under_randomization,
    under_shift,
)
from als.study.study_rows import run_study


@pytest.fixture(scope="module")
def scene(predictor, records):  # noqa: F811
    analysis = predictor.analyse(as_rgb(records[0].path))
    return predictor.scene(analysis, [0, 1, 2])


def test_all_maps_of_an_image_share_one_pass_of_the_trunk(predictor, records):  # noqa: F811
    passes = []
    hook = predictor.detector.trunk.register_forward_hook(lambda *_: passes.append(1))
    try:
        several = predictor.scene(predictor.analyse(as_rgb(records[0].path)), [0, 1, 2])
        for name in default_explainers():
            assert make_maps(name, several).shape == (3, *several.size)
    finally:
        hook.remove()
    assert len(passes) == 1


def test_a_class_can_be_explained_without_a_detection(predictor, records):  # noqa: F811
    analysis = predictor.analyse(as_rgb(records[0].path))
    for label in range(1, len(predictor.classes) + 1):
        one = predictor.scene_of_class(analysis, label)
        told = predictor.explain(analysis, label=label)
        np.testing.assert_allclose(one.boxes[0], told.box, atol=1e-3)
        np.testing.assert_allclose(make_maps("gradcam", one)[0], told.map, atol=1e-6)


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
    image = as_rgb(records[0].path)
    values = under_flip(predictor, image, scene)(
        "image_gaussian", make_maps("image_gaussian", scene)
    )
    kept = np.isfinite(values)
    assert kept.any() and np.allclose(np.array(values)[kept], 1)


def test_maps_of_a_symmetric_photograph_are_mirrored_back(predictor):  # noqa: F811
    half = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    image = Image.fromarray(np.concatenate([half, half[:, ::-1]], 1))
    analysis = predictor.analyse(image)
    scene = predictor.scene(analysis, list(range(len(analysis.prediction.scores))))
    maps = make_maps("localization", scene)
    # The mirrored photograph is the photograph: what is compared is the map with its mirror image.
    values = np.array(under_flip(predictor, image, scene)("localization", maps))
    again = np.isfinite(values)  # found in the mirror image, too
    assert again.any()
    mirror = similarity(maps[0], maps[0][:, ::-1])
    assert values[again] == pytest.approx(mirror, abs=1e-3) and mirror < 0.9


def test_a_shift_compares_what_both_photographs_show(predictor, records, scene):  # noqa: F811
    image = as_rgb(records[0].path)
    again = under_shift(predictor, image, scene)
    maps = make_maps("localization", scene)
    values = np.array(again("localization", maps))
    assert np.nanmax(values) > 0.3


def test_a_photograph_that_a_shift_takes_away_has_no_value(predictor, scene):  # noqa: F811
    maps = make_maps("uniform", scene)
    values = under_shift(predictor, Image.new("RGB", (200, 8)), scene)("uniform", maps)
    assert len(values) == len(maps) > 0 and np.isnan(values).all()


def test_a_shift_leaves_the_upper_left_edge_out(predictor, records, scene, monkeypatch):  # noqa: F811
    maps = make_maps("localization", scene)
    monkeypatch.setattr(
        sanity, "scene_again", lambda *given: (scene, list(range(len(scene.boxes))))
    )
    monkeypatch.setattr(sanity, "make_maps", lambda name, changed: maps[:, 8:, 8:])
    values = under_shift(predictor, as_rgb(records[0].path), scene)("localization", maps)
    assert values == pytest.approx([1.0] * len(maps))


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
    table = rows.pivot_table(index=["image_id", "object", "map"], columns="measure", values="value")
    assert table["over_all"].count() > 0
    pd.testing.assert_series_equal(
        table["over_all"], table["insertion"] - table["deletion"], check_names=False
    )


@pytest.mark.parametrize("name", ["box_gaussian", "image_gaussian"])
def test_curves_of_a_scene_are_those_of_each_detection(scene, name):
    maps = make_maps(name, scene)
    detect = black_box(scene.detector, PROPOSALS)
    ends = {
        "insertion": (blurred(scene.image), scene.image),
        "deletion": (scene.image, plain(scene.image)),
    }
    for measure, (start, end) in ends.items():
        expected = [
            change_curves(detect, start, end, heat, [(box, int(label))], seed=scene.seed)[0].auc
            for heat, box, label in zip(maps, scene.boxes, scene.labels, strict=True)
        ]
        areas = Curves(scene).areas(maps, measure)
        assert areas == pytest.approx(expected, rel=1e-5) and all(0 < area < 1 for area in areas)


def test_photographs_of_long_names_are_kept_and_read_again(predictor, records, tmp_path):  # noqa: F811
    record, before = records[:2]
    names = [replace(one, image_id=60 * sign) for one, sign in ((record, "字"), (before, "宇"))]
    made = _photograph(predictor, *names, 0, tmp_path)
    (file,) = tmp_path.iterdir()
    write_arrays(file, {row: {"boxes": one["boxes"][:0]} for row, one in made.items()})
    assert all(
        len(one["boxes"]) == 0 for one in _photograph(predictor, *names, 0, tmp_path).values()
    )


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


def test_what_stands_in_for_a_map():
    torch.manual_seed(0)
    own, other, mask = torch.rand(3, 1, 1, 4, 6)
    before = torch.rand(1, 1, 3, 5)
    made = {by: _replacement(by, 0.0, own, other, before, mask) for by in REPLACEMENTS}
    assert (made["neutral"] == 0).all() and torch.allclose(made["mean"], own.mean().expand_as(own))
    assert torch.equal(made["other"], other) and torch.equal(made["mask"], mask)
    assert torch.equal(made["another image"], interpolate(before, (4, 6), mode="bilinear"))


def test_each_row_of_the_table_is_detection_with_its_maps(predictor, records):  # noqa: F811
    record, before = [record for record in records if record.mask is not None][:2]
    whole = predictor.detector
    taken = interventions._photograph(predictor, record, before, 0, None)
    encoding, another = predictor.encode(record.path), predictor.encode(before.path)
    labels = read_class_map(record, predictor.classes)
    objects = torch.from_numpy((labels > 0) & (labels < 255)).float()  # void is background
    assert (labels == 255).any() and objects.any()
    a_loc, a_cls = encoding.a_loc, encoding.a_cls
    expected = {
        ("localization", "another image"): (another.a_loc, a_cls),
        ("classification", "another image"): (a_loc, another.a_cls),
        ("localization", "other"): (a_cls, a_cls),
        ("classification", "mask"): (a_loc, image_to_map(objects[None], whole, a_loc)),
    }
    for row, maps in expected.items():
        with torch.no_grad():
            (found,) = whole.detect(with_maps(whole, encoding, *maps))
        np.testing.assert_allclose(taken[row]["scores"], found.scores, atol=1e-6, err_msg=str(row))
        np.testing.assert_allclose(taken[row]["boxes"], found.boxes, atol=1e-3, err_msg=str(row))


def test_a_mask_lies_on_its_cells(predictor):  # noqa: F811
    config = predictor.detector.config
    side = config.min_size - config.min_size % 16
    like = predictor.detector.encode([torch.zeros(3, side, side)]).a_loc
    mask = torch.zeros(1, side, side)
    mask[..., : side // 2, :] = 1  # the upper half
    cells = image_to_map(mask, predictor.detector, like)
    rows = cells[0, 0].mean(1)
    assert rows[0] == 1 and rows[-1] == 0 and (rows.diff() <= 0).all()


def test_intervals_of_a_change_by_hand():
    base = Resampled(4.0, np.zeros(1000))
    told = _with_change(Resampled(5.0, np.linspace(0, 1, 1000)), base)
    assert (told["mean"], told["change"]) == (5, 1)
    assert (told["low"], told["high"]) == pytest.approx((0.025, 0.975))
    assert (told["change_low"], told["change_high"]) == pytest.approx((0.025, 0.975))


def test_the_class_error_is_of_the_class_at_the_true_box(predictor, records):  # noqa: F811
    record = next(record for record in records if len(set(record.labels[~record.difficult])) > 1)
    one = Predictor(deepcopy(predictor.detector), {})
    with torch.no_grad():
        one.detector.roi_heads.cls_score.weight.zero_()
        one.detector.roi_heads.cls_score.bias.copy_(torch.tensor([0.0, 0, 9, 0]))  # always class 2
    taken = interventions._detect(one.detector, one.encode(record.path), record, seed=0)
    np.testing.assert_array_equal(taken["class_error"], record.labels[~record.difficult] != 2)


def test_the_box_error_is_of_the_displaced_box_after_its_class_refined_it(predictor, records):  # noqa: F811
    """A box layer that knows one thing: class 2 goes a tenth of its width to the right."""
    record = next(record for record in records if len(set(record.labels[~record.difficult])) > 1)
    one = Predictor(deepcopy(predictor.detector), {})
    with torch.no_grad():
        one.detector.roi_heads.bbox_pred.weight.zero_()
        one.detector.roi_heads.bbox_pred.bias.zero_()
        one.detector.roi_heads.bbox_pred.bias[4 * 2] = 0.1 * 10  # the coder's weight of dx
    encoding = one.encode(record.path)
    taken = interventions._detect(one.detector, encoding, record, seed=0)
    size = encoding.images.image_sizes[0]
    given = torch.from_numpy(record.boxes) * size[0] / record.size[0]
    given, labels = given[~record.difficult], record.labels[~record.difficult]
    expected = _displaced(given, 0, size)
    width = expected[:, 2] - expected[:, 0]
    expected[:, 0::2] += torch.from_numpy(labels == 2)[:, None] * 0.1 * width[:, None]
    expected = 1 - box_iou(clip_boxes_to_image(expected, size), given).diagonal()
    np.testing.assert_allclose(taken["box_error"], expected, atol=1e-4)


def test_an_object_is_recalled_when_a_proposal_overlaps_it_by_half(predictor, records):  # noqa: F811
    shares = []
    for record in records:
        encoding = predictor.encode(record.path)
        taken = interventions._detect(predictor.detector, encoding, record, seed=0)
        with torch.no_grad():
            (proposals,) = predictor.detector.propose(encoding)
        proposals = proposals * record.size[0] / encoding.images.image_sizes[0][0]
        best = box_iou(torch.from_numpy(record.boxes), proposals).amax(1).numpy()
        shares.extend(best[~record.difficult])
        np.testing.assert_array_equal(taken["proposal_recall"], best[~record.difficult] >= 0.5)
    assert any(share < 0.5 for share in shares) and any(0.5 <= share < 0.7 for share in shares)


def test_each_measure_of_a_case_worked_out_by_hand():
    map, head, mask, known, others = (np.zeros((6, 6), float if k == 0 else bool) for k in range(5))
    map[0, 0], map[1, 1], map[2, 2], map[5, 5] = 100, 3, 1, 4
    mask[1:3, 1:3], head[1, 1], others[5, 5], known[:] = True, True, True, True
    others[2, 2] = True  # of both, and the object's own for the leakage alone
    known[0, 0] = False  # void, where the map is highest
    box = np.zeros((6, 6), bool)
    box[:4, :4] = True
    case = Case(0, "cat", "small", 0, box, known, mask, others, head)
    by_hand = {"energy_box": 104 / 108, "energy_mask": 4 / 8, "leakage": 4 / 8, "coverage": 1 / 4}
    by_hand |= {"mask_iou": 1 / 5, "pointing_exact": 0, "head_focus": 3 / 1}
    by_hand |= {"odi": 5 / 8, "pointing": 1, "mask_iou_best": 2 / 5, "gini": 10 / 16}
    by_hand |= {"entropy": -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) / 2}  # of 2 bits
    by_hand |= {"peak_on_head": 1, "peak_on_head_chance": 1 / 4}
    for name, value in by_hand.items():
        assert MEASURES[name].value(map, case) == pytest.approx(value), name


def test_each_map_changes_its_own_task_alone(table):
    for (map, by), row in table.items():
        if map == "classification":
            assert row["proposal_recall"]["change"] == row["box_error"]["change"] == 0, by
        if map == "localization":
            assert row["class_error"]["change"] == 0, by
    changed = {map for (map, _), row in table.items() if row["box_error"]["change"] != 0}
    assert "localization" in changed
    assert any(table["classification", by]["AP"]["change"] for by in ("neutral", "other", "mask"))


def test_displaced_boxes_stay_near_and_inside():
    boxes = torch.tensor([[0.0, 0, 40, 60], [10, 10, 30, 20]])
    moved = _displaced(boxes, seed=3, size=(60, 40))
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    assert ((moved - boxes).abs() <= 0.15 * sides + 1e-4).all() and not torch.equal(moved, boxes)
    assert (moved >= 0).all() and (moved[:, 2] <= 40).all() and (moved[:, 3] <= 60).all()
    assert torch.equal(moved, _displaced(boxes, seed=3, size=(60, 40)))
    many = torch.tensor([[100.0, 100, 140, 160]]).repeat(500, 1)
    moves = (_displaced(many, seed=3, size=(300, 300)) - many) / torch.tensor([40, 60, 40, 60])
    assert moves.min() == pytest.approx(-0.15, abs=2e-3)
    assert moves.max() == pytest.approx(0.15, abs=2e-3) and moves.mean().abs() < 0.01


def test_a_model_without_attention_has_nothing_to_replace(records):  # noqa: F811
    from tiny import lively_detector

    plain = Predictor(lively_detector(classes=TOY_CLASSES, attention=False).float(), {})
    with pytest.raises(InputError, match="no attention maps"):
        intervene(plain, records)


@pytest.mark.parametrize("curve", ["insertion", "deletion"])
def test_no_detection_has_no_curve(predictor, curve):  # noqa: F811
    scene = predictor.scene(predictor.analyse(np.zeros((60, 90, 3), np.uint8)), [])
    assert Curves(scene).areas(make_maps("uniform", scene), curve) == []
