"""What tests of the towers share: small random ones."""

import pytest
import torch

from clip.load import load_clip


@pytest.fixture(scope="module")
def towers():
    towers = load_clip("ViT-tiny-8", "random", seed=1)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for parameter in towers.text.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # open_clip starts biases at zero
    return towers


@pytest.fixture(autouse=True)
def towers_drawn_once() -> None:
    """Here every CLIP is built anew."""
