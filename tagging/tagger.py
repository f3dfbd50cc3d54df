"""Which labels a picture has: any pictures, any labels.

    tagger = Tagger.load("runs/ram")
    tags = tagger.tag("street.jpg", ["dog", "bus", "traffic light"], threshold="best")
    print(tags.labels, tags.probabilities)

A probability says how likely a label is present by itself: it does not change with the other labels asked for, nor with
the other pictures of a batch (`tagging.evidence`), and is calibrated on labels of validation images
(`tagging.calibration`). `score="paper"` gives the score of the paper instead, which ranks the labels of a list.

B images, N regions on a grid of h x w, C labels.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from torch import Tensor

from model import RAM
from tagging.build import build, portable, template
from tagging.calibration import Calibration, CalibrationError
from tagging.evidence import Asked, Gallery, RegionEvidence, joined, transports
from tagging.pictures import Picture, is_one
from tagging.portable import CONFIG, WEIGHTS, Parts, TaggerError, read_parts, write_parts

__all__ = ["Tagger", "Tags"]

TOGETHER = 16  # labels that are encoded at once


class Tags(NamedTuple):
    """The labels of one picture, the most probable first."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]  # in [0, 1]; with score="paper" they sum to 1 over all that were asked for
    maps: Tensor | None = None  # (K, h, w) of the K labels: where, in [0, probability]; absent labels stay cold


class Answer(NamedTuple):
    """What images say of labels."""

    probabilities: Tensor  # (B, C)
    maps: Tensor | None  # (B, C, h, w)


