"""Where the time of a training step goes: seconds of its parts."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.optim import optimizers
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.models import Built, build, label_names
from tools.benchmarking.rounds import averages, random_targets
from tools.benchmarking.training import SEEN

__all__ = ["PARTS", "REST", "measure", "timed_step"]

PARTS = {  # what is called by the forward pass -> what it is
    "encode_labels": "labels",
    "trunk.stem": "image tower, frozen blocks",
    "trunk.finish": "image tower, prompted blocks",
    "adapter.forward": "ladder",
    "trunk.teacher_regions": "teacher",
    "teach": "teacher's assignment",
    "matcher.forward": "matching",
}
REST = "rest of the forward pass"


def measure(setting: Setting) -> Iterator[Measurement]:
    """Of the steps that `training` measures; by the processor's time on a CPU."""
    for model, labels in SEEN:
        built, names = build(model, setting), label_names(labels)
        step = timed_step(built, names)
        step()
        rounds = [step() for _ in range(setting.repeats)]
        for part in rounds[0]:
            case = f"parts of a step, {labels:,} labels, batch {model.images}"
            yield Measurement(case, part, "s", [seconds[part] for seconds in rounds])


def timed_step(built: Built, names: tuple[str, ...]) -> Callable[[], dict[str, float]]:
    """A call that takes a training step and gives the seconds of its parts, in the order of a step."""
    method, cfg, device = built.method, built.cfg, built.device
    trained, ema = optimizers(method.groups()), averages(method, cfg, 1)
    images = torch.randn(cfg.SOLVER.IMS_PER_BATCH, 3, *cfg.INPUT.SIZE_TRAIN, device=device)
    targets = random_targets(len(images), len(names)).to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=False)

    def step() -> dict[str, float]:
        method.train()
        spent: dict[str, float] = defaultdict(float)
        with _watched(method, spent, device):
            start = _now(device)
            output = method(images, method.encode_labels(names), targets)
            spent[REST] = _now(device) - start - sum(spent.values())
        start = _now(device)
        loss = torch.stack(list(method.losses(output, targets).values())).sum()
        spent["loss"] = (after_loss := _now(device)) - start
        trained.zero_grad()
        loss.backward()
        spent["backward pass"] = (after_backward := _now(device)) - after_loss
        trained.step(scaler, loss.isfinite())
        ema.update()
        spent["optimisers and average"] = _now(device) - after_backward
        return dict(spent)

    return step


@contextmanager
def _watched(method: Any, spent: dict[str, float], device: torch.device) -> Iterator[None]:
    """Inside, calls of `PARTS` are timed; what a method does not have is no part of it."""
    changed = []
    for path, name in PARTS.items():
        *modules, call = path.split(".")
        owner = method.get_submodule(".".join(modules)) if hasattr(method, path.split(".")[0]) else None
        if owner is not None and hasattr(owner, call):
            changed.append((owner, call, owner.__dict__.get(call)))
            owner.__dict__[call] = _timed(getattr(owner, call), name, spent, device)
    try:
        yield
    finally:
        for owner, call, before in changed:
            if before is None:
                del owner.__dict__[call]
            else:
                owner.__dict__[call] = before


def _timed(call: Callable[..., Any], name: str, spent: dict[str, float], device: torch.device) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        start = _now(device)
        result = call(*arguments, **named)
        spent[name] += _now(device) - start
        return result

    return run


def _now(device: torch.device) -> float:
    """Seconds of the processor, which other programs do not change; by the clock where a GPU computes."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
