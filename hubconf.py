"""Entry points of torch.hub: `torch.hub.load(REPOSITORY, "tagger", PLACE)`; PLACE as in `Tagger.load`."""

from typing import Any

from tagging import Tagger

dependencies = ["torch", "torchvision", "open_clip", "yacs", "safetensors", "huggingface_hub", "PIL", "tqdm"]


def tagger(place: str, **how: Any) -> Tagger:
    """A tagger from a run, a checkpoint or an exported folder; `how` as in `Tagger`, such as device="cuda"."""
    return Tagger.load(place, **how)
