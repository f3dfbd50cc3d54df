import warnings
from types import SimpleNamespace

import pytest

from engine.broken import warn_of_broken_images


def test_images_left_out_and_images_read_in_part_are_counted_and_the_first_are_named():
    loader = SimpleNamespace(skipped=["b.jpg", "a.jpg"], truncated=[f"{i}.png" for i in (5, 1, 4, 2, 3)])
    with pytest.warns(UserWarning, match="training") as caught:
        warn_of_broken_images(loader, "training images")
    assert [str(warning.message) for warning in caught] == [
        "training images without 2 unreadable images: a.jpg, b.jpg",
        "training images with 5 image files that are cut short, each used as far as it goes: 1.png, 2.png, 3.png and "
        "2 more",
    ]


@pytest.mark.parametrize("loader", [[], SimpleNamespace(skipped=[], truncated=[])])
def test_nothing_is_said_of_whole_images(loader):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_broken_images(loader, "training images")
