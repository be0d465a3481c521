"""Stage 2 (section 3.2): with new attention layers the detector starts where stage 1 ended."""

import pytest
import torch
from tiny import assert_same_detections, lively_detector, random_images, tiny_config
from torchvision.ops import box_iou

from als.checkpoint import build_detector, load_checkpoint, load_weights, save_checkpoint
from als.classes import VOC_CLASSES
from als.config import ModelConfig
from als.errors import InputError


def stage_2(stage_1, tmp_path, **changes):
    save_checkpoint(stage_1, tmp_path / "stage1.safetensors")
    torch.manual_seed(9)
    detector = build_detector(tiny_config(attention=True, **changes)).double()
    new = load_weights(detector, tmp_path / "stage1.safetensors")
    return detector.eval(), new


def test_stage_2_tells_what_is_new(tmp_path):
    stage_1 = lively_detector(0, attention=False).float()
    detector, new = stage_2(stage_1, tmp_path)
    names = {name for name, _ in detector.named_parameters() if name.startswith("attention_")}
    assert set(new) == names and len(new) == 12
    own = detector.state_dict()
    for name, tensor in stage_1.state_dict().items():
        assert torch.equal(own[name].float(), tensor)


def test_a_faster_rcnn_is_separated_without_a_change(tmp_path):
    """Both branches start from its one conv5, and then go their own ways."""
    faster_rcnn = lively_detector(0, attention=False, separation=False).float()
    save_checkpoint(faster_rcnn, tmp_path / "one.safetensors")
    detector = build_detector(tiny_config(attention=False)).eval()
    assert load_weights(detector, tmp_path / "one.safetensors") == []
    images = random_images(0, dtype=torch.float32)
    with torch.no_grad():
        before = faster_rcnn(images)
        assert_same_detections(detector(images), before, atol=1e-5)
        for parameter in detector.roi_heads.conv5_loc.parameters():
            parameter.zero_()
        logits = [
            d.roi_heads.classify(d.encode(images).f_cls, d.propose(d.encode(images)))[0]
            for d in (faster_rcnn, detector)
        ]
    torch.testing.assert_close(*logits)
    assert sum(len(image["scores"]) for image in before) > 5
    with pytest.raises(InputError, match="family"):
        save_checkpoint(detector, tmp_path / "two.safetensors")
        load_weights(faster_rcnn, tmp_path / "two.safetensors")


def test_loading_a_whole_checkpoint_finds_nothing_new(tmp_path):
    detector = lively_detector(0).float()
    path = tmp_path / "model.safetensors"
    save_checkpoint(detector, path)
    assert load_weights(build_detector(tiny_config()), path) == []


def test_attention_of_another_form_starts_anew(tmp_path):
    """A map near one, which leaves F A as it is, would double F (1 + A)."""
    product = lively_detector(0).float()
    path = tmp_path / "product.safetensors"
    save_checkpoint(product, path)
    detector = build_detector(tiny_config(attention_form="residual", attention_bias=16.0))
    new = load_weights(detector, path)
    assert len(new) == 12 and all(name.startswith("attention_") for name in new)
    encoding = detector.eval().encode(random_images(0, dtype=torch.float32))
    assert torch.equal(detector.rpn.head.cls_logits.bias, product.rpn.head.cls_logits.bias)
    assert torch.allclose(encoding.f_cls, encoding.f, atol=1e-5)


def test_maps_near_one_keep_the_detections_of_stage_1(tmp_path):
    """In the limit of a large bias they are the same; sigmoid(16) is 1 - 1e-7."""
    stage_1 = lively_detector(0, attention=False).float().double()
    images = random_images(0)
    with torch.no_grad():
        before = stage_1(images)
        for bias, tolerance in ((16.0, 1e-3), (24.0, 1e-5)):
            detector, _ = stage_2(stage_1.float(), tmp_path, attention_bias=bias)
            stage_1.double()
            assert_same_detections(detector(images), before, atol=tolerance)
    assert sum(len(image["scores"]) for image in before) > 5


