"""How towers cut images: sizes that fit, others, and those that are refused."""

import pytest

from clip.load import load_clip
from clip.regions import check_image_size, is_resnet, native_grid, region_size
from clip.weights import WeightsError


@pytest.fixture(scope="module", params=["ViT-tiny-8", "RN-tiny"])
def visual(request):
    return load_clip(request.param, "random").visual


def test_a_tower_is_a_resnet_or_not(visual):
    assert is_resnet(visual) == (type(visual).__name__ == "ModifiedResNet")


def test_regions_are_patches_or_positions_of_the_last_stage(visual):
    found = region_size(visual), native_grid(visual)
    assert found == (((32, 32), (2, 2)) if is_resnet(visual) else ((8, 8), (4, 4)))


def test_the_size_a_tower_was_made_for_passes_silently(visual):
    (height, width), (rows, columns) = region_size(visual), native_grid(visual)
    check_image_size(visual, (height * rows, width * columns))


def test_another_size_is_warned_of_with_both_grids(visual):
    (height, width), (rows, columns) = region_size(visual), native_grid(visual)
    with pytest.warns(UserWarning, match=f"from {rows} x {columns} to 5 x 3 regions"):
        check_image_size(visual, (5 * height, 3 * width))


@pytest.mark.parametrize("more", [(0, 1), (1, 0)])
def test_a_size_that_regions_do_not_cover_is_refused(visual, more):
    side, _ = region_size(visual)
    with pytest.raises(WeightsError, match=f"cannot be cut into regions of {side} x {side}; change INPUT.SIZE_TRAIN"):
        check_image_size(visual, (4 * side + more[0], 4 * side + more[1]))
