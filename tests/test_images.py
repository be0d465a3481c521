"""Photos of every kind become upright RGB, or are refused with one sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from als import images
from als.errors import InputError
from als.images import Photo, as_rgb, exif_orientation, image_size, photo_of, reduced, stretch_thin

QUADRANTS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [255, 0, 255]]],
    dtype=np.uint8,
)  # 2 rows, 3 columns: no rotation or mirroring leaves it as it is


def photo(scale: int = 8) -> Image.Image:
    return Image.fromarray(QUADRANTS.repeat(scale, 0).repeat(scale, 1))


def refused(tmp_path, name: str, content: bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        as_rgb(path)
    message = str(error.value)
    assert name in message and "\n" not in message and message.endswith(".")
    return message


# How a camera stores the upright photo for each value of the EXIF tag (JEITA CP-3451).
STORED = {
    1: QUADRANTS,
    2: QUADRANTS[:, ::-1],
    3: QUADRANTS[::-1, ::-1],
    4: QUADRANTS[::-1],
    5: QUADRANTS.transpose(1, 0, 2),
    6: np.rot90(QUADRANTS, 1),
    7: QUADRANTS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(QUADRANTS, -1),
}


@pytest.mark.parametrize("mode", ["L", "RGBA"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_tiff_on_its_side_is_turned_in_every_mode(tmp_path, mode, orientation):
    grey = Image.fromarray(np.arange(2400).reshape(40, 60).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey.convert(mode).save(tmp_path / "a.tif", exif=exif)
    expected = np.asarray(grey.transpose(images.TURNS[orientation]).convert("RGB"))
    np.testing.assert_array_equal(as_rgb(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_once(tmp_path, orientation, suffix):
    exif, path = Image.Exif(), tmp_path / f"a.{suffix}"
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(path, exif=exif)
    upright = as_rgb(path)
    assert np.array_equal(np.asarray(upright), QUADRANTS)
    assert np.array_equal(np.asarray(as_rgb(upright)), QUADRANTS)
    assert image_size(path) == (2, 3)


def test_the_size_is_read_from_the_header_and_broken_exif_says_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(80).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:-200])
    assert image_size(tmp_path / "cut.jpg") == (240, 160)
    photo(80).save(tmp_path / "turned.png", exif=exif)
    content = (tmp_path / "turned.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: content.index(b"IDAT") + 4])
    assert image_size(tmp_path / "cut.png") == (240, 160)
    pixels, end = content.index(b"eXIf") - 4, content.index(b"IEND") - 4
    exif_length = int.from_bytes(content[pixels : pixels + 4], "big") + 12
    chunk, rest = content[pixels : pixels + exif_length], content[pixels + exif_length : end]
    (tmp_path / "late.png").write_bytes(content[:pixels] + rest + chunk + content[end:])
    assert as_rgb(tmp_path / "late.png").size == (160, 240)
    assert image_size(tmp_path / "late.png") == (240, 160)
    assert exif_orientation(tmp_path / "late.png") == 6
    photo().save(tmp_path / "broken.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert image_size(tmp_path / "broken.jpg") == (16, 24)
    assert as_rgb(tmp_path / "broken.jpg").size == (24, 16)
    with pytest.raises(InputError, match=f"^{tmp_path}/none.jpg: no such file"):
        image_size(tmp_path / "none.jpg")


def test_orientation_of_a_pil_image_is_applied_too():
    image = Image.fromarray(np.ascontiguousarray(np.rot90(QUADRANTS, 1)))
    image.getexif()[0x0112] = 6
    assert as_rgb(image).size == (3, 2)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(as_rgb(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 100, 255]


def test_transparent_sixteen_bit_grey_is_laid_on_white(tmp_path):
    grey = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    grey.save(tmp_path / "a.png", transparency=0)
    assert np.asarray(as_rgb(tmp_path / "a.png"))[0, :, 0].tolist() == [255, 100, 255]


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match="8 bit"):
        as_rgb(tmp_path / "a.tiff")


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 128]]], np.uint8)
    expected = [[255, 255, 255], [255, 0, 0], [127, 127, 127]]
    assert np.asarray(as_rgb(rgba))[0].tolist() == expected
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "a.png", transparency=0)
    assert np.asarray(as_rgb(tmp_path / "a.png"))[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_cmyk_jpeg(tmp_path):
    photo().convert("CMYK").save(tmp_path / "a.jpg", quality=95, subsampling=0)
    image = as_rgb(tmp_path / "a.jpg")
    assert image.mode == "RGB"
    # Exactly the stored primaries: ink was not inverted and not left as four channels.
    assert np.abs(np.asarray(image).astype(int) - np.asarray(photo())).mean() < 12


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        opened.seek(1)  # of an image that the caller has moved on it is the frame that shows
        red, _, blue = as_rgb(opened).getpixel((8, 8))
        assert opened.tell() == 1
    assert blue > 240 and red < 15
    assert as_rgb(tmp_path / f"a.{suffix}").getpixel((8, 8))[0] > 240


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_thin_images(shape):
    assert as_rgb(np.zeros(shape, np.uint8)).size == shape[::-1]


def test_grey_bilevel_and_palette(tmp_path):
    assert as_rgb(np.full((2, 2), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert as_rgb(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([1, 2, 3, 40, 50, 60])
    palette.save(tmp_path / "a.png")
    assert as_rgb(tmp_path / "a.png").getpixel((0, 0)) == (40, 50, 60)


def test_the_callers_image_is_not_shared():
    image = photo()
    as_rgb(image).putpixel((0, 0), (9, 9, 9))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_too_many_pixels_are_refused_from_the_header(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    photo().save(path)
    header_only = path.read_bytes()[:41]  # signature, IHDR with the size, and no pixel
    path.write_bytes(header_only)
    with pytest.raises(InputError, match="damaged"):
        as_rgb(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 16 - 1)
    with pytest.raises(InputError, match="24 x 16 pixels are over"):  # the size is judged first
        as_rgb(path)


def test_an_absurd_header_is_refused(tmp_path):
    photo().save(tmp_path / "a.gif")
    content = bytearray((tmp_path / "a.gif").read_bytes())
    content[6:10] = b"\xff\xff\xff\xff"  # 65535 x 65535, over Pillow's own limit
    assert "megapixels" in refused(tmp_path, "bomb.gif", bytes(content))


def test_files_that_are_no_photos(tmp_path):
    photo(40).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    assert "JPEG" in refused(tmp_path, "notes.jpg", b"just some text\n" * 20)
    assert "cut short" in refused(tmp_path, "half.jpg", whole[: len(whole) // 2])
    assert "empty" in refused(tmp_path, "nothing.png", b"")
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 100
    assert "HEIC" in refused(tmp_path, "phone.heic", heic)
    with pytest.raises(InputError, match="no such file"):
        as_rgb(tmp_path / "absent.jpg")
    with pytest.raises(InputError, match="is a folder; give a photo"):
        as_rgb(tmp_path)
    for given in (torch.zeros(3, 8, 8), b"bytes", None):
        with pytest.raises(InputError, match=f"a {type(given).__name__} is no photo; give a path"):
            as_rgb(given)


@pytest.mark.parametrize("kind", ["EPS", "PPM", "TGA", "PCX", "JPEG2000", "ICO"])
def test_only_the_formats_that_the_sentence_names_are_opened(tmp_path, kind):
    photo().save(tmp_path / "a.bin", format=kind)
    with pytest.raises(InputError, match="a JPEG, PNG, WebP, GIF, BMP or TIFF file"):
        as_rgb(tmp_path / "a.bin")


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_each_of_these_formats_is_opened(tmp_path, kind):
    more = {"save_all": True, "append_images": [photo(8)]} if kind == "MPO" else {}
    photo(8).save(tmp_path / "a.bin", format=kind, **more)
    assert as_rgb(tmp_path / "a.bin").size == image_size(tmp_path / "a.bin")[::-1] == (24, 16)


def test_a_refusal_calls_the_image_what_it_is_told_to(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    for given, says in (({}, "a.jpg"), ({"name": str(tmp_path / "a.jpg")}, f"{tmp_path}/a.jpg")):
        with pytest.raises(InputError, match=f"^{says}: not an image"):
            as_rgb(tmp_path / "a.jpg", **given)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_arrays_that_are_no_photos(array):
    with pytest.raises(InputError, match="uint8"):
        as_rgb(array)


def test_a_large_photo_is_reduced_by_averaging():
    stripes = np.zeros((8, 4000), np.uint8)
    stripes[:, ::2] = 200  # reading every tenth pixel would see one colour
    small = reduced(as_rgb(stripes), 400)
    assert small.size == (400, 1)
    assert np.abs(np.asarray(small).astype(int) - 100).max() <= 1
    same = as_rgb(stripes)
    assert reduced(same, 4000) is same


@pytest.mark.parametrize("size", [(1200, 1800), (300, 200), (1, 5000), (90, 7), (1, 1)])
def test_a_photo_is_the_same_from_an_image_and_from_a_tensor(size):
    """And to the last bit what prediction always made of it."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    array = torch.from_numpy(np.array(reduced(image, 2 * 512))).permute(2, 0, 1)
    expected = stretch_thin(array.float() / 255, 512)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    for given in (image, pixels, pixels.float() / 255):
        photo = photo_of(given, 512)
        assert isinstance(photo, Photo) and photo.size == size
        assert photo.pixels.dtype == torch.float32 and torch.equal(photo.pixels, expected)
    shorter, longer = sorted(photo.pixels.shape[1:])
    assert longer <= 2 * 512 and shorter * 512 / longer >= 16


def test_a_map_is_shrunk_as_its_photo_is():
    ramp = torch.linspace(0, 1, 1300)[None, None].expand(1, 40, -1)
    small = photo_of(ramp, 512)
    assert small.size == (40, 1300) and small.pixels.shape == (1, 32, 1024)
    assert (small.pixels[0, 0] - torch.linspace(0, 1, 1024)).abs().max() < 1.01 / 255


def test_a_name_too_long_for_a_file_is_said_so():
    with pytest.raises(InputError, match="no such file"):
        as_rgb("x" * 300 + ".jpg")


def test_a_crop_of_no_pixels_is_refused():
    with pytest.raises(InputError, match="image: 0 x 20 pixels show nothing"):
        as_rgb(photo().crop((10, 10, 10, 30)))
