"""Layer separation: two branches that share nothing, and savings that change nothing."""

from itertools import product

import pytest
import torch
from tiny import (
    assert_same_detections,
    lively_detector,
    no_objects,
    random_images,
    some_targets,
    tiny_config,
)
from torch.nn.functional import cross_entropy
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import box_iou

from als.checkpoint import build_detector
from als.explain import boxes_of_class
from als.model.attention import relative_entropy
from als.model.roi_heads import Features, parts
from als.model.rpn import BACKGROUND_IOU, FOREGROUND_IOU, OverlapMatcher

SWITCHES = list(product([False, True], repeat=2))  # attention, separation


def test_the_two_branches_start_equal_and_share_nothing():
    heads = build_detector(tiny_config(separation=True)).roi_heads
    cls, loc = heads.conv5_cls.state_dict(), heads.conv5_loc.state_dict()
    assert cls.keys() == loc.keys() and cls
    assert all(torch.equal(cls[name], loc[name]) for name in cls)
    storages = [
        {p.data_ptr() for p in conv5.parameters()} for conv5 in (heads.conv5_cls, heads.conv5_loc)
    ]
    assert not storages[0] & storages[1]
    with torch.no_grad():
        next(heads.conv5_loc.parameters()).add_(1)
    name = next(iter(dict(heads.conv5_cls.named_parameters())))
    assert not torch.equal(heads.conv5_cls.state_dict()[name], heads.conv5_loc.state_dict()[name])


def test_without_separation_there_is_one_conv5():
    heads = build_detector(tiny_config(separation=False)).roi_heads
    assert heads.conv5_loc is None
    names = {name.split(".")[0] for name in heads.state_dict()}
    assert names == {"conv5_cls", "cls_score", "bbox_pred"}


@pytest.mark.parametrize(("attention", "separation"), SWITCHES)
def test_each_branch_sees_its_own_feature(attention, separation):
    detector = lively_detector(0, attention=attention, separation=separation)
    heads = detector.roi_heads
    rois = [torch.tensor([[4.0, 4.0, 60.0, 50.0], [0.0, 0.0, 32.0, 32.0]]).double()]
    with torch.no_grad():
        encoding = detector.encode(random_images(1, [(64, 96)]))
        f_cls, f_loc = encoding.f_cls, encoding.f_loc
        logits, vectors = heads.classify(f_cls, rois)
        deltas = heads.localize(f_loc, rois)
        assert logits.shape == (2, 4) and deltas.shape == (2, 16)
        other = torch.zeros_like(f_cls)
        assert torch.equal(heads.classify(f_cls, rois)[0], logits)
        assert not torch.equal(heads.classify(other, rois)[0], logits)
        assert not torch.equal(heads.localize(other, rois), deltas)
        if separation:
            heads.conv5_loc.apply(lambda m: [p.zero_() for p in m.parameters(recurse=False)])
            assert torch.equal(heads.classify(f_cls, rois)[0], logits)
            assert not torch.equal(heads.localize(f_loc, rois), deltas)


@pytest.mark.parametrize("pool", ["align", "max"])
def test_pooling_of_an_image_of_coordinates(pool):
    """RoI features lie where the box lies: column 16 x of the feature is pixel x."""
    heads = build_detector(tiny_config(pool=pool, pool_size=2)).roi_heads
    columns = torch.arange(8.0).expand(1, 1, 8, 8)
    box = [torch.tensor([[16.0, 16.0, 80.0, 80.0]])]  # cells 1 to 5
    pooled = heads.pool(columns, box)[0, 0]
    # RoIAlign: cell c has its middle at pixel 16 c + 8, so bin middles 32 and 64 read 1.5, 3.5.
    # RoIPool: 5 cells (1 to 5, both ends count) in two bins; the largest of each is 3 and 5.
    expected = [[1.5, 3.5]] * 2 if pool == "align" else [[3.0, 5.0]] * 2
    assert pooled.tolist() == expected


@pytest.mark.parametrize(("attention", "separation"), SWITCHES)
@pytest.mark.parametrize("seed", range(2))
def test_skipping_changes_no_detection(attention, separation, seed):
    """Exact saving at inference: random weights, images, and thresholds from all to none."""
    detector = lively_detector(seed, attention=attention, separation=separation)
    counts = []
    with torch.no_grad():
        encoding = detector.encode(random_images(seed + 10))
        proposals = detector.propose(encoding)
        for threshold in (0.0, 0.5, 0.7, 1.0):
            saved = [found.as_dict() for found in detector.detect(encoding, threshold)]
            expected = torchvisions_detections(detector, encoding, proposals, threshold)
            assert_same_detections(saved, expected, atol=1e-9)
            counts.append(sum(len(found["scores"]) for found in saved))
    assert counts[0] > 20 and 0 < counts[2] < counts[0] and counts[-1] == 0, counts


