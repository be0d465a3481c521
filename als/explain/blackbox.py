"""The detector as a black box, and what needs no more: which pixels a detection needs, found by
hiding pixels at random (D-RISE, Petsiuk et al. 2021) or patch by patch (VX-CODE, Yamauchi et al.
2024)."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from als.images import photo_of
from als.model import AnyDetector, Detector
from als.model.detector import MapOverride

BlackBox = Callable[[Tensor], list[dict[str, Tensor]]]
"""Images [B, 3, H, W] in 0..1 -> for each boxes [K, 4] xyxy pixels, labels [K], scores [K]."""

# Images in one pass. On a CPU 8 take 1.4 times as long for each image: their activations are so
# large that the C library takes and clears fresh memory for every layer.
BATCH_SIZE = 4
PROPOSALS = 100  # of an image with hidden pixels, which needs no 300
GRID = 16
VISIBLE = 0.5
PATCHES = 8  # a side of the window in which patches are hidden one by one
PATCH_STEPS = 8
GREEDY_PASSES = sum(PATCHES**2 - step for step in range(PATCH_STEPS))  # at most, of an object
GONE = 0.01  # a score under which nothing is left to hide


def black_box(
    detector: AnyDetector,
    proposals: int | None = None,
    labels: Sequence[int] | None = None,
    overrides: Sequence[MapOverride | None] = (),
) -> BlackBox:
    """The detector, which is in evaluation mode, without gradients, with its own score threshold.

    Args:
        proposals, labels: limits as of `Detector.detect`, which other families do not have: most
            of the time of hundreds of passes goes into RoIs that score nothing.
        overrides: of A_loc and of A_cls, as of `Detector.encode`.
    """
    device = next(detector.parameters()).device
    limits = {"proposals": proposals, "labels": labels} if isinstance(detector, Detector) else {}

    @torch.inference_mode(False)
    @torch.no_grad()
    def detect(images: Tensor) -> list[dict[str, Tensor]]:
        photos = [photo_of(image, detector.config.max_size) for image in images.to(device)]
        found = detector.detect(detector.encode(photos, *overrides), **limits)
        return [one.as_dict() for one in found]

    return detect


def detection_score(found: dict[str, Tensor], box, label: int) -> float:
    """How much of a detection is left: max over detections of its class of IoU x class score.

    0 to 1. found: of one image, as of `BlackBox`. box: [4] xyxy of the detection looked for.
    """
    same = found["labels"] == label
    if not same.any():
        return 0.0
    boxes = found["boxes"][same].float()
    wanted = torch.as_tensor(np.asarray(box, dtype=np.float32), device=boxes.device)[None]
    return float((box_iou(boxes, wanted)[:, 0] * found["scores"][same]).max())


def drise(
    detect: BlackBox,
    image: Tensor,
    detections: Sequence[tuple[np.ndarray, int]],
    masks: int,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> np.ndarray:
    """Mean of random masks, each weighted by how much of the detection is left under it.

    map(pixel) = sum_i w_i M_i(pixel) / (masks x 0.5), w_i = max over detections of the masked image
    of IoU x [same class] x score. In the paper w_i is IoU x cosine of the class probabilities x
    objectness; a detection here has one class, so the cosine is 0 or 1, and its score stands for
    the objectness. The paper takes 5,000 masks of 16 x 16 cells, half visible.

    Args:
        image: [3, H, W] in 0..1; hidden pixels become 0.
        detections: box [4] xyxy pixels and label of each detection; all share the passes.
        masks: forward passes. batch_size: masked images in one pass; does not change the result.
        seed: of the masks.

    Returns:
        float32 [K, H, W], raw, 0 to about 1 / 0.5.
    """
    height, width = image.shape[-2:]
    total = np.zeros((len(detections), height, width), dtype=np.float64)
    for batch in random_masks((height, width), masks, batch_size, seed):
        visible = batch.numpy()
        found = detect(image[None] * batch[:, None].to(image))
        for k, (box, label) in enumerate(detections):
            weights = np.array([detection_score(f, box, label) for f in found])
            total[k] += np.tensordot(weights, visible, axes=1)
    return (total / (masks * VISIBLE)).astype(np.float32)


def random_masks(size: tuple[int, int], masks: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Smooth random masks in batches [<= batch_size, H, W], values 0 (hidden) to 1.

    As RISE makes them (Petsiuk et al. 2018): a 16 x 16 grid of 0 and 1, enlarged
    bilinearly to one cell more than the image, then cut out at a random offset within one cell.
    Each mask depends on the seed and its index alone.
    """
    height, width = size
    cell_h, cell_w = -(-height // GRID), -(-width // GRID)
    enlarged = ((GRID + 1) * cell_h, (GRID + 1) * cell_w)
    for start in range(0, masks, batch_size):
        batch = []
        for index in range(start, min(start + batch_size, masks)):
            rng = np.random.default_rng([seed, index])
            grid = (rng.random((GRID, GRID)) < VISIBLE).astype(np.float32)
            top, left = rng.integers(cell_h), rng.integers(cell_w)
            fine = F.interpolate(torch.from_numpy(grid)[None, None], enlarged, mode="bilinear")
            batch.append(fine[0, 0, top : top + height, left : left + width])
        yield torch.stack(batch)


def greedy_patches(
    detect: BlackBox,
    image: Tensor,
    box: np.ndarray,
    label: int,
    steps: int = PATCH_STEPS,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Hides patch after patch, each time the one without which least of the detection is left.

    VX-CODE's patch deletion with one patch a step (Yamauchi et al. 2024, r = 1), by D-RISE's score.
    The 8 x 8 patches fill the box enlarged to twice its sides. A score under 0.01 ends it before
    the last step. At most 64 + 63 + ... forward passes: `GREEDY_PASSES` for 8 steps.

    Args:
        image: [3, H, W] in 0..1; hidden pixels become 0. box: [4] xyxy pixels. label: its class.

    Returns:
        float32 [H, W]: 1 in the first patch, (steps - 1) / steps in the second, ..., 0 elsewhere;
        0 everywhere where nothing of the class is found at the box.
    """
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = np.asarray(box, dtype=float)
    reach_x, reach_y = (x2 - x1) / 2, (y2 - y1) / 2
    columns = np.linspace(max(x1 - reach_x, 0), min(x2 + reach_x, width), PATCHES + 1)
    rows = np.linspace(max(y1 - reach_y, 0), min(y2 + reach_y, height), PATCHES + 1)
    row_of = np.searchsorted(rows, np.arange(height) + 0.5) - 1
    column_of = np.searchsorted(columns, np.arange(width) + 0.5) - 1
    inside = np.ix_((row_of >= 0) & (row_of < PATCHES), (column_of >= 0) & (column_of < PATCHES))
    patch_of = np.full((height, width), -1)
    patch_of[inside] = (row_of[:, None] * PATCHES + column_of)[inside]
    patches = torch.from_numpy(patch_of).to(image.device)
    left, heat = np.unique(patch_of[patch_of >= 0]).tolist(), np.zeros((height, width), np.float32)
    for step in range(min(steps, len(left))):
        scores: list[float] = []
        for start in range(0, len(left), batch_size):
            some = [image * (patches != one) for one in left[start : start + batch_size]]
            scores += [detection_score(f, box, label) for f in detect(torch.stack(some))]
        if not step and max(scores) < GONE:  # it is not there, whatever is hidden
            break
        hidden = left.pop(int(np.argmin(scores)))
        heat[patch_of == hidden] = 1 - step / steps
        image = image * (patches != hidden)
        if min(scores) < GONE:
            break
    return heat


def estimate_seconds(
    detect: BlackBox, image: Tensor, passes: int, batch_size: int = BATCH_SIZE
) -> float:
    """Seconds of so many passes of this image: one batch is timed, after one to warm up."""
    batch = image[None].repeat(min(batch_size, passes), 1, 1, 1)
    detect(batch)
    started = time.perf_counter()
    detect(batch)
    return (time.perf_counter() - started) * passes / len(batch)
