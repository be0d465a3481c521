"""Samples: boxes and maps follow the image, and a seed fixes a sample."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from als.data.dataset import DetectionDataset, collate
from als.data.layouts import load_records
from als.data.masks import read_object_map
from als.data.record import Record
from als.data.sampler import AspectBatchSampler
from als.data.toy import TOY_CLASSES
from als.data.transforms import (
    TidyBoxes,
    as_photo,
    ssd_transforms,
    training_transforms,
)
from als.errors import InputError
from als.images import as_rgb, photo_of


@pytest.fixture(scope="module")
def records(toy_root) -> list[Record]:
    return load_records("VOC2012:trainval", toy_root, TOY_CLASSES)


def dataset(records, transform=None) -> DetectionDataset:
    return DetectionDataset(records, TOY_CLASSES, transform)


def test_evaluation_sample_is_the_photo_and_ground_truth(records):
    photo, target = dataset(records, partial(as_photo, 500))[0]
    with Image.open(records[0].path) as stored:
        expected = np.asarray(stored.convert("RGB"), np.float32).transpose(2, 0, 1) / 255
    assert type(photo.pixels) is torch.Tensor and photo.pixels.dtype == torch.float32
    np.testing.assert_array_equal(photo.pixels.numpy(), expected)
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    np.testing.assert_array_equal(target["boxes"].numpy(), records[0].boxes)
    np.testing.assert_array_equal(target["labels"].numpy(), records[0].labels)
    expected_map = read_object_map(records[0], TOY_CLASSES)
    np.testing.assert_array_equal(target["object_map"].numpy(), expected_map)
    assert target["image_id"] == records[0].image_id and photo.size == records[0].size


def test_a_large_image_is_averaged_and_its_target_stays(records):
    photo, target = dataset(records, partial(as_photo, 40))[0]
    height, width = records[0].size
    with Image.open(records[0].path) as stored:
        pixels = np.asarray(stored.convert("RGB"), np.float32) / 255
    half = pixels.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert max(height, width) == 160 == 2 * max(photo.pixels.shape[1:])
    np.testing.assert_allclose(photo.pixels.numpy(), half, atol=1.01 / 255)  # Pillow rounds twice
    np.testing.assert_array_equal(target["boxes"].numpy(), records[0].boxes)
    assert photo.size == records[0].size


def test_images_of_a_batch_share_the_size_and_nothing_else(records):
    """One draw for all would flip, zoom and distort a batch as one."""
    transform = training_transforms([90, 120, 150], 400, jitter=True)
    copies = dataset([records[0]] * 8, transform)
    sizes, alike = set(), 0
    for seed in range(12):
        images = [copies[index, seed][0] for index in range(8)]
        (size,) = {tuple(image.shape) for image in images}
        sizes.add(size)
        alike += len({image.numpy().tobytes() for image in images}) < 8
    assert len(sizes) == 3 and alike < 3


def test_difficult_objects_and_absent_masks_are_absent_from_targets(records):
    data = dataset(records, partial(as_photo, 500))
    assert any(record.difficult.any() for record in records)
    assert {record.mask is None for record in records} == {True, False}
    for index, record in enumerate(records):
        target = data[index][1]
        np.testing.assert_array_equal(target["boxes"].numpy(), record.boxes[~record.difficult])
        assert target["labels"].tolist() == record.labels[~record.difficult].tolist()
        assert ("object_map" in target) == (record.mask is not None)


def test_boxes_and_object_map_follow_flip_and_resize(records):
    """After any draw every box still encloses its object in the resized map."""
    data = dataset(records, training_transforms([90, 150], 230, jitter=True))
    shapes = set()
    for index in range(len(records)):
        for seed in range(3):
            image, target = data[index, 100 * index + seed]
            shapes.add((tuple(image.shape[1:]), records[index].size))
            assert image.min() >= 0 and image.max() <= 1
            assert len(target["labels"]) == (~records[index].difficult).sum()
            object_map = target.get("object_map")
            if object_map is None:
                continue
            assert object_map.shape == image.shape[1:]
            assert set(object_map.unique().tolist()) <= {0, 1, 255}
            outside = object_map == 1
            for x1, y1, x2, y2 in target["boxes"].round().int().tolist():
                assert (object_map[y1:y2, x1:x2] == 1).float().mean() > 0.3
                outside[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = False
            assert not outside.any()
    assert {shape for shape, size in shapes if size == (120, 160)} == {(90, 120), (150, 200)}


def test_crops_keep_an_object_and_move_boxes_with_the_map(records):
    """Some images are cropped, some lie on a larger canvas; a box stays around its object."""
    plain = dataset(records, training_transforms([120], 400, jitter=False))
    cropped = dataset(records, training_transforms([120], 400, jitter=False, crop=True))
    larger = smaller = 0
    for index in range(len(records)):
        for seed in range(8):
            before, (image, target) = plain[index, seed][1], cropped[index, seed]
            assert 1 <= len(target["labels"]) <= len(before["labels"])
            assert set(target["labels"].tolist()) <= set(before["labels"].tolist())
            largest = [(t["boxes"][:, 2:] - t["boxes"][:, :2]).max() for t in (before, target)]
            larger += bool(largest[1] > 1.1 * largest[0])
            smaller += bool(largest[1] < 0.9 * largest[0])
            if "object_map" in target:
                assert target["object_map"].shape == image.shape[1:]
                for x1, y1, x2, y2 in target["boxes"].round().int().tolist():
                    assert (target["object_map"][y1:y2, x1:x2] == 1).float().mean() > 0.3
    assert larger > 0 and smaller > 0


def test_flip_mirrors_the_boxes(records):
    data = dataset(records[:1], training_transforms([120], 160, jitter=False))
    seen = {tuple(data[0, seed][1]["boxes"][0].tolist()) for seed in range(12)}
    x1, y1, x2, y2 = records[0].boxes[0].tolist()
    assert seen == {(x1, y1, x2, y2), (160 - x2, y1, 160 - x1, y2)}


def test_a_box_that_fills_its_image_survives_every_size(tmp_path):
    """Resizing rounds: 333x500 at a short side of 240 makes a box of 240.0001 pixels or so."""
    path = tmp_path / "a.jpg"
    for size in ((333, 500), (375, 500), (401, 267)):
        Image.new("RGB", size[::-1]).save(path)
        box = np.array([[0, 0, size[1], size[0]]], np.float32)
        record = Record("a", path, size, box, np.array([1]), np.array([False]), None)
        for side in range(200, 260, 11):
            transform = training_transforms([side], 1000, jitter=False)
            image, target = dataset([record], transform)[0, 0]
            height, width = image.shape[1:]
            assert target["labels"].tolist() == [1]
            assert (target["boxes"][0, 2:] <= torch.tensor([width, height])).all()
            torch.testing.assert_close(
                target["boxes"][0, 2:].as_subclass(torch.Tensor),
                torch.tensor([width, height], dtype=torch.float32),
                atol=1.0,
                rtol=0,
            )


def test_as_many_boxes_as_rows_do_not_touch_the_object_map(tmp_path):
    """v2.SanitizeBoundingBoxes would take the rows of such a map for masks of the boxes."""
    size = (3, 40)
    Image.new("RGB", size[::-1]).save(tmp_path / "a.jpg")
    boxes = tv_tensors.BoundingBoxes(
        [[0, 0, 5, 3], [4, 0, 4.5, 3], [9, 0, 20, 3]], format="XYXY", canvas_size=size
    ).float()
    boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)
    target = {
        "boxes": boxes,
        "labels": torch.tensor([1, 2, 3]),
        "object_map": tv_tensors.Mask(torch.ones(size, dtype=torch.uint8)),
    }
    image = tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8))
    _, tidy = TidyBoxes()(image, target)
    assert tidy["labels"].tolist() == [1, 3]
    assert tidy["boxes"].tolist() == [[0, 0, 5, 3], [9, 0, 20, 3]]
    assert tidy["object_map"].shape == size
    _, mangled = v2.SanitizeBoundingBoxes()(image, target)
    assert mangled["object_map"].shape != size, "v2 is mended: TidyBoxes may go"


def test_kept_images_give_the_same_samples_without_their_files(records, tmp_path):
    """Also the second time round: no transform may change what is kept."""
    copies = [replace(r, path=Path(shutil.copy(r.path, tmp_path))) for r in records[:3]]
    transform = training_transforms([100, 120], 200, jitter=True, crop=True)
    plain = DetectionDataset(copies, TOY_CLASSES, transform)
    kept = DetectionDataset(copies, TOY_CLASSES, transform, keep_decoded=True)
    items = [(index, seed) for seed in range(4) for index in range(3)]
    expected = [plain[item] for item in items]
    for index in range(3):
        kept[index]
    for path in tmp_path.iterdir():
        path.unlink()
    for item, (image, target) in zip(items, expected, strict=True):
        again = kept[item]
        assert torch.equal(image, again[0]) and target.keys() == again[1].keys()
        assert torch.equal(target["boxes"], again[1]["boxes"])
        if "object_map" in target:
            assert torch.equal(target["object_map"], again[1]["object_map"])
    with pytest.raises(InputError, match="no such file"):
        plain[0]


def test_a_seed_fixes_a_sample_and_leaves_the_random_state(records):
    data = dataset(records, training_transforms([100, 120, 140], 200, jitter=True))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, _ = data[0, 123]
    assert torch.equal(torch.rand(3), expected)
    again, target = data[0, 123]
    assert torch.equal(first, again)
    others = [data[0, seed][0] for seed in range(5)]
    assert not all(other.shape == first.shape and torch.equal(other, first) for other in others)


def test_samples_do_not_depend_on_workers_or_on_where_an_epoch_resumes(records):
    data = dataset(records, training_transforms([100, 140], 200, jitter=True))

    def epoch(workers: int, skip: int) -> list[torch.Tensor]:
        sampler = AspectBatchSampler(records, 4, seed=3)
        sampler.skip_batches = skip
        loader = DataLoader(data, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
        return [image for images, _ in loader for image in images]

    whole, resumed = epoch(workers=0, skip=0), epoch(workers=1, skip=2)
    assert len(whole) == 16 and len(resumed) == 8
    assert all(torch.equal(a, b) for a, b in zip(whole[8:], resumed, strict=True))


def test_a_broken_or_swapped_image_is_named(records, tmp_path):
    whole = records[0].path.read_bytes()
    path = tmp_path / "cut.jpg"
    nothing = [np.zeros((0, 4), np.float32)] * 3
    for content, says in (
        (whole[: len(whole) // 2], "damaged or cut short"),
        (b"", "the file is empty"),
        (b"text", "not an image"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"^{path}: .*{says}"):
            dataset([Record("cut", path, (90, 70), *nothing, None)])[0]
    Image.new("RGB", (70, 90)).save(path)
    swapped = Record("cut", path, (70, 90), *nothing, None)
    for workers in (0, 1):
        loader = DataLoader(dataset([swapped]), collate_fn=collate, num_workers=workers)
        with pytest.raises(InputError) as error:
            list(loader)
        assert str(error.value).startswith(f"{path}: the image is 70x90")


def grey(values=((0, 60, 120), (180, 240, 255))) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint8))


def turned(orientation: int) -> dict:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


RGBA = Image.merge("RGBA", [grey()] * 3 + [grey(((0, 9, 200), (128, 255, 0)))])
KINDS = {
    "L": (grey(), "png", {}),
    "LA": (RGBA.convert("LA"), "png", {}),
    "P": (grey().convert("P"), "png", {}),
    "P-transparent": (grey().quantize(6), "png", {"transparency": 2}),
    "RGBA": (RGBA, "png", {}),
    "I-16": (Image.fromarray(np.array([[0, 300], [9000, 65535]], np.uint16)), "png", {}),
    "I": (Image.fromarray(np.array([[0, 300], [9000, 65535]], np.int32)), "tiff", {}),
    "CMYK": (grey().convert("CMYK"), "jpg", {}),
    "1": (grey().convert("1"), "png", {}),
    "GIF": (grey(), "gif", {"save_all": True, "append_images": [grey().rotate(180)]}),
    **{f"EXIF-{k}": (grey().convert("RGB"), "png", turned(k)) for k in range(1, 9)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation_see_what_prediction_sees(tmp_path, kind):
    image, suffix, options = KINDS[kind]
    path = tmp_path / f"a.{suffix}"
    image.save(path, **options)
    seen = as_rgb(path)
    nothing = [np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)]
    record = Record("a", path, (seen.height, seen.width), *nothing, None)
    pixels, _ = dataset([record])[0]
    np.testing.assert_array_equal(pixels.numpy().transpose(1, 2, 0), np.asarray(seen))
    photo, _ = dataset([record], partial(as_photo, 500))[0]
    assert torch.equal(photo.pixels, photo_of(seen, 500).pixels) and photo.size == record.size
    if kind.startswith("EXIF"):
        return
    with Image.open(path) as stored:  # so that the case is one: the photo is not a plain one
        assert stored.mode != "RGB" or getattr(stored, "n_frames", 1) > 1


@pytest.mark.parametrize("limit", ["float", "large"])
def test_what_prediction_refuses_training_refuses_with_the_same_sentence(tmp_path, limit):
    path = tmp_path / "a.tiff"
    image = Image.new("F", (4, 4)) if limit == "float" else Image.new("1", (8000, 5001))
    image.save(path)
    record = Record("a", path, image.size[::-1], *[np.zeros((0, 4), np.float32)] * 3, None)
    with pytest.raises(InputError, match="8 bit|over the limit of 40 megapixels") as predicting:
        as_rgb(path)
    with pytest.raises(InputError) as training:
        dataset([record])[0]
    assert str(training.value) == str(predicting.value).replace("a.tiff", str(path), 1)


def large_sample():
    """A photograph of 1,800 x 1,200 pixels with an object, larger than twice what is drawn."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1200, 1800, 3), dtype=np.uint8)
    boxes = tv_tensors.BoundingBoxes(
        [[300.0, 120.0, 900.0, 840.0]], format="XYXY", canvas_size=(1200, 1800)
    )
    object_map = torch.zeros(1200, 1800, dtype=torch.uint8)
    object_map[120:840, 300:900] = 1
    target = {"boxes": boxes, "labels": torch.tensor([1])}
    image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
    return image, target | {"object_map": tv_tensors.Mask(object_map)}