class Tagger(ModelHubMixin, library_name="ovmlr", tags=["multi-label", "open-vocabulary"]):
    """A trained method with its calibration.

    Threads may share one; it can be pickled; it keeps no global state.

    Args:
        parts: what `read_parts` gives.
        device: where to compute.
        dtype: of the towers; what follows them is float32.
        batch: images at once.
        clip_weights: where CLIP's weights are, if not where they were in training.

    Attributes:
        seen: labels of the training, which are asked for by default.
        calibrated: whether there are probabilities.
    """

    def __init__(
        self, parts: Parts, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, batch: int = 32,
        clip_weights: str | None = None,
    ) -> None:  # fmt: skip
        self._parts, self._device, self._dtype, self._batch = parts, torch.device(device), dtype, batch
        self._clip_weights = clip_weights
        self._assemble(parts, clip_weights)

    def _assemble(self, parts: Parts, clip_weights: str | None) -> None:
        method, self.preparation = build(parts, clip_weights=clip_weights)
        self.method = method.to(self._device).requires_grad_(False)
        for part in method.children():  # temperatures stay as they are
            part.to(self._dtype)
        for name, buffer in method.named_buffers(recurse=False):
            setattr(method, name, buffer.to(self._dtype))
        self.seen = parts.seen
        self.calibration = None if parts.calibration is None else Calibration.from_state(parts.calibration)
        self.template = template(parts)
        self._lock = threading.Lock()  # of the text tower, which keeps what it computed last
        self.evidence = None
        if isinstance(method, RAM) and transports(method):
            self.evidence = RegionEvidence(method, parts.seen)
        self._own = self.labels(parts.seen) if self.evidence is not None else None

    @classmethod
    def load(cls, place: str | Path, *, averaged: bool = True, **how: Any) -> Self:
        """The tagger of a run, a folder of runs, a checkpoint or an exported folder.

        Args:
            place: its path.
            averaged: take the running average of a checkpoint where it has one.
            how: device, dtype, batch, clip_weights; see the class.

        Raises:
            UserError: in one line, if there is none, or CLIP's weights are missing or others.
        """
        return cls(read_parts(place, averaged=averaged), **how)

    def export(self, folder: str | Path) -> None:
        """Writes a folder that `load` and `from_pretrained` read: safetensors and JSON, without CLIP's weights.

        Raises:
            WriteError: if the system refuses.
        """
        write_parts(folder, portable(self._parts))

    @property
    def calibrated(self) -> bool:
        """Whether there are probabilities."""
        return self.evidence is not None and self.calibration is not None

    def labels(self, names: Sequence[str], texts: Mapping[str, str] | None = None) -> Asked:
        """Labels, encoded once for many pictures.

        Args:
            names: each once; of any number.
            texts: what to encode in place of the template filled with a name.

        Raises:
            TaggerError: if there are none, one is listed twice or is blank.
            clip.load.TextError: if one is longer than CLIP's context.
        """
        names = _checked(names)
        if self.evidence is None:
            raise TaggerError(f"{self.method.title} scores lists of labels only: score='paper'")
        with self._lock, self._spelt(names, texts or {}) as keys:
            text, anchor = None, torch.empty(len(keys), dtype=torch.long, device=self._device)
            for places in self._alike(keys):
                # A label runs in a batch of one shape, whichever others are asked for: else rounding would differ.
                filled = [*places, *places[-1:] * (TOGETHER - len(places))]
                part = self.evidence.labels([keys[k] for k in filled])
                text = part.text.new_empty(len(keys), part.text.shape[1]) if text is None else text
                text[places], anchor[places] = part.text[: len(places)], part.anchor[: len(places)]
        assert text is not None  # there is a label
        return Asked(names, text, anchor)

    def index(self, images: Picture | Sequence[Picture]) -> Gallery:
        """What belongs to the images alone, for `ask`; in float32 on the tagger's device.

        Raises:
            DataError: if a file is missing or no picture.
            TaggerError: if an array or tensor is no picture.
        """
        if self.evidence is None:
            raise TaggerError(f"{self.method.title} computes nothing that belongs to images alone")
        return joined([self.evidence.gallery(pixels) for pixels in self._batches(images)])

    def ask(self, gallery: Gallery, asked: Asked, *, maps: bool = False) -> Answer:
        """Probabilities (B, C) of labels on indexed images, and where they are.

        Raises:
            CalibrationError: if the tagger is not calibrated.
        """
        if self.evidence is None or self.calibration is None:
            raise CalibrationError(
                "this checkpoint has no calibration, so there are no probabilities: run tools/calibrate.py on it, or "
                "ask for score='paper'"
            )
        chunk = self.evidence.at_once(*gallery.regions.shape[:2])
        probabilities, charts = [], []
        for start in range(0, len(asked.names), chunk):
            part = Asked(asked.names[start : start + chunk], *(t[start : start + chunk] for t in asked[1:]))
            evidence = self.evidence.ask(gallery, part)
            probabilities.append(self.calibration(evidence.numbers))
            if maps:
                charts.append(_charts(evidence.weights, probabilities[-1], gallery.grid))
        return Answer(torch.cat(probabilities, 1), torch.cat(charts, 1) if maps else None)

    def tag(
        self, images: Picture | Sequence[Picture], labels: Sequence[str] | Asked | None = None, *,
        top_k: int | None = None, threshold: float | str | None = None, maps: bool = False, score: str = "probability",
    ) -> Tags | list[Tags]:  # fmt: skip
        """The labels of each picture, the most probable first; a list of them if several pictures were given.

        Args:
            images: one or many; see `tagging.pictures.Preparation`.
            labels: names, or what `labels` gave; None: the labels of the training.
            top_k: at most so many.
            threshold: only labels with at least this probability; "best" or "precision=0.9": see
                `Calibration.threshold`.
            maps: also where they are.
            score: "probability", or "paper": the published one, which depends on the list.

        Raises:
            UserError: in one line that names what cannot be done.
        """
        asked = self._asked(labels, score)
        answers = self._answers(images, asked, maps=maps, score=score)
        cuts = self._cuts(asked.names, threshold)
        tags = [_picked(asked.names, p, m, cuts, top_k) for p, m in answers]
        return tags[0] if is_one(images) else tags

    def thresholds(self, names: Sequence[str], wanted: float | str = "best") -> list[float]:
        """The probability from which each label counts as present; see `Calibration.threshold`."""
        cuts = self._cuts(tuple(names), wanted)
        assert cuts is not None  # something is wanted
        return cuts.tolist()

    def _alike(self, names: Sequence[str]) -> Iterator[list[int]]:
        """Positions of labels whose texts have the same number of tokens, a few at a time."""
        tower: Any = self.method.text
        tokens = tower.tokenize([tower.texts.get(name) or self.template.format(name) for name in names])
        lengths = tokens.argmax(-1).tolist()  # end-of-text has the largest id
        for length in sorted(set(lengths)):
            places = [k for k, tokens_of in enumerate(lengths) if tokens_of == length]
            yield from (places[k : k + TOGETHER] for k in range(0, len(places), TOGETHER))

    @contextmanager
    def _spelt(self, names: Sequence[str], texts: Mapping[str, str]) -> Iterator[list[str]]:
        """What the text tower knows the names by, where some have a text of their own here."""
        tower: Any = self.method.text
        own = tower.texts
        before = dict(own)
        keys = [f"\0{texts[name]}" if texts.get(name, before.get(name)) != before.get(name) else name for name in names]
        try:
            own.update({key: key[1:] for key in keys if key.startswith("\0")})
            yield keys
        finally:
            own.clear()
            own.update(before)

    def _asked(self, labels: Sequence[str] | Asked | None, score: str) -> Asked:
        if score not in ("probability", "paper"):
            raise TaggerError(f"there is no score {score!r}: probability or paper")
        if isinstance(labels, Asked):
            return labels
        if labels is None and not self.seen:
            raise TaggerError("no labels: this tagger was trained on none, so name some")
        if score == "paper":
            return Asked(_checked(self.seen if labels is None else labels), torch.empty(0), torch.empty(0))
        return (
            self._own
            if labels is None and self._own is not None
            else self.labels(self.seen if labels is None else labels)
        )

    def _answers(
        self, images: Picture | Sequence[Picture], asked: Asked, *, maps: bool, score: str
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Probabilities (C,) and maps (C, h, w) of each picture, on the CPU."""
        encoded = None
        for pixels in self._batches(images):
            if score == "paper":
                if encoded is None:
                    with self._lock:
                        encoded = self.method.encode_labels(asked.names)
                answer = Answer(self.method(pixels, encoded).scores, None)
            else:
                assert self.evidence is not None  # or there was nothing to ask with
                answer = self.ask(self.evidence.gallery(pixels), asked, maps=maps)
            charts = [None] * len(pixels) if answer.maps is None else answer.maps.cpu()
            yield from zip(answer.probabilities.float().cpu(), charts, strict=True)

    def _batches(self, images: Picture | Sequence[Picture]) -> Iterator[Tensor]:
        """Prepared pictures (B, 3, H, W) on the device."""
        pictures: Any = [images] if is_one(images) else images
        if not len(pictures):
            raise TaggerError("no pictures")
        for start in range(0, len(pictures), self._batch):
            prepared = [self.preparation(picture) for picture in pictures[start : start + self._batch]]
            yield torch.stack(prepared).to(self._device, self._dtype)

    def _cuts(self, names: tuple[str, ...], threshold: float | str | None) -> Tensor | None:
        """(C,), the least probability of each label."""
        if threshold is None:
            return None
        if isinstance(threshold, str):
            if self.calibration is None:
                raise CalibrationError(f"the threshold {threshold!r} needs a calibration: run tools/calibrate.py")
            return torch.tensor([self.calibration.threshold(name, threshold) for name in names])
        return torch.full((len(names),), float(threshold))

    def __getstate__(self) -> dict[str, Any]:
        """What it is made from; CLIP's weights are read again where it is unpickled."""
        return {
            "parts": self._parts, "device": self._device, "dtype": self._dtype, "batch": self._batch,
            "clip_weights": self._clip_weights,
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _save_pretrained(self, save_directory: Path) -> None:
        self.export(save_directory)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None, **how: Any,
    ) -> Self:  # fmt: skip
        folder: str | Path = model_id
        if not Path(model_id).is_dir():
            folder = snapshot_download(
                model_id, revision=revision, cache_dir=cache_dir, force_download=force_download,
                local_files_only=local_files_only, token=token, allow_patterns=[CONFIG, WEIGHTS],
            )  # fmt: skip
        return cls.load(folder, **how)


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TaggerError(f"labels are a list of names, not the text {names!r}")
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise TaggerError(f"{name!r} is not the name of a label")
        if name in seen:
            raise TaggerError(f"the label {name!r} is asked for twice")
        seen.add(name)
    if not seen:
        raise TaggerError("no labels: name at least one")
    return tuple(names)


def _charts(weights: Tensor, probabilities: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where labels are, (B, C, h, w): shares of the regions, of which the largest stands for the probability."""
    shares = weights.transpose(1, 2)  # (B, C, N)
    return (shares / shares.amax(-1, keepdim=True) * probabilities[..., None]).unflatten(-1, grid).float()


def _picked(
    names: Sequence[str], probabilities: Tensor, maps: Tensor | None, cuts: Tensor | None, top_k: int | None
) -> Tags:
    """The labels that pass, in descending order."""
    order = probabilities.argsort(descending=True, stable=True)
    if cuts is not None:
        order = order[probabilities[order] >= cuts[order]]
    if top_k is not None:
        order = order[:top_k]
    picked = tuple(names[k] for k in order.tolist())
    return Tags(picked, tuple(probabilities[order].tolist()), None if maps is None else maps[order])
