"""Broken files: a training refuses them before it starts, or names or counts them later."""

from dataclasses import replace

import pytest
from training_toys import QUIET, break_image, config_of

from als.data.toy import write_toy
from als.errors import InputError
from als.training.train import train

pytestmark = pytest.mark.usefixtures("no_warnings")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_later_stops_with_its_name_or_is_skipped(tmp_path, capsys, workers):
    root = tmp_path / "data"
    write_toy(root, images=12)
    config = config_of(root, tmp_path / "run", epochs=1)
    config = replace(config, data=replace(config.data, workers=workers))
    broken = break_image(root, 0)
    with pytest.raises(InputError) as error:
        train(config, **QUIET)
    assert str(error.value).startswith(str(broken)) and "\n" not in str(error.value)

    skipping = replace(
        config, out=str(tmp_path / "skip"), data=replace(config.data, skip_broken=True)
    )
    train(skipping, **QUIET)
    assert "1 samples could not be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("</annotation>", "", "the XML cannot be read"),
        ("<name>circle</name>", "<name>cirlce</name>", "class 'cirlce' is not known"),
        ("<xmax>", "<xmax>9", "lies outside the image"),
    ],
)
def test_a_broken_annotation_stops_before_the_start_or_is_counted(tmp_path, capsys, old, new, says):
    root = tmp_path / "data"
    write_toy(root, images=12, size=(64, 80))
    folder = root / "VOC2012"
    ids = (folder / "ImageSets" / "Main" / "train.txt").read_text().split()
    files = [folder / "Annotations" / f"{image_id}.xml" for image_id in ids]
    broken = next(file for file in files if old in file.read_text())
    broken.write_text(broken.read_text().replace(old, new, 1))

    config = config_of(root, tmp_path / "run", epochs=1)
    with pytest.raises(InputError) as error:
        train(config, **QUIET)
    assert str(error.value).startswith(f"{broken}: ") and says in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists(), "nothing was started"

    train(replace(config, data=replace(config.data, skip_broken=True)), **QUIET)
    told = capsys.readouterr().out
    assert f"1 broken files are left out; the first: {broken}: " in told and says in told


def test_validation_images_that_break_later_are_counted(tmp_path, capsys):
    root = tmp_path / "data"
    write_toy(root, images=12, size=(64, 80))
    split = (root / "VOC2012" / "ImageSets" / "Main" / "val.txt").read_text().split()
    broken = root / "VOC2012" / "JPEGImages" / f"{split[0]}.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    judged = []

    def judge(found, records, classes):
        judged.append([record.image_id for record in records])
        return {"AP50": 0.5}

    config = config_of(root, tmp_path / "run", epochs=1, val="VOC2012:val", skip_broken=True)
    train(config, judge=judge, **QUIET)
    assert judged == [split[1:]]
    assert "1 validation images could not be read" in capsys.readouterr().out
