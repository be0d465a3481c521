"""MR-CNN: where regions lie, rings, what a segmentation learns, boxes moved twice, and votes."""

import pytest
import torch
from tiny import assert_every_part_learns, random_images, some_targets, thin_vgg16, tiny_config
from torch import nn
from torchvision import models
from torchvision.ops import box_iou

from als.baselines.mrcnn import (
    REGIONS,
    MultiRegionRoIHeads,
    Region,
    about_centre,
    box_filled_maps,
    part_of,
    ring,
    voted,
)
from als.checkpoint import build_detector, load_checkpoint, load_weights, save_checkpoint
from als.config import ModelConfig
from als.errors import InputError
from als.export import export
from als.model.backbone import STRIDE, build_backbone
from als.model.roi_heads import Chosen

MRCNN = {"family": "mrcnn", "attention": False, "separation": False, "attention_width": 2048}
MRCNN |= {"pool_size": 2, "rpn_post_nms_test": 8, "rois_per_image": 8}
WHOLE = Region(about_centre(1.0))


def mrcnn_config(**changes) -> ModelConfig:
    return tiny_config(**(MRCNN | changes))


def heads_of(**changes) -> MultiRegionRoIHeads:
    config = mrcnn_config(**changes)
    return MultiRegionRoIHeads(config, build_backbone(config)).eval()


def test_where_the_ten_regions_of_a_box_lie():
    """A box of 80 x 40 at (100, 200): its centre is (140, 220)."""
    box = torch.tensor([[100.0, 200.0, 180.0, 240.0]])
    outer = {
        "whole": [100, 200, 180, 240],
        "left half": [100, 200, 140, 240],
        "right half": [140, 200, 180, 240],
        "upper half": [100, 200, 180, 220],
        "lower half": [100, 220, 180, 240],
        "centre": [120, 210, 160, 230],
        "ring of the centre": [108, 204, 172, 236],
        "inner border": [100, 200, 180, 240],
        "outer border": [80, 190, 200, 250],
        "context": [68, 184, 212, 256],
    }
    assert list(REGIONS) == list(outer)
    for name, region in REGIONS.items():
        expected = torch.tensor([outer[name]], dtype=torch.float32)
        torch.testing.assert_close(part_of(box, region.share), expected, msg=name)
    sides = torch.tensor([80.0, 40.0])  # what the box has, times the inner scale
    inner = {"ring of the centre": 0.3, "inner border": 0.5, "outer border": 0.8, "context": 1.0}
    for name, region in REGIONS.items():
        x1, y1, x2, y2 = part_of(box, region.share)[0]
        hole = region.hole * torch.stack([x2 - x1, y2 - y1])
        torch.testing.assert_close(hole, inner.get(name, 0.0) * sides, msg=name)


@pytest.mark.parametrize("pool", ["align", "max"])
def test_what_lies_in_a_rings_hole_does_not_count(pool):
    """A map of 8 x 8 cells; the ring leaves out the 4 x 4 in the middle."""
    heads = heads_of(pool=pool, pool_size=4)
    whole = [torch.tensor([[0.0, 0.0, 8 * STRIDE, 8 * STRIDE]])]
    border = ring(0.5, 1.0)
    middle = torch.zeros(1, 1, 8, 8)
    middle[..., 3:5, 3:5] = 1.0
    assert heads.pool_region(middle, whole, WHOLE).max() > 0
    assert heads.pool_region(middle, whole, border).max() == 0
    everywhere = torch.ones(1, 1, 8, 8)
    pooled = heads.pool_region(everywhere, whole, border)[0, 0]
    assert (pooled[1:3, 1:3] == 0).all() and pooled.sum() == 12  # of 16 bins four are the hole


@pytest.mark.parametrize("pool", ["align", "max"])
def test_a_ring_without_a_hole_is_the_whole_region(pool):
    torch.manual_seed(0)
    heads, f = heads_of(pool=pool), torch.rand(2, 5, 7, 9)
    rois = [torch.tensor([[3.0, 10.0, 90.0, 77.0]]), torch.tensor([[20.0, 0.0, 140.0, 40.0]])]
    barely = Region(about_centre(1.0), hole=1e-6)  # finer than the cells
    torch.testing.assert_close(
        heads.pool_region(f, rois, barely), heads.pool_region(f, rois, WHOLE)
    )


@pytest.mark.parametrize("pool", ["align", "max"])
def test_bins_outside_the_image_are_zero_and_the_others_keep_their_place(pool):
    """The context of a box in the corner sticks out of the image by half of itself."""
    heads, f = heads_of(pool=pool, pool_size=4), torch.ones(1, 1, 8, 8)
    side = 4 * STRIDE
    twice = Region(about_centre(2.0))
    corner = [torch.tensor([[-side / 2, -side / 2, side / 2, side / 2]])]
    pooled = heads.pool_region(f, corner, twice)[0, 0]
    assert (pooled[0] == 0).all() and (pooled[:, 0] == 0).all() and (pooled[2:, 2:] == 1).all()