def torchvisions_detections(detector, encoding, proposals, threshold: float) -> list[dict]:
    """Both branches on every proposal, then torchvision's own choice and way back."""
    heads, sizes = detector.roi_heads, encoding.images.image_sizes
    logits, vectors = heads.classify(encoding.f_cls, proposals)
    shared = heads.conv5_loc is None and encoding.f_cls is encoding.f_loc
    deltas = heads.bbox_pred(vectors) if shared else heads.localize(encoding.f_loc, proposals)
    heads.score_thresh = threshold
    boxes, scores, labels = heads.postprocess_detections(logits, deltas, proposals, sizes)
    found = [
        {"boxes": b, "labels": n, "scores": s}
        for b, n, s in zip(boxes, labels, scores, strict=True)
    ]
    return detector.transform.postprocess(found, sizes, encoding.original_sizes)


@pytest.mark.parametrize(("attention", "separation"), SWITCHES)
def test_a_detection_knows_its_roi(attention, separation):
    """Its score is that of the RoI's logits, its box the one that the RoI's deltas give."""
    detector = lively_detector(2, attention=attention, separation=separation)
    with torch.no_grad():
        encoding = detector.encode(random_images(3)[:1])
        (found,) = detector.detect(encoding, threshold=0.1)
        assert len(found.scores) > 5
        assert torch.equal(found.proposals, detector.propose(encoding)[0])
        logits, _ = detector.roi_heads.classify(encoding.f_cls, [found.proposals])
        torch.testing.assert_close(found.logits, logits)
        for box, label, score, row in zip(
            found.boxes, found.labels, found.scores, found.rois, strict=True
        ):
            assert found.logits[row].softmax(-1)[label] == score
            roi = found.proposals[row][None]
            again = boxes_of_class(detector, encoding, roi, int(label))[0]
            torch.testing.assert_close(again, box)


def test_limits_leave_the_rest_as_it_is():
    detector = lively_detector(1, detections_per_image=1000)
    with torch.no_grad():
        encoding = detector.encode(random_images(1))
        everything = detector.detect(encoding, threshold=0.02)
        for found, some in zip(
            everything, detector.detect(encoding, threshold=0.02, labels=[1, 3]), strict=True
        ):
            asked = found.labels != 2
            assert 0 < asked.sum() < len(asked)
            torch.testing.assert_close(some.boxes, found.boxes[asked])
            assert some.labels.tolist() == found.labels[asked].tolist()
        for found in detector.detect(encoding, proposals=3):
            assert len(found.proposals) == len(found.logits) == 3


def test_only_proposals_over_the_threshold_enter_the_localization_branch():
    detector = lively_detector(0)
    heads = detector.roi_heads
    entered = []
    heads.conv5_loc.register_forward_pre_hook(lambda module, args: entered.append(len(args[0])))
    with torch.no_grad():
        encoding = detector.encode(random_images(0))
        logits, _ = heads.classify(encoding.f_cls, detector.propose(encoding))
        scores = logits.softmax(1)[:, 1:].amax(1)
        threshold = scores.median().item()
        detector.detect(encoding, threshold)
    assert entered == [(scores > threshold).sum().item()]
    assert 0 < entered[0] < len(scores)


def random_proposals(seed: int, targets) -> list[torch.Tensor]:
    """Per image 20 boxes around its objects and 20 anywhere in 96 x 96 pixels."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    proposals = []
    for target in targets:
        boxes = target["boxes"].double()
        if len(boxes):
            near = boxes.repeat(20, 1)[:20] + 12 * (noise(20, 4) - 0.5)
        else:
            near = torch.zeros(0, 4, dtype=torch.float64)
        corners = 60 * noise(20, 2)
        anywhere = torch.cat([corners, corners + 4 + 30 * noise(20, 2)], dim=1)
        proposals.append(torch.cat([near, anywhere]))
    return proposals


def gradients_of(detector, losses) -> dict[str, torch.Tensor | None]:
    detector.zero_grad(set_to_none=True)
    sum(losses).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in detector.named_parameters()
        if p.requires_grad
    }


def losses_of_everything(heads, f_cls, f_loc, proposals, targets):
    """The full computation: both branches on all sampled RoIs, torchvision's loss."""
    rois, _, labels, box_targets = heads.select_training_samples(list(proposals), targets)
    logits = heads.cls_score(heads.conv5_cls(heads.pool(f_cls, rois)))
    conv5 = heads.conv5_cls if heads.conv5_loc is None else heads.conv5_loc
    deltas = heads.bbox_pred(conv5(heads.pool(f_loc, rois)))
    return fastrcnn_loss(logits, deltas, labels, box_targets), torch.cat(labels)


