"""How well maps point at objects: examples with known answers, and other ways to the same numbers."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from tagging.localisation import ROWS, contrast, located, maps_of, on_grid
from tagging.maps import FEATURES, PLANS, Views

GRID = (2, 3)  # regions of 4 x 4 pixels


def mask(rows, columns):
    """An object of 8 x 12 pixels."""
    shown = torch.zeros(1, 8, 12)
    shown[:, rows, columns] = 1
    return shown


def one(found):
    return {name: float(value) for name, value in found._asdict().items()}


def hot(*regions):
    return torch.tensor([[1.0 if k in regions else 0.0 for k in range(6)]])


def test_regions_show_the_share_of_an_object_in_them():
    shown = on_grid(mask(slice(0, 4), slice(2, 8)), GRID)
    assert shown.tolist() == [[0.5, 1.0, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("region", "hit"), [(0, 1.0), (1, 1.0), (2, 0.0), (4, 0.0)])
def test_a_map_points_at_an_object_of_which_its_highest_region_shows_any(region, hit):
    assert one(located(hot(region), mask(slice(0, 4), slice(3, 8)), GRID))["pointing"] == hit


def test_of_equal_regions_the_share_that_hits_counts():
    maps = torch.tensor([[0.9, 0.9, 0.9, 0.1, 0.9, 0.2]])
    assert one(located(maps, mask(slice(0, 4), slice(0, 4)), GRID))["pointing"] == 0.25


def test_a_constant_map_has_the_object_s_share_of_the_picture():
    found = one(located(torch.full((1, 6), 0.3), mask(slice(0, 4), slice(0, 6)), GRID))
    assert found == {"pointing": pytest.approx(2 / 6), "iou": pytest.approx(0.25), "mass": pytest.approx(0.25)}


def test_the_mass_on_the_object_is_weighted_by_what_regions_show_of_it():
    maps = torch.tensor([[0.5, 0.2, 0.0, 0.3, 0.0, 0.0]])
    found = one(located(maps, mask(slice(0, 4), slice(2, 8)), GRID))  # shares 1/2 and 1 of the first regions
    assert found["mass"] == pytest.approx((0.5 * 0.5 + 0.2 * 1.0) / 1.0)


def test_overlap_is_that_of_a_map_interpolated_between_the_centres_of_regions():
    generator = torch.Generator().manual_seed(3)
    maps, masks = torch.rand(5, 6, generator=generator), (torch.rand(5, 8, 12, generator=generator) > 0.6).float()
    found = located(maps, masks, GRID)
    for values, shown, iou in zip(maps.reshape(5, 2, 3).numpy(), masks.numpy(), found.iou, strict=True):
        wide = np.stack([np.interp(np.arange(12) + 0.5, [2, 6, 10], row) for row in values])
        fine = np.stack([np.interp(np.arange(8) + 0.5, [2, 6], column) for column in wide.T], 1)
        inside = fine >= fine.max() / 2
        assert float(iou) == pytest.approx((inside & (shown > 0)).sum() / (inside | (shown > 0)).sum())


def test_stretching_makes_a_map_with_an_offset_what_it_is_without():
    maps, shown = torch.tensor([[0.0, 1.0, 0.4, 0.0, 0.1, 0.0]]), mask(slice(0, 4), slice(4, 8))
    assert one(located(7 + maps / 5, shown, GRID, stretch=True)) == pytest.approx(one(located(maps, shown, GRID)))
    assert one(located(7 + maps / 5, shown, GRID))["mass"] < one(located(maps, shown, GRID))["mass"]


def test_the_object_itself_is_pointed_at_whatever_its_place():
    masks = torch.stack([mask(slice(r, r + 3), slice(c, c + 3))[0] for r in range(5) for c in range(9)])
    found = located(on_grid(masks, GRID), masks, GRID)
    assert found.pointing.min() == 1


def test_contrast_is_the_statistic_of_mann_and_whitney():
    generator = torch.Generator().manual_seed(1)
    peaks = torch.randint(0, 20, (30, 7), generator=generator).float()  # with ties
    present = torch.rand(30, 7, generator=generator) < 0.3
    expected = mannwhitneyu(peaks[present].numpy(), peaks[~present].numpy()).statistic
    assert contrast(peaks, present) == pytest.approx(expected / (present.sum() * (~present).sum()).item())


def test_contrast_of_equal_peaks_is_a_half():
    assert contrast(torch.ones(2, 2), torch.eye(2).bool()) == 0.5


def test_every_row_is_the_map_that_its_name_says():
    values = iter(range(10))
    groups = [{name: torch.tensor(next(values)) for name in names} for names in (FEATURES, FEATURES, PLANS)]
    found = maps_of(Views(None, groups[0], groups[1], None, groups[2], GRID))
    assert [*found] == [*ROWS]
    assert found["cosines, CLIP"] == 0
    assert found["affinity, SAA + TSS"] == 5
    assert found["plan, KCOT"] == 9
