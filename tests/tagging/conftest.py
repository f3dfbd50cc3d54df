"""A small calibrated RAM."""

import pytest
import torch

from configs import load_config
from model import build_method, load_towers
from tagging import Tagger
from tagging.calibration import fit
from tagging.evidence import RegionEvidence
from tagging.portable import Parts

SEEN = ("cat", "cup", "dog", "tree", "traffic light", "sofa")


def _config(*more):
    return load_config("configs/tiny.yml", ["MODEL.TEMPERATURE", "auto", *more])


def _ram(cfg):
    torch.manual_seed(3)
    ram = build_method(cfg, load_towers(cfg), seen=len(SEEN)).eval()
    with torch.no_grad():
        for parameter in ram.adapter.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return ram


@pytest.fixture(scope="session")
def config():
    """The configuration of tests, with other values for some keys."""
    return _config


@pytest.fixture(scope="session")
def ram():
    """A RAM with random weights, in evaluation mode."""
    return _ram(_config()).requires_grad_(False)


@pytest.fixture(scope="session")
def parts(ram):
    """The parts of a tagger of it, whose calibration was fitted on images of noise."""
    generator = torch.Generator().manual_seed(0)
    evidence = RegionEvidence(ram, SEEN)
    gallery = evidence.gallery(torch.randn(40, 3, 32, 32, generator=generator))
    numbers = evidence.ask(gallery, evidence.labels(SEEN)).numbers
    noise = torch.randn(40, 6, generator=generator)
    targets = (numbers[..., 7] / numbers[..., 7].std() + noise > 0.5).float()
    calibration = fit(numbers, targets, torch.rand(40, 6, generator=generator), SEEN)
    towers = load_towers(_config())
    state = {name: value.clone() for name, value in ram.trained_state().items()}
    return Parts(_config().dump(), state, SEEN, ("sun",), {}, towers.identity, calibration.state())


@pytest.fixture(scope="session")
def tagger(parts):
    """A calibrated tagger."""
    return Tagger(parts, batch=2)
