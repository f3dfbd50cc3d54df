"""Tagging beside the bare image tower of open_clip; one picture and very many labels."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from configs import load_config
from datasets import shapes
from model import build_method, load_towers
from tagging import Tagger
from tagging.calibration import fit
from tagging.evidence import NAMES, Asked
from tagging.portable import Parts
from tools.benchmarking.comparing import MEMORY, TIME
from tools.benchmarking.measuring import Measurement, Setting, in_turn, peak
from tools.benchmarking.models import BASE, ROOT, SMALL, Model

__all__ = ["MANY", "MODELS", "measure", "random_asked", "untrained"]

MODELS = (SMALL, BASE)
MANY = (1_000, 100_000)  # labels that one picture is asked for
BARE, TAG, INDEX = "bare image tower", "tag", "index"


def measure(setting: Setting) -> Iterator[Measurement]:
    """Tagging with 65 encoded labels; one picture and many."""
    for model in MODELS[:1] if setting.quick else MODELS:
        made = untrained(model, setting.device)
        yield from beside_the_tower(model, made, setting)
        for count in MANY:
            yield from many_labels(model, made, count, setting)


def beside_the_tower(model: Model, made: Tagger, setting: Setting) -> Iterator[Measurement]:
    """A batch of pictures, tagged and only seen by the bare tower, which is given them prepared."""
    trunk: Any = made.method.trunk
    pixels = torch.stack([made.preparation(shapes.scene("test", k).image) for k in range(model.images)])
    pixels, size = pixels.to(setting.device), (pixels.shape[3], pixels.shape[2])
    pictures = [shapes.scene("test", k).image.resize(size) for k in range(model.images)]
    asked = random_asked(made, len(shapes.LABELS))
    runs = {
        BARE: torch.no_grad()(partial(trunk.visual, pixels)), TAG: partial(made.tag, pictures, asked),
        INDEX: partial(made.index, pictures),
    }  # fmt: skip
    took = in_turn(runs, setting)
    case = f"tagger, {model.name}, {model.images} pictures, {len(asked.names)} labels"
    for name, rounds in took.items():
        yield Measurement(case, name, "images/s", [model.images / one.wall for one in rounds])
    pairs = list(zip(took[BARE], took[TAG], strict=True))
    yield Measurement(case, f"{TAG}, of the bare tower's speed", "%", [100 * a.wall / b.wall for a, b in pairs])
    if setting.device.type == "cpu":  # says the same of a machine that others use too
        shares = [100 * a.processor / b.processor for a, b in pairs]
        yield Measurement(case, f"{TAG}, of the bare tower's speed, by processor time", "%", shares)
    if (taken := peak(runs[TAG], setting)) is not None:
        yield Measurement(case, MEMORY, "MB", [taken])


def many_labels(model: Model, made: Tagger, count: int, setting: Setting) -> Iterator[Measurement]:
    """One picture, tagged."""
    case, tag = (
        f"tagger, {model.name}, 1 picture, {count:,} labels",
        partial(made.tag, shapes.scene("test", 0).image, random_asked(made, count)),
    )
    yield Measurement(case, TIME, "s", [one.wall for one in in_turn({TAG: tag}, setting)[TAG]])
    if (taken := peak(tag, setting)) is not None:
        yield Measurement(case, MEMORY, "MB", [taken])


def untrained(model: Model, device: torch.device) -> Tagger:
    """A tagger as after a training with the seen labels of `shapes`, but with adapters as they start."""
    cfg = load_config(ROOT / "configs" / model.config, model.overrides)
    torch.manual_seed(0)
    method = build_method(cfg, load_towers(cfg), seen=len(shapes.SEEN))
    present = torch.rand(16, len(shapes.SEEN)) < 0.1
    evidence = torch.randn(16, len(shapes.SEEN), len(NAMES)) + present[..., None]
    calibration = fit(evidence, present.float(), torch.rand(present.shape), shapes.SEEN)
    return Tagger(
        Parts(cfg.dump(), method.trained_state(), shapes.SEEN, shapes.UNSEEN, {}, "", calibration.state()),
        device=device, batch=model.images,
    )  # fmt: skip


def random_asked(made: Tagger, count: int) -> Asked:
    """Labels that no text was encoded for."""
    known = made.labels(made.seen[:1]).text
    text = F.normalize(torch.randn(count, known.shape[1]), dim=-1).to(known)
    return Asked(tuple(map(str, range(count))), text, torch.full((count,), -1, device=known.device))