@pytest.mark.parametrize(
    ("bias", "score_bound", "delta_bound"), [(3.0, 0.2, 0.6), (6.0, 0.015, 0.04)]
)
def test_step_0_of_stage_2_changes_little(tmp_path, bias, score_bound, delta_bound):
    """On the same proposals, scores of 0 to 1 and deltas of standard deviation 0.7.

    1 - sigmoid(3) = 0.05 and 1 - sigmoid(6) = 0.0025. Random layers without a margin between
    classes are a hard case; the bounds are a third over what they give.
    """
    stage_1 = lively_detector(0, attention=False)
    images = random_images(0)
    detector, _ = stage_2(stage_1, tmp_path, attention_bias=bias)
    with torch.no_grad():
        first, second = stage_1.encode(images), detector.encode(images)
        proposals = stage_1.propose(first)
        results = []
        for model, e in ((stage_1, first), (detector, second)):
            logits, _ = model.roi_heads.classify(e.f_cls, proposals)
            deltas = model.roi_heads.localize(e.f_loc, proposals)
            results.append((logits.softmax(1), deltas))
        (scores, deltas), (new_scores, new_deltas) = results
        change = (scores - new_scores).abs().max().item()
        delta_change = (deltas - new_deltas).abs().max().item()
        assert 0 < change < score_bound
        assert 0 < delta_change < delta_bound
        shares = []
        for boxes, new_boxes in zip(proposals, detector.propose(second), strict=True):
            shares.append((box_iou(boxes, new_boxes).amax(1) > 0.8).double().mean())
        assert min(shares) > 0.5, "most proposals stay"


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": "resnet18"},
        {"separation": False},
        {"fold_batch_norm": True},
    ],
)
def test_stage_2_refuses_another_network(tmp_path, other):
    save_checkpoint(build_detector(tiny_config(attention=False)), tmp_path / "one.safetensors")
    detector = build_detector(tiny_config(**other))
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(InputError, match="one.safetensors.*family") as caught:
        load_weights(detector, tmp_path / "one.safetensors")
    assert "\n" not in str(caught.value)
    after = detector.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before), "nothing is half loaded"


@pytest.mark.parametrize("form", ["product", "residual"])
def test_a_detector_without_attention_refuses_attention_layers(tmp_path, form):
    detector = build_detector(tiny_config(attention_form=form))
    save_checkpoint(detector, tmp_path / "two.safetensors")
    with pytest.raises(InputError, match="attention_"):
        load_weights(build_detector(tiny_config(attention=False)), tmp_path / "two.safetensors")


def test_each_class_keeps_its_own_rows_among_others(tmp_path):
    """Fine-tuning: classes are found by name, wherever they stand; the others start anew."""
    path = tmp_path / "one.safetensors"
    known = lively_detector(0).float()  # cat, dog, person
    save_checkpoint(known, path)
    torch.manual_seed(3)
    detector = build_detector(tiny_config(classes=("bus", "person", "cat")))
    fresh = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    new = load_weights(detector, path)
    assert set(new) == {
        *("roi_heads.cls_score.weight", "roi_heads.cls_score.bias"),
        *("roi_heads.bbox_pred.weight", "roi_heads.bbox_pred.bias"),
    }
    old, own = known.state_dict(), detector.state_dict()
    for name, tensor in own.items():
        if name not in new:
            assert torch.equal(tensor, old[name]), name
    for name, size in (("roi_heads.cls_score.weight", 1), ("roi_heads.bbox_pred.weight", 4)):
        rows, before, start = (t[name].split(size) for t in (own, old, fresh))
        for index, source in ((0, before[0]), (2, before[3]), (3, before[1]), (1, start[1])):
            assert torch.equal(rows[index], source), (name, index)


@pytest.mark.parametrize("family", ["rfcn", "mrcnn", "ssd", "led"])
def test_other_families_refuse_other_classes(tmp_path, family):
    """Their layers have rows of classes too: in another order cat would begin as bird."""
    size = {"min_size": 96, "max_size": 96} if family in ("ssd", "led") else {}
    shape = {"family": family, "backbone": "mobilenet_v2", "weights": None, **size}

    def of(*classes):
        return ModelConfig(classes=classes, attention=False, separation=False, **shape)

    save_checkpoint(build_detector(of("cat", "bird")), tmp_path / "one.safetensors")
    assert load_weights(build_detector(of("cat", "bird")), tmp_path / "one.safetensors") == []
    for other in (("bird", "cat"), ("cat", "dog")):
        with pytest.raises(InputError, match="one.safetensors: its classes are cat, bird; family"):
            load_weights(build_detector(of(*other)), tmp_path / "one.safetensors")


def test_checkpoints_of_the_package_are_known_by_name():
    assert load_checkpoint("animals")[0].config.classes[0] == "cat"
    assert load_checkpoint("twenty")[0].config.classes == VOC_CLASSES
