import json

import numpy as np
import pytest

from als.errors import InputError
from als.explain.map_measures import coverage, entropy, gini, head_focus, peak_on_head
from als.study.cases import Animal, head_disc, match_animal, read_animals

MASK = np.array([[True, True, True, True], [False] * 4])
MAP = np.array([[4.0, 2, 1, 1], [8, 0, 0, 0]])
HEAD = np.array([[True, True, False, False], [True, False, False, False]])


def test_coverage_by_hand():
    assert coverage(MAP, MASK) == 1 / 4  # only 4 reaches half of 8
    assert coverage(MAP, MASK, threshold=0.25) == 2 / 4
    assert coverage(np.ones((2, 4)), MASK) == 1


def test_entropy_by_hand():
    # p = 1/2, 1/4, 1/8, 1/8: 1.75 bits of 2
    assert entropy(MAP, MASK) == pytest.approx(1.75 / 2)
    assert entropy(np.ones((2, 4)), MASK) == pytest.approx(1)
    assert entropy(np.eye(2, 4), MASK) == 0
    assert entropy(5 * MAP, MASK) == pytest.approx(entropy(MAP, MASK))


def test_gini_by_hand():
    # Ascending 1, 1, 2, 4: (-3 - 1 + 2 + 12) / (4 x 8)
    assert gini(MAP, MASK) == pytest.approx(10 / 32)
    assert gini(np.ones((2, 4)), MASK) == pytest.approx(0)
    assert gini(np.eye(2, 4), MASK) == pytest.approx(3 / 4)


def test_head_focus_by_hand():
    assert head_focus(MAP, HEAD, MASK) == pytest.approx(3 / 2)  # (4 + 2) / 2 over 8 / 4
    assert head_focus(np.ones((2, 4)), HEAD, MASK) == 1


def test_peak_on_head_by_hand():
    assert peak_on_head(MAP, HEAD, MASK) == (1, 0.5)  # the 8 is not on the object
    assert peak_on_head(MAP[:, ::-1], HEAD, MASK) == (0, 0.5)
    assert peak_on_head(np.ones((2, 4)), HEAD, MASK) == (0.5, 0.5)


def test_values_below_zero_on_the_object_count_as_zero():
    none, below = (np.where(HEAD & MASK, value, MAP) for value in (0.0, -9.0))
    for measure in (coverage, entropy, gini):
        assert measure(below, MASK) == measure(none, MASK), measure
    assert head_focus(below, HEAD, MASK) == 0
    below[0, 2:] = -1
    assert np.isnan(gini(below, MASK)) and np.isnan(entropy(below, MASK)), "nothing is left"


def test_an_object_of_one_pixel_is_even():
    pixel = np.array([[True] + [False] * 3, [False] * 4])
    assert entropy(MAP, pixel) == 1 and gini(MAP, pixel) == 0


def test_a_random_peak_hits_at_the_chance_rate():
    rng = np.random.default_rng(0)
    mask, head = np.ones((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
    head[:5, :6] = True
    pairs = np.array([peak_on_head(rng.random((10, 10)), head, mask) for _ in range(500)])
    assert pairs[0, 1] == 0.3 and pairs[:, 0].mean() == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("map, mask", [(MAP * 0, MASK), (MAP, MASK & False)])
def test_nothing_to_measure_is_not_a_number(map, mask):
    for measure in (coverage, entropy, gini):
        assert np.isnan(measure(map, mask))
    assert np.isnan(head_focus(map, HEAD, mask))
    assert np.isnan(peak_on_head(map, HEAD, mask)).all()


def test_head_disc_by_hand():
    box = np.array([0, 0, 40, 40], dtype=np.float32)
    keypoints = {"left_eye": (10, 10), "right_eye": (30, 10), "tailbase": (0, 39)}
    disc = head_disc(Animal("cat", box, keypoints), (40, 50))
    y, x = np.nonzero(disc)  # centre (20, 10), radius 10
    assert (x.min(), x.max(), y.min(), y.max()) == (10, 29, 0, 19)
    assert disc.sum() == pytest.approx(np.pi * 100, rel=0.02)
    # A nose moves the centre to (20, 12); the eyes are the farthest, at 10.2.
    disc = head_disc(Animal("cat", box, keypoints | {"nose": (20, 16)}), (40, 50))
    y, x = np.nonzero(disc)
    assert (x.min(), x.max(), y.min(), y.max()) == (10, 29, 2, 21)
    # One point: the radius is 0.15 of the box's side, 6.
    single = head_disc(Animal("cat", box, {"nose": (20, 20)}), (40, 50))
    assert single.sum() == pytest.approx(np.pi * 36, rel=0.05) and single[20, 25]
    assert head_disc(Animal("cat", box, {"tailbase": (5, 5)}), (40, 50)) is None


def test_animals_are_matched_by_class_and_overlap():
    animals = [
        Animal("cat", np.array([0, 0, 10, 10]), {}),
        Animal("cat", np.array([1, 0, 11, 10]), {}),
        Animal("dog", np.array([1, 0, 11, 10]), {}),
    ]
    assert match_animal(animals, [1, 0, 11, 10], "cat") is animals[1]
    assert match_animal(animals, [0, 0, 10, 11], "cat") is animals[0]
    assert match_animal(animals, [0, 0, 10, 10], "dog") is animals[2]
    assert match_animal(animals, [0, 0, 4, 10], "cat") is None
    assert match_animal(animals, [50, 50, 60, 60], "cat") is None


def test_read_animals_of_the_toy_set(toy_root):
    files = list(toy_root.glob("**/animal_keypoints.json"))
    assert len(files) == 1
    animals = read_animals(files[0])
    some = [a for of_image in animals.values() for a in of_image]
    assert len(some) > 10
    for animal in some:
        disc = head_disc(animal, (500, 500))
        assert disc is not None and disc.any()
        assert match_animal([animal], animal.box, animal.name) is animal


def test_read_animals_of_the_photographs(shared_voc):
    animals = read_animals(shared_voc / "VOC2012" / "Keypoints" / "animal_keypoints.json")
    some = [a for of_image in animals.values() for a in of_image]
    headless = sum(head_disc(animal, (1, 1)) is None for animal in some)
    assert len(animals) == 3308 and 0 < headless < 0.1 * len(some)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"a": [{"name": "cat"}]}'),
        '{"a": [{"name": "c", "bbox": [1], "keypoints": {}}]}',
        '{"a": [{"name": "c", "bbox": [0, 0, NaN, 9], "keypoints": {}}]}',
        '{"a": [{"name": "c", "bbox": [0, 0, 9, 9], "keypoints": null}]}',
        '{"a": [{"name": "c", "bbox": [0, 0, 9, 9], "keypoints": {"nose": [1]}}]}',
        '{"a": [{"name": "c", "bbox": [0, 0, 9, 9], "keypoints": {"nose": [NaN, 1]}}]}',
    ],
)
def test_broken_keypoints_are_one_sentence(tmp_path, text):
    path = tmp_path / "animal_keypoints.json"
    with pytest.raises(InputError, match="no keypoints"):
        read_animals(path)
    path.write_text(text)
    with pytest.raises(InputError, match="not a keypoints file"):
        read_animals(path)
    path.write_text(json.dumps({}))
    assert read_animals(path) == {}
