"""What tests of models share: small random towers."""

import pytest

from clip.load import load_clip


@pytest.fixture(scope="module")
def towers():
    return load_clip("ViT-tiny-8", "random", seed=1)