@pytest.mark.parametrize(("attention", "separation"), SWITCHES)
@pytest.mark.parametrize("seed", range(2))
def test_skipping_changes_no_loss_and_no_gradient(attention, separation, seed):
    detector = lively_detector(seed, attention=attention, separation=separation).train()
    heads, images = detector.roi_heads, random_images(seed + 20)
    targets = some_targets(masks=False)
    proposals = random_proposals(seed, targets)

    torch.manual_seed(seed)
    encoding = detector.encode(images)
    losses = heads.losses(Features(encoding.f_cls, encoding.f_loc), proposals, targets)
    found = gradients_of(detector, [losses["loss_cls"], 2 * losses["loss_loc"]])

    torch.manual_seed(seed)
    encoding = detector.encode(images)
    (loss_cls, loss_loc), labels = losses_of_everything(
        heads, encoding.f_cls, encoding.f_loc, proposals, targets
    )
    expected = gradients_of(detector, [loss_cls, 2 * loss_loc])

    assert 0 < (labels > 0).sum() < len(labels), "some RoIs are positive, some are not"
    torch.testing.assert_close(losses["loss_cls"], loss_cls, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(losses["loss_loc"], loss_loc, rtol=1e-9, atol=1e-12)
    assert loss_loc > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-10, msg=name)
    touched = {name.split(".")[0] for name, g in expected.items() if g.abs().max() > 0}
    assert {"trunk", "roi_heads"} <= touched
    if attention:
        assert {"attention_loc", "attention_cls"} <= touched


@pytest.mark.parametrize(("attention", "separation"), SWITCHES)
def test_no_positive_roi_at_all(attention, separation):
    detector = lively_detector(0, attention=attention, separation=separation).train()
    heads = detector.roi_heads
    targets = [no_objects(), no_objects()]
    encoding = detector.encode(random_images(0))
    proposals = random_proposals(0, targets)
    losses = heads.losses(Features(encoding.f_cls, encoding.f_loc), proposals, targets)
    assert losses["loss_loc"].item() == 0.0
    logits, _ = heads.classify(encoding.f_cls, [p[:0] for p in proposals])
    assert logits.shape == (0, 4)
    assert torch.isfinite(losses["loss_cls"]) and losses["loss_cls"] > 0
    (losses["loss_cls"] + losses["loss_loc"]).backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, f"{name} must take part in every step (DDP)"
        if name.startswith(("conv5_loc", "bbox_pred")):
            assert (parameter.grad == 0).all()
    assert heads.cls_score.weight.grad.abs().max() > 0


def test_classification_loss_is_the_mean_over_all_rois():
    detector = lively_detector(0).train()
    heads, targets = detector.roi_heads, some_targets(masks=False)
    proposals = random_proposals(0, targets)
    with torch.no_grad():
        encoding = detector.encode(random_images(0))
        torch.manual_seed(7)
        losses = heads.losses(Features(encoding.f_cls, encoding.f_loc), proposals, targets)
        torch.manual_seed(7)
        rois, _, labels, _ = heads.select_training_samples(list(proposals), targets)
        logits, _ = heads.classify(encoding.f_cls, rois)
    assert [len(r) for r in rois] == [16, 16], "rois_per_image"
    expected = cross_entropy(logits, torch.cat(labels))
    torch.testing.assert_close(losses["loss_cls"], expected)


def test_flags_of_all_rois_are_told_apart_by_image():
    rois = [torch.zeros(2, 4), torch.zeros(0, 4), torch.zeros(3, 4)]
    flags = parts(torch.tensor([False, True, True, False, True]), rois)
    assert [part.tolist() for part in flags] == [[False, True], [], [True, False, True]]
    (whole,) = parts(torch.tensor([True, False]), [torch.zeros(2, 4)])
    assert whole.tolist() == [True, False]