@pytest.mark.parametrize("max_size", [512, 1000])
def test_training_shrinks_a_photograph_as_the_network_does(max_size):
    image, target = large_sample()
    network = GeneralizedRCNNTransform(320, max_size, [0.0], [1.0], _skip_resize=True).eval()
    expected, _ = network.resize(photo_of(image, max_size).pixels, None)
    flips = set()
    for seed in range(8):
        torch.manual_seed(seed)
        pixels, followed = training_transforms([320], max_size, jitter=False)(image, target)
        is_flipped = bool(followed["boxes"][0, 0] > pixels.shape[2] / 4)
        flips.add(is_flipped)
        pixels = (pixels.flip(2) if is_flipped else pixels).as_subclass(torch.Tensor)
        # Mirrored, the places that are read round otherwise, which counts between noisy pixels.
        atol = 1e-4 if is_flipped else 1e-5
        torch.testing.assert_close(pixels, expected, atol=atol, rtol=0)
        found = masks_to_boxes(followed["object_map"][None] == 1)[0]
        found[2:] += 1  # inclusive pixels
        box = followed["boxes"][0].as_subclass(torch.Tensor)
        torch.testing.assert_close(box, found, atol=1.5, rtol=0)
    assert flips == {True, False}


def test_ssds_square_is_made_as_the_network_makes_it():
    image, target = large_sample()
    network = GeneralizedRCNNTransform(300, 300, [0.0], [1.0], fixed_size=(300, 300)).eval()
    expected, _ = network.resize(photo_of(image, 300).pixels, None)
    kept = [t for t in ssd_transforms(300).transforms if not type(t).__name__.startswith("Random")]
    pixels, followed = v2.Compose(kept)(image, target)
    torch.testing.assert_close(pixels.as_subclass(torch.Tensor), expected, atol=1e-5, rtol=0)
    assert followed["boxes"][0].round().tolist() == [50, 30, 150, 210]


def test_a_thin_photograph_can_be_trained_on(tmp_path):
    Image.new("RGB", (5000, 1)).save(tmp_path / "a.png")
    box = np.array([[1000, 0, 2000, 1]], np.float32)
    record = Record("a", tmp_path / "a.png", (1, 5000), box, np.array([1]), np.array([False]), None)
    pixels, target = dataset([record], training_transforms([320], 512, jitter=False))[0, 0]
    assert pixels.shape == (3, 16, 512) and len(target["boxes"]) == 1
