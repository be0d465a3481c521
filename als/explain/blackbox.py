"""The detector as a black box, and D-RISE, which needs no more: which pixels a detection needs,
found by hiding pixels (Petsiuk et al., CVPR 2021)."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou
from tqdm import tqdm

from als.images import photo_of
from als.model import Detector

BlackBox = Callable[[Tensor], list[dict[str, Tensor]]]
"""Images [B, 3, H, W] in 0..1 -> for each boxes [K, 4] xyxy pixels, labels [K], scores [K]."""

# Images in one pass. On a CPU 8 take 1.4 times as long for each image: their activations are so
# large that the C library takes and clears fresh memory for every layer.
BATCH_SIZE = 4
PROPOSALS = 100  # of an image with hidden pixels, which needs no 300
MASKS = 1000
GRID = 16
VISIBLE = 0.5


def black_box(
    detector: Detector, proposals: int | None = None, labels: Sequence[int] | None = None
) -> BlackBox:
    """The detector, in evaluation mode and without gradients, with its own score threshold.

    Args:
        proposals, labels: limits as of `Detector.detect`: most of the time of hundreds of passes
            goes into RoIs that score nothing.
    """
    device = next(detector.parameters()).device

    @torch.inference_mode(False)
    @torch.no_grad()
    def detect(images: Tensor) -> list[dict[str, Tensor]]:
        photos = [photo_of(image, detector.config.max_size) for image in images.to(device)]
        found = detector.detect(detector.encode(photos), proposals=proposals, labels=labels)
        return [one.as_dict() for one in found]

    return detect


def detection_score(found: dict[str, Tensor], box, label: int) -> float:
    """How much of a detection is left: max over detections of its class of IoU x class score.

    Args:
        found: boxes [K, 4] xyxy, labels [K], scores [K] of one image.
        box: [4] xyxy of the detection that is looked for. label: its class.

    Returns:
        0 to 1; 0 where no detection of the class touches the box.
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
    masks: int = MASKS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: bool = True,
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
        seed: of the masks. progress: a bar with the time left, on stderr.

    Returns:
        float32 [K, H, W], raw, 0 to about 1 / 0.5.
    """
    height, width = image.shape[-2:]
    total = np.zeros((len(detections), height, width), dtype=np.float64)
    with tqdm(total=masks, desc="D-RISE", unit="mask", disable=not progress) as bar:
        for batch in random_masks((height, width), masks, batch_size, seed):
            visible = batch.numpy()
            found = detect(image[None] * batch[:, None].to(image))
            for k, (box, label) in enumerate(detections):
                weights = np.array([detection_score(f, box, label) for f in found])
                total[k] += np.tensordot(weights, visible, axes=1)
            bar.update(len(batch))
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


def estimate_seconds(
    detect: BlackBox, image: Tensor, masks: int = MASKS, batch_size: int = BATCH_SIZE
) -> float:
    """Seconds that `drise` will take for this image: one batch is timed, after one to warm up."""
    batch = image[None].repeat(min(batch_size, masks), 1, 1, 1)
    detect(batch)
    started = time.perf_counter()
    detect(batch)
    return (time.perf_counter() - started) * masks / len(batch)
