"""Many photos at once: the same results as one by one, and broken files told and left out."""

import numpy as np
import pytest
from PIL import Image
from tiny import lively_detector

from als.checkpoint import save_checkpoint
from als.cli import main
from als.errors import InputError
from als.inference import Predictor, _alike, image_files, predict_many

# (width, height): three canvases, one of them upright and one of a photo that is far too thin
SIZES = [(96, 64), (64, 96), (200, 140), (90, 60), (96, 64), (300, 4)]


@pytest.fixture(scope="module")
def predictor():
    return Predictor(lively_detector().float(), {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, (width, height) in enumerate(SIZES):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"photo{i}.png")
    return folder


def assert_same(one, two):
    assert one.names == two.names and one.size == two.size
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-2)
    np.testing.assert_allclose(one.localization_map, two.localization_map, atol=1e-4)
    np.testing.assert_allclose(one.classification_map, two.classification_map, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_results_are_those_of_one_photo_alone(predictor, folder, batch_size):
    files = image_files([folder])
    many = predict_many(predictor, files, batch_size, score_threshold=0.2)
    found = {one.path: one.prediction for one in many}
    assert sorted(found) == files and len(files) == len(SIZES)
    objects = 0
    for path, prediction in found.items():
        assert_same(prediction, predictor.predict(path, score_threshold=0.2))
        objects += len(prediction.scores)
    assert objects > len(files), "too little was found for the test to say anything"
    assert predictor.detector.config.score_threshold != 0.2


def test_a_batch_holds_photos_of_one_canvas(predictor, folder, monkeypatch):
    shapes = []
    encode = type(predictor.detector).encode

    def seen(detector, photos):
        encoding = encode(detector, photos)
        shapes.append((len(photos), tuple(encoding.images.tensors.shape[-2:])))
        return encoding

    monkeypatch.setattr(type(predictor.detector), "encode", seen)
    list(predict_many(predictor, image_files([folder]), 2))
    assert sum(count for count, _ in shapes) == len(SIZES)
    # 96 x 64, 200 x 140, 90 x 60 and 96 x 64 share a canvas; the upright and the thin one do not.
    assert sorted(shapes) == [(1, (32, 96)), (1, (96, 64)), (2, (64, 96)), (2, (64, 96))]


def test_the_canvas_is_that_of_the_reduced_and_stretched_photo(tmp_path):
    """At 2777 x 1740 and 2777 x 1735 rounding in the reduction decides on a cell of the canvas."""
    predictor = Predictor(lively_detector(min_size=384, max_size=512).float(), {})
    sizes = [(2777, 1740), (2777, 1735), (30, 900), (900, 30), (513, 1025)]
    for i, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    seen = {}
    for batch in _alike(predictor, image_files([tmp_path]), 1):
        (path,) = batch
        alone = predictor.encode(path).images.tensors.shape[-2:]
        seen[path.stem] = tuple(alone)
    together = [batch for batch in _alike(predictor, image_files([tmp_path]), 5)]
    for batch in together:
        assert len({seen[path.stem] for path in batch}) == 1
    assert sorted(path.stem for batch in together for path in batch) == sorted(seen)


def test_broken_files_are_told_and_left_out(predictor, folder, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    files = [folder / "photo0.png", broken, folder / "photo1.png"]
    told = []
    found = predict_many(predictor, files, on_error=lambda path, error: told.append((path, error)))
    assert sorted(one.path.name for one in found) == ["photo0.png", "photo1.png"]
    assert [path for path, _ in told] == [broken] and "broken.jpg" in str(told[0][1])
    with pytest.raises(InputError, match="broken.jpg"):
        list(predict_many(predictor, files))
    with pytest.raises(InputError, match="batch_size 0"):
        list(predict_many(predictor, files, batch_size=0))


def test_files_of_a_folder_come_by_name_without_what_is_no_image(folder, tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deeper.png").mkdir()
    last = folder / "photo0.png"
    assert image_files([tmp_path, last]) == [tmp_path / "a.png", tmp_path / "b.JPG", last]
    with pytest.raises(InputError, match="no image file"):
        image_files([tmp_path / "deeper.png"])


def test_predict_takes_a_folder_and_ends_with_an_error_for_a_broken_file(folder, tmp_path, capsys):
    checkpoint, photos, out = (tmp_path / name for name in ("m.safetensors", "photos", "out"))
    save_checkpoint(lively_detector().float(), checkpoint)
    photos.mkdir()
    for name in ("photo0.png", "photo1.png"):
        (photos / name).write_bytes((folder / name).read_bytes())
    (photos / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(checkpoint), str(photos), "--out", str(out)])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "broken.jpg: " in printed.err and "1 of 3 images could not be read" in printed.err
    written = sorted(path.name for path in out.iterdir())
    assert written == ["photo0.json", "photo0.png", "photo1.json", "photo1.png"]
    for name in ("photo0.png", "photo1.png"):
        assert f"{photos / name}: " in printed.out and str(out / name) in printed.out
    (photos / "photo0.jpg").write_bytes((photos / "photo0.png").read_bytes())
    with pytest.raises(SystemExit):
        main(["predict", str(checkpoint), str(photos), "--out", str(out)])
    assert "would both write photo0.png" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["same", "file"])
def test_predict_overwrites_no_photo(folder, tmp_path, capsys, place):
    checkpoint, photo = tmp_path / "m.safetensors", tmp_path / "photo.png"
    save_checkpoint(lively_detector().float(), checkpoint)
    content = (folder / "photo0.png").read_bytes()
    photo.write_bytes(content)
    out = tmp_path if place == "same" else photo
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(checkpoint), str(photo), "--out", str(out)])
    assert stop.value.code == 2 and "give another --out" in capsys.readouterr().err
    assert photo.read_bytes() == content


@pytest.mark.parametrize("suffix", [".json", ".png"])
def test_predict_overwrites_nothing_that_lies_beside_a_photo(folder, tmp_path, capsys, suffix):
    """Some tools keep an annotation as cat.json beside cat.jpg."""
    checkpoint, photo = tmp_path / "m.safetensors", tmp_path / "photo.jpg"
    save_checkpoint(lively_detector().float(), checkpoint)
    photo.write_bytes((folder / "photo0.png").read_bytes())
    photo.with_suffix(suffix).write_text("mine")
    with pytest.raises(SystemExit):
        main(["predict", str(checkpoint), str(photo), "--out", str(tmp_path)])
    assert f"photo{suffix}: would be written over" in capsys.readouterr().err
    assert photo.with_suffix(suffix).read_text() == "mine"