def matchers():
    options = (FOREGROUND_IOU, BACKGROUND_IOU, True)
    return OverlapMatcher(*options), Matcher(*options)


def test_an_object_that_no_anchor_touches_makes_no_anchor_positive():
    ours, theirs = matchers()
    # Anchors: on the first object; a little of it (IoU 0.1, background); away from everything.
    iou = torch.tensor([[0.8, 0.1, 0.0], [0.0, 0.0, 0.0]])
    assert theirs(iou).tolist() == [0, 0, 0], "torchvision: the second object makes all positive"
    assert ours(iou).tolist() == [0, -1, -1]
    assert ours(iou.flip(0)).tolist() == [1, -1, -1], "an object keeps its own number"
    assert ours(torch.zeros(2, 3)).tolist() == [-1, -1, -1]


def test_matching_is_torchvisions_where_every_object_is_touched():
    ours, theirs = matchers()
    generator = torch.Generator().manual_seed(0)
    kinds = set()
    for _ in range(20):
        corners = 50 * torch.rand(46, 2, generator=generator)
        boxes = torch.cat([corners, corners + 5 + 30 * torch.rand(46, 2, generator=generator)], 1)
        iou = box_iou(boxes[:6], boxes[6:])
        if (iou.amax(1) > 0).all():
            expected = theirs(iou)
            assert torch.equal(ours(iou), expected)
            kinds |= {min(value, 0) for value in expected.tolist()}
    assert {0, -1} <= kinds
    ladder = torch.tensor([[0.9, 0.5, 0.2, 0.0], [0.0, 0.4, 0.75, 0.1]])
    assert ours(ladder).tolist() == theirs(ladder).tolist() == [0, -2, 1, -1]


def test_the_distilled_map_learns_where_its_network_finds_the_class():
    """loss_part trains the attention layers and not the layers that made its target.

    The target is gradient x activation of the class against its rivals at F's RoI features, so a
    step down loss_part brings A_cls's shares nearer to it.
    """
    options = {"attention_form": "residual", "lambda_part": 2.0, "lambda_cls": 0.0}
    detector = lively_detector(1, **options).train()
    heads, targets = detector.roi_heads, some_targets(masks=False)
    images, proposals = random_images(21), random_proposals(1, targets)

    def losses():
        encoding = detector.encode(images)
        torch.manual_seed(0)
        distilled = encoding.f, encoding.a_cls
        features = Features(encoding.f_cls, encoding.f_loc, distilled=distilled)
        return heads.losses(features, proposals, targets)

    before = losses()
    total = detector.total_loss({**before, "loss_rpn": torch.zeros(())})
    torch.testing.assert_close(total, before["loss_loc"] + 2 * before["loss_part"])
    before["loss_part"].backward()
    assert all(
        p.grad is None for p in [*heads.conv5_cls.parameters(), *heads.cls_score.parameters()]
    )
    layers = list(detector.attention_cls.parameters())
    with torch.no_grad():
        length = sum(p.grad.square().sum() for p in layers).sqrt()
        for p in layers:
            p -= 0.05 * p.grad / length
    after = losses()
    assert after["loss_part"] < before["loss_part"]


def test_focus_costs_the_positive_rois_whose_weights_are_spread():
    options = {"attention_form": "competition", "attention_entropy": 0.9, "lambda_focus": 3.0}
    detector = lively_detector(1, **options).train()
    heads, targets = detector.roi_heads, some_targets(masks=False)
    proposals = random_proposals(1, targets)
    encoding = detector.encode(random_images(21))
    features = Features(encoding.f_cls, encoding.f_loc, encoding.rivals)
    torch.manual_seed(0)
    losses = heads.losses(features, proposals, targets)
    torch.manual_seed(0)
    rois, _, labels, _ = heads.select_training_samples(list(proposals), targets)
    entropies = relative_entropy(heads.pool(encoding.a_cls, rois))[torch.cat(labels) > 0]
    assert losses["loss_focus"] > 0
    torch.testing.assert_close(losses["loss_focus"], (entropies - 0.9).clamp(min=0).mean())
    total = detector.total_loss(losses | {"loss_rpn": torch.zeros(())})
    expected = losses["loss_cls"] + losses["loss_loc"] + 3 * losses["loss_focus"]
    torch.testing.assert_close(total, expected)
