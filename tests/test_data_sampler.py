"""The order of an epoch: complete, grouped, shared fairly, and the same again."""

from pathlib import Path

import numpy as np
import pytest

from als.data.record import Record
from als.data.sampler import AspectBatchSampler, repeat_factors
from als.errors import InputError


def records(landscape: int, portrait: int) -> list[Record]:
    """Landscape first, then portrait."""
    sizes = [(3, 4)] * landscape + [(4, 3)] * portrait
    return [Record(str(i), Path(), size, *[np.zeros(0)] * 3, None) for i, size in enumerate(sizes)]


def indices(sampler: AspectBatchSampler) -> list[list[int]]:
    return [[index for index, _ in batch] for batch in sampler]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize(("landscape", "portrait"), [(17, 9), (12, 8), (0, 13), (11, 3), (6, 6)])
def test_every_epoch_has_the_same_exact_length_and_nothing_twice(
    landscape, portrait, replicas, drop_last
):
    size = 4
    images = records(landscape, portrait)
    samplers = [
        AspectBatchSampler(images, size, 0, True, replicas, rank, drop_last)
        for rank in range(replicas)
    ]
    for epoch in range(5):
        batches = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            mine = indices(sampler)
            assert len(mine) == len(sampler) == len(samplers[0])
            batches += mine
        drawn = [index for batch in batches for index in batch]
        if drop_last:
            assert all(len(batch) == size for batch in batches)
            assert len(set(drawn)) == len(drawn)
            assert len(batches) == len(images) // size // replicas * replicas
        else:
            assert set(drawn) == set(range(len(images)))
            if replicas == 1:
                assert len(drawn) == len(images)


def test_batches_hold_one_orientation_but_for_one():
    for seed in range(10):
        batches = indices(AspectBatchSampler(records(18, 10), 4, seed))
        mixed = [batch for batch in batches if 0 < sum(i < 18 for i in batch) < 4]
        assert len(batches) == 7 and len(mixed) <= 1


def test_the_epoch_is_a_function_of_seed_and_epoch_alone():
    images = records(20, 10)

    def epoch(seed: int, number: int) -> list:
        sampler = AspectBatchSampler(images, 2, seed)
        sampler.set_epoch(number)
        return list(sampler)

    sampler = AspectBatchSampler(images, 2, 7)
    for number in (0, 1, 0):
        sampler.set_epoch(number)
        assert list(sampler) == list(sampler) == epoch(7, number)
    different = [epoch(7, 0), epoch(7, 1), epoch(8, 0)]
    assert all(a != b for i, a in enumerate(different) for b in different[:i])


def test_a_batch_shares_a_seed_that_no_other_batch_has():
    sampler = AspectBatchSampler(records(20, 10), 2, 7)
    seeds = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for batch in sampler:
            (seed,) = {seed for _, seed in batch}
            seeds.append(seed)
    assert len(set(seeds)) == len(seeds) == 45


def test_batch_order_is_mixed_between_the_orientations():
    kinds = [batch[0] < 40 for batch in indices(AspectBatchSampler(records(40, 40), 2, 0))]
    changes = sum(a != b for a, b in zip(kinds, kinds[1:], strict=False))
    assert changes > 5  # one after the other would be a single change


def test_skipping_leaves_out_the_first_batches_once():
    sampler = AspectBatchSampler(records(20, 10), 2, 0)
    whole = list(sampler)
    sampler.skip_batches = 4
    assert len(sampler) == len(whole) == 15
    assert list(sampler) == whole[4:]
    assert list(sampler) == whole


def test_without_shuffling_the_records_come_in_order():
    sampler = AspectBatchSampler(records(4, 3), 1, 0, shuffle=False)
    assert indices(sampler) == [[i] for i in range(7)]
    sampler.set_epoch(3)
    assert indices(sampler) == [[i] for i in range(7)]


def test_too_few_images_for_a_batch_is_said():
    with pytest.raises(InputError, match="3 images do not fill a batch of 4"):
        AspectBatchSampler(records(3, 0), 4, 0)
    with pytest.raises(InputError):
        AspectBatchSampler([], 1, 0, drop_last=False)


def shown(*classes: list[int]) -> list[Record]:
    """Records with objects of these labels, every third in portrait."""
    return [
        Record(
            str(i), Path(), (4, 3) if i % 3 else (3, 4), np.zeros(0), np.array(own, int), None, None
        )
        for i, own in enumerate(classes)
    ]


def test_an_image_repeats_as_its_rarest_class_asks():
    # Class 1 in 8 of 10 images, class 2 in 2, class 3 in 1: sqrt(0.4 / 0.2), sqrt(0.4 / 0.1).
    images = shown(*[[1]] * 6, [1, 1], [1, 2, 2], [2, 3], [])
    factors = repeat_factors(images, 0.4)
    np.testing.assert_allclose(factors, [1] * 7 + [2**0.5, 2, 1])
    assert (repeat_factors(images, 0) == 1).all() and len(repeat_factors([], 0.5)) == 0


@pytest.mark.parametrize("replicas", [1, 3])
def test_an_epoch_repeats_rare_images_and_keeps_its_length(replicas):
    images = shown(*[[1]] * 30, *[[2]] * 6, *[[3]] * 3)
    factors = repeat_factors(images, 0.5)
    samplers = [
        AspectBatchSampler(images, 2, 5, True, replicas, rank, repeats=factors)
        for rank in range(replicas)
    ]
    drawn, epochs = np.zeros(len(images)), 400
    for epoch in range(epochs):
        count = np.zeros(len(images), int)
        for sampler in samplers:
            sampler.set_epoch(epoch)
            mine = indices(sampler)
            assert len(mine) == len(sampler) == int(factors.sum()) // (2 * replicas)
            np.add.at(count, np.concatenate(mine), 1)
        assert (count <= np.ceil(factors)).all()
        drawn += count
    share = drawn / drawn.sum() * factors.sum()  # what did not fill a batch was left out
    np.testing.assert_allclose(share, factors, rtol=0.1)
