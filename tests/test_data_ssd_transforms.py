"""SSD's augmentation: boxes, labels and object map follow the image through crop and zoom."""

import torch
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from als.data.transforms import ssd_transforms


def sample(boxes: list[list[float]]):
    image = tv_tensors.Image(torch.full((3, 60, 80), 30, dtype=torch.uint8))
    object_map = torch.zeros(60, 80, dtype=torch.uint8)
    for x1, y1, x2, y2 in boxes:
        object_map[int(y1) : int(y2), int(x1) : int(x2)] = 1
    return image, {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(60, 80)),
        "labels": torch.arange(1, len(boxes) + 1),
        "object_map": tv_tensors.Mask(object_map),
        "image_id": "one",
    }


def test_one_object_stays_in_its_box():
    """The object map shows where the object went: its bounds are the box."""
    transform, seen = ssd_transforms(96), set()
    for seed in range(30):
        torch.manual_seed(seed)
        image, target = transform(*sample([[20.0, 15.0, 50.0, 45.0]]))
        assert image.shape == (3, 96, 96) and image.dtype == torch.float32
        assert 0 <= image.min() and image.max() <= 1
        assert target["object_map"].shape == (96, 96) and target["labels"].tolist() == [1]
        bounds = masks_to_boxes(target["object_map"][None] == 1)[0]
        bounds[2:] += 1  # inclusive pixels
        torch.testing.assert_close(
            target["boxes"][0].as_subclass(torch.Tensor), bounds, rtol=0, atol=3.0
        )
        width, height = (bounds[2:] - bounds[:2]).tolist()
        seen.add("small" if width < 25 else "large" if width > 50 else "middle")
        assert width > 2 and height > 2
    assert seen == {"small", "middle", "large"}, "zooming out and cropping both happen"


def test_labels_go_with_their_boxes():
    transform, counts = ssd_transforms(96), set()
    for seed in range(30):
        torch.manual_seed(seed)
        # Side by side: the second object is always right of the first, unless mirrored.
        _, target = transform(*sample([[2.0, 10.0, 30.0, 50.0], [48.0, 10.0, 60.0, 20.0]]))
        boxes, labels = target["boxes"], target["labels"].tolist()
        assert len(boxes) == len(labels) and labels in ([1], [2], [1, 2])
        counts.add(len(labels))
        if len(labels) == 2:
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            assert areas[0] > areas[1]
    assert counts == {1, 2}, "crops lose objects whose centre lies outside"
