"""Photos of every kind become upright RGB, or are refused with one sentence."""

import numpy as np
import pytest
from PIL import Image

from als.errors import InputError
from als.images import as_rgb, reduced

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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    # How a camera stores the upright photo for each value of the EXIF tag (JEITA CP-3451).
    stored = {
        1: QUADRANTS,
        2: QUADRANTS[:, ::-1],
        3: QUADRANTS[::-1, ::-1],
        4: QUADRANTS[::-1],
        5: QUADRANTS.transpose(1, 0, 2),
        6: np.rot90(QUADRANTS, 1),
        7: QUADRANTS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(QUADRANTS, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(as_rgb(tmp_path / "a.png")), QUADRANTS)


def test_orientation_of_a_pil_image_is_applied_too():
    image = Image.fromarray(np.ascontiguousarray(np.rot90(QUADRANTS, 1)))
    image.getexif()[0x0112] = 6
    assert as_rgb(image).size == (3, 2)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(as_rgb(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 100, 255]


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
        opened.seek(1)  # also where the caller has moved on
        red, _, blue = as_rgb(opened).getpixel((8, 8))
    assert red > 240 and blue < 15
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


def test_too_many_pixels_are_refused_from_the_header(tmp_path):
    path = tmp_path / "a.png"
    photo().save(path)
    header_only = path.read_bytes()[:41]  # signature, IHDR with the size, and no pixel
    path.write_bytes(header_only)
    with pytest.raises(InputError, match="24 x 16 pixels are over"):
        as_rgb(path, max_pixels=24 * 16 - 1)
    with pytest.raises(InputError, match="damaged"):  # so the size was judged first
        as_rgb(path, max_pixels=24 * 16)


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