def test_padding_of_a_batch_is_outside_the_image():
    torch.manual_seed(0)
    detector = build_detector(mrcnn_config()).eval()
    with torch.no_grad():
        encoding = detector.encode(random_images(1, [(64, 64), (64, 96)], torch.float32))
    small, large = encoding.f_loc
    assert large.shape[-2:] == (4, 6) and torch.equal(large, encoding.f[1])
    assert (small[..., 4:] == 0).all() and (encoding.f[0, ..., 4:] != 0).any()
    assert torch.equal(small[..., :4], encoding.f[0, ..., :4])


def test_the_segmentation_learns_filled_boxes():
    """Cells of 16 pixels, centres at 8, 24, 40, 56: an image of 48 x 64 padded to 64 x 64."""
    targets = [
        {
            "boxes": torch.tensor([[0.0, 0.0, 30.0, 20.0], [20.0, 10.0, 64.0, 48.0]]),
            "labels": torch.tensor([2, 1]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    maps = box_filled_maps(targets, [(48, 64), (64, 32)], (2, 4, 4))
    nan = float("nan")
    first = [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [nan] * 4]
    second = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [nan] * 4]
    expected = torch.tensor([[first, second], [[[0, 0, nan, nan]] * 4] * 2])
    torch.testing.assert_close(maps, expected, equal_nan=True)


def test_loss_seg_by_hand():
    detector = build_detector(mrcnn_config()).train()
    nn.init.zeros_(detector.segmentation.class_maps.weight)
    nn.init.constant_(detector.segmentation.class_maps.bias, -1.0)
    losses = detector(random_images(0, [(64, 64)], torch.float32), some_targets(False)[1:])
    # A box of class 2 of three from (10, 8) to (50, 60) holds the centres 24, 40 x 8 to 56.
    share = 2 * 4 / (3 * 16)
    likely = torch.tensor(-1.0).sigmoid()
    expected = -share * likely.log() - (1 - share) * (1 - likely).log()
    torch.testing.assert_close(losses["loss_seg"].detach(), expected)
    torch.testing.assert_close(detector.total_loss(losses), sum(losses.values()))


def test_votes_by_hand():
    """Four candidates: two on one object, one of another class there, one elsewhere."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [2.0, 0, 12, 10], [1.0, 0, 11, 10], [50.0, 50, 60, 60]])
    labels, scores = torch.tensor([1, 1, 2, 1]), torch.tensor([0.6, 0.2, 0.9, 0.5])
    rows = torch.tensor([0, 3])
    kept = Chosen(boxes[rows], labels[rows], scores[rows], rows)
    found = voted(kept, boxes, labels, scores)
    # IoU of the first two is 8/12: (0.6 x 0 + 0.2 x 2) / 0.8 = 0.5.
    torch.testing.assert_close(found.boxes, torch.tensor([[0.5, 0, 10.5, 10], [50, 50, 60, 60]]))
    assert torch.equal(found.scores, kept.scores) and torch.equal(found.rois, rows)
    apart = torch.tensor([[0.0, 0, 10, 10], [4.0, 0, 14, 10]])  # IoU 6/14: no vote
    kept = Chosen(apart[:1], labels[:1], scores[:1], rows[:1])
    assert torch.equal(voted(kept, apart, labels[:2], scores[:2]).boxes, apart[:1])


class TowardsObject(MultiRegionRoIHeads):
    """Deltas go half of the way to an object; a box's score says how much it overlaps it."""

    object = torch.tensor([[40.0, 30.0, 80.0, 70.0]])

    def localize(self, f_loc, rois):
        boxes = torch.cat(rois)
        deltas = self.box_coder.encode_single(self.object.expand(len(boxes), 4), boxes) / 2
        return deltas.repeat(1, self.cls_score.out_features)

    def classify(self, f_cls, rois, rivals=None):
        overlap = box_iou(torch.cat(rois), self.object)
        logits = torch.zeros(len(overlap), self.cls_score.out_features)
        logits[:, 2:3] = 8 * overlap
        return logits, logits


def test_a_second_round_improves_score_and_box():
    config = mrcnn_config(nms_threshold=0.3)
    heads = TowardsObject(config, build_backbone(config)).eval()
    f, roi = torch.zeros(1, 4, 6, 6), torch.tensor([[24.0, 20.0, 70.0, 72.0], [0.0, 0.0, 9.0, 9.0]])
    logits, vectors = heads.classify(f, [roi])
    once = heads.moved(f, [roi[:1]], [torch.tensor([2])], [(96, 96)])[0]
    overlaps = [box_iou(boxes, heads.object).item() for boxes in (roi[:1], once)]
    (found,) = heads.detections(logits, vectors, f, f, [roi], [(96, 96)], threshold=0.5)
    assert found.labels.tolist() == [2] and found.rois.tolist() == [0]
    assert found.scores > logits.softmax(-1)[0, 2], "the score is of the box that was moved once"
    assert overlaps[0] < overlaps[1] < box_iou(found.boxes, heads.object).item()
    # The two boxes vote; each was moved from a box of the score that it votes with.
    twice = heads.moved(f, [once], [torch.tensor([2])], [(96, 96)])[0]
    first, second = (heads.classify(f, [b])[0].softmax(-1)[0, 2] for b in (roi[:1], once))
    torch.testing.assert_close(found.boxes, (first * once + second * twice) / (first + second))


def test_detections_of_a_batch_are_those_of_its_images():
    torch.manual_seed(0)
    detector = build_detector(mrcnn_config(nms_threshold=0.3)).double().eval()
    nn.init.normal_(detector.roi_heads.cls_score.weight, std=0.3)
    nn.init.normal_(detector.roi_heads.bbox_pred.weight, std=0.1)
    images = random_images(0, [(64, 96), (64, 96)])
    with torch.no_grad():
        together = detector.detect(detector.encode(images), 0.05)
        alone = [detector.detect(detector.encode([image]), 0.05)[0] for image in images]
    for one, two in zip(together, alone, strict=True):
        assert len(one.boxes) and (one.scores.diff() <= 0).all()
        torch.testing.assert_close(one.boxes, two.boxes)
        torch.testing.assert_close(one.scores, two.scores)
        assert (one.boxes >= 0).all() and (one.boxes <= torch.tensor([96, 64, 96, 64])).all()
        assert (one.rois < len(one.proposals)).all()


def test_only_classes_that_are_asked_about_and_none_over_the_threshold():
    torch.manual_seed(0)
    detector = build_detector(mrcnn_config()).eval()
    with torch.no_grad():
        encoding = detector.encode(random_images(0, dtype=torch.float32))
        for found in detector.detect(encoding, 0.0, labels=[3]):
            assert set(found.labels.tolist()) == {3}
        for found in detector.detect(encoding, 1.0):
            assert found.boxes.shape == (0, 4) and len(found.logits)


def test_every_part_of_it_learns():
    torch.manual_seed(0)
    detector = build_detector(mrcnn_config(rois_per_image=64)).train()
    losses = detector(random_images(0, dtype=torch.float32), some_targets())
    assert losses.keys() == {"loss_rpn", "loss_cls", "loss_loc", "loss_seg"}
    assert_every_part_learns(detector, losses)


def test_vgg16_has_the_papers_widths_and_starts_from_its_classifier(monkeypatch):
    config = ModelConfig(
        classes="voc", family="mrcnn", backbone="vgg16", attention=False, separation=False,
        pool_size=7,
    )  # fmt: skip
    with torch.device("meta"):
        detector = build_detector(config, pretrained=False)
        s = detector.segmentation(torch.rand(1, 512, 38, 50))
    heads = detector.roi_heads
    assert s.shape == (1, 512, 38, 50)
    assert heads.conv5_cls[-1][1].weight.shape == (2048, 512 * 9 * 9)
    assert heads.cls_score.weight.shape == (21, 10 * 4096 + 2048)
    monkeypatch.setattr(models, "vgg16", thin_vgg16)
    detector = build_detector(mrcnn_config(backbone="vgg16", pool_size=7, weights=None)).eval()
    # fc6 on a window of F is conv6 at its middle.
    window, fc6 = torch.rand(1, 512, 7, 7), detector.roi_heads.conv5_loc[2]
    conv6 = detector.segmentation.layers[0][0](window)[..., 3, 3]
    torch.testing.assert_close(conv6, fc6(window.flatten(1)), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_comes_back_and_other_files_are_refused(tmp_path):
    torch.manual_seed(0)
    detector = build_detector(mrcnn_config()).eval()
    save_checkpoint(detector, tmp_path / "mrcnn.safetensors")
    again, _ = load_checkpoint(tmp_path / "mrcnn.safetensors")
    images = random_images(0, dtype=torch.float32)
    with torch.no_grad():
        one, two = (d.detect(d.encode(images), 0.0) for d in (detector, again))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.logits, b.logits)
    assert load_weights(again, tmp_path / "mrcnn.safetensors") == []
    other = build_detector(mrcnn_config(classes=("cat", "cow")))
    with pytest.raises(InputError, match="only from a checkpoint of the same classes"):
        load_weights(other, tmp_path / "mrcnn.safetensors")
    with pytest.raises(InputError, match="family mrcnn cannot be exported"):
        export(detector, tmp_path / "mrcnn.pt2", "pt2", (64, 96))
    assert not (tmp_path / "mrcnn.pt2").exists()
