"""Which tagger answers: a run that is named, or else the newest one, or else CLIP as it is."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip.load import WeightsError
from configs import load_config
from engine.run import newest_run
from tagging.build import portable, zero_shot_parts
from tagging.calibration import CalibrationError
from tagging.portable import CONFIG, Parts, TaggerError, checkpoint_of, read_parts
from tagging.spellings import Spellings
from tagging.tagger import Tagger

__all__ = ["Source", "find_source", "identity", "tagger_of"]

RUNS = Path("runs")


class Source(NamedTuple):
    """What a tagger is made from."""

    parts: Parts
    place: str  # the file or folder, or the name of CLIP
    trained: bool


def find_source(run: str | None = None, config_file: str | None = None, *, runs: Path = RUNS) -> Source:
    """The source that is asked for.

    Args:
        run: a run, a folder of runs, a folder of such folders, a checkpoint, or an exported folder.
        config_file: YAML that names a CLIP, which is taken as it is.
        runs: where the newest run is looked for if neither is given; without any, the CLIP of the defaults is taken.

    Raises:
        TaggerError: if both are given, or `run` holds nothing of the kind.
        ConfigError: if the configuration cannot be read.
    """
    if run is not None and config_file is not None:
        raise TaggerError("a run has a configuration: give --run, or --config_file for zero-shot CLIP")
    place = _newest(runs) if run is None and config_file is None else run
    if place is None:
        configuration = load_config(config_file)
        name = f"zero-shot CLIP {configuration.MODEL.BACKBONE}"
        return Source(zero_shot_parts(configuration.dump()), name, trained=False)
    path = Path(place)
    if not path.exists():
        raise TaggerError(f"no run {place}: name a run, a folder of runs, a checkpoint or an exported folder")
    if not (path / CONFIG).is_file():
        path = checkpoint_of(path if (path / "checkpoint.pth").is_file() else _newest(path) or path)
    return Source(read_parts(path), str(path), trained=True)


def tagger_of(source: Source, spellings: Spellings, *, score: str, clip_weights: str | None, **how: Any) -> Tagger:
    """The tagger, ready to be asked for these spellings.

    Args:
        source: what `find_source` gave.
        spellings: whose texts hold.
        score: "probability" or "paper", see `Tagger.tag`.
        clip_weights: where CLIP's weights are, if not where the configuration says.
        how: device and batch.

    Raises:
        CalibrationError: if probabilities are asked for and there are none.
        TaggerError: if CLIP's weights are not there, or are those of another CLIP.
    """
    if score == "probability" and (not source.trained or source.parts.calibration is None):
        wayout = (
            f"where the method is RAM, run python tools/calibrate.py {source.place} DATASETS.VAL LIST "
            "DATASETS.IMAGE_DIR FOLDER on images that it was not trained on, or add" if source.trained else "add"
        )  # fmt: skip
        raise CalibrationError(
            f"{source.place} is not calibrated, so there are no probabilities: {wayout} --score paper"
        )
    parts = source.parts
    if score == "paper":  # the list is encoded as a whole, by the texts that the method itself holds
        parts = parts._replace(texts={**parts.texts, **spellings.texts})
    try:
        return Tagger(parts, clip_weights=clip_weights, **how)
    except WeightsError as error:
        what = f"{source.place}: " if source.trained else f"no run, and no {source.place} either: "
        raise TaggerError(f"{what}{error}; here by --clip_weights") from error


def identity(parts: Parts) -> str:
    """SHA-256 of all that answers depend on, wherever it lies."""
    digest = hashlib.sha256()
    about = portable(parts)
    for value in (about.config, parts.seen, sorted(parts.texts.items()), parts.clip, parts.state, parts.calibration):
        _update(digest, value)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key}:".encode())
            _update(digest, value[key])
    else:
        digest.update(repr(value).encode())


def _newest(folder: Path) -> Path | None:
    """The newest run at any depth below a folder; by the name, as `newest_run`."""
    found = [path.parent for path in folder.rglob("checkpoint.pth") if path.parent != folder]
    folders = {run.parent for run in found if "reproduce" not in run.relative_to(folder).parts}  # rows of tables
    runs = [run for run in map(newest_run, folders) if run is not None]
    return max(runs, key=_started) if runs else None


def _started(run: Path) -> tuple[str, int]:
    match = re.fullmatch(r"(\d{8}-\d{6})(?:-(\d+))?", run.name)
    assert match is not None  # as newest_run takes no other
    return match[1], int(match[2] or 1)
