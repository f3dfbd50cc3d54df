"""Which labels a picture has: any pictures, any labels.

    tagger = Tagger.load("runs/ram")
    tags = tagger.tag("street.jpg", ["dog", "bus", "traffic light"], threshold="best")
    print(tags.labels, tags.probabilities)

A probability says how likely a label is present by itself: it does not change with the other labels asked for, nor with
the other pictures of a batch (`tagging.evidence`), and is calibrated on labels of validation images
(`tagging.calibration`). `score="paper"` gives the score of the paper instead, which ranks the labels of a list.

B images, N regions on a grid of h x w, C labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from torch import Tensor

from model import RAM
from model.method import Output
from model.precision import store_in
from tagging.build import build, portable
from tagging.calibration import Calibration, CalibrationError
from tagging.encoding import LabelEncoder, checked_names
from tagging.evidence import NAMES, Asked, Gallery, RegionEvidence, joined, obstacle
from tagging.pictures import Picture, is_one
from tagging.portable import CONFIG, WEIGHTS, Parts, TaggerError, read_parts, write_parts
from tagging.tags import Answer, Tags, charts, picked

__all__ = ["Tagger", "Tags"]


class Tagger(ModelHubMixin, library_name="ovmlr", tags=["multi-label", "open-vocabulary"]):
    """A trained method with its calibration.

    Threads may share one; it can be pickled; it keeps no global state.

    Args:
        parts: what `read_parts` gives.
        device: where to compute.
        dtype: of matrix products in the image tower and the adapters; the rest, texts too, is float32.
        batch: images at once.
        clip_weights: where CLIP's weights are, if not where they were in training.

    Attributes:
        device: where it computes.
        seen: labels of the training, which are asked for by default.
        template: what makes a text of a name.
        calibrated: whether there are probabilities.
    """

    def __init__(
        self, parts: Parts, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, batch: int = 32,
        clip_weights: str | None = None,
    ) -> None:  # fmt: skip
        self._parts, self.device, self._dtype, self._batch = parts, torch.device(device), dtype, batch
        self._clip_weights = clip_weights
        self._assemble(parts, clip_weights)

    def _assemble(self, parts: Parts, clip_weights: str | None) -> None:
        method, self.preparation = build(parts, clip_weights=clip_weights)
        self.method = method.to(self.device).requires_grad_(False)
        store_in(None if self._dtype == torch.float32 else self._dtype, method)
        self.seen = parts.seen
        self.calibration = None if parts.calibration is None else Calibration.from_state(parts.calibration)
        if self.calibration is not None and len(self.calibration.weight) != len(NAMES):
            raise TaggerError(f"the calibration is of {len(self.calibration.weight)} numbers, not of {len(NAMES)}")
        tower: Any = method.text
        self.template = tower.template
        self.evidence = self._encode = self._own = None
        if isinstance(method, RAM) and not obstacle(method):
            self.evidence = RegionEvidence(method, parts.seen)
            self._encode = LabelEncoder(tower, self.evidence)
            self._own = self._encode(parts.seen, {})

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
        names = checked_names(names)
        if self._encode is None:
            raise TaggerError(f"{self.method.title} scores lists of labels only: score='paper'")
        return self._encode(names, texts or {})

    def index(self, images: Picture | Sequence[Picture]) -> Gallery:
        """What belongs to the images alone, for `ask`; in float32 on the tagger's device.

        Raises:
            DataError: if a file is missing or no picture.
            TaggerError: if an array or tensor is no picture.
        """
        if self.evidence is None:
            raise TaggerError(f"{self.method.title} computes nothing that belongs to images alone")
        return joined([self.gallery(pixels) for pixels in self._batches(images)])

    def gallery(self, pixels: Tensor) -> Gallery:
        """What belongs to prepared images (B, 3, H, W) alone, where there are probabilities or could be."""
        assert self.evidence is not None  # as in every tagger that is asked for them
        with self._mixed():
            return self.evidence.gallery(pixels)

    def published(self, pixels: Tensor, labels: Any) -> Output:
        """What the method says of prepared images (B, 3, H, W) and of labels that it has encoded."""
        with self._mixed():
            return self.method(pixels, labels)

    def _mixed(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32)

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
        probabilities, maps_of = [], []
        for start in range(0, len(asked.names), chunk):
            part = Asked(asked.names[start : start + chunk], *(t[start : start + chunk] for t in asked[1:]))
            evidence = self.evidence.ask(gallery, part)
            probabilities.append(self.calibration(evidence.numbers))
            if maps:
                maps_of.append(charts(evidence.weights, probabilities[-1], gallery.grid))
        return Answer(torch.cat(probabilities, 1), torch.cat(maps_of, 1) if maps else None)

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
        if top_k is not None and top_k < 1:
            raise TaggerError(f"top_k is {top_k}; it has to be 1 or more")
        if maps and score == "paper":
            raise TaggerError("score='paper' has no maps")
        asked = self._asked(labels, score)
        answers = self._answers(images, asked, maps=maps, score=score)
        cuts = self._cuts(asked, threshold)
        tags = [picked(asked.names, p, m, cuts=cuts, top_k=top_k) for p, m in answers]
        return tags[0] if is_one(images) else tags

    def thresholds(self, labels: Sequence[str] | Asked, wanted: float | str = "best") -> list[float]:
        """The probability from which each label counts as present; see `Calibration.threshold`."""
        cuts = self._cuts(labels if isinstance(labels, Asked) else self.labels(labels), wanted)
        assert cuts is not None  # something is wanted
        return cuts.tolist()

    def _asked(self, labels: Sequence[str] | Asked | None, score: str) -> Asked:
        if score not in ("probability", "paper"):
            raise TaggerError(f"there is no score {score!r}: probability or paper")
        if isinstance(labels, Asked):
            if score == "paper":
                raise TaggerError("score='paper' takes the names of labels, not what `labels` made of them")
            return labels
        if labels is None and not self.seen:
            raise TaggerError("no labels: this tagger was trained on none, so name some")
        if score == "paper":
            return Asked(checked_names(self.seen if labels is None else labels), torch.empty(0), torch.empty(0))
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
                encoded = self._listed(asked.names) if encoded is None else encoded
                answer = Answer(self.published(pixels, encoded).scores, None)
            else:
                answer = self.ask(self.gallery(pixels), asked, maps=maps)
            maps_of = [None] * len(pixels) if answer.maps is None else answer.maps.cpu()
            yield from zip(answer.probabilities.float().cpu(), maps_of, strict=True)

    def _listed(self, names: Sequence[str]) -> Any:
        """A list of labels as the method takes it."""
        with self._encode.lock if self._encode is not None else nullcontext():
            return self.method.encode_labels(names)

    def _batches(self, images: Picture | Sequence[Picture]) -> Iterator[Tensor]:
        """Prepared pictures (B, 3, H, W) on the device."""
        pictures: Any = [images] if is_one(images) else images
        if not len(pictures):
            raise TaggerError("no pictures")
        for start in range(0, len(pictures), self._batch):
            prepared = [self.preparation(picture) for picture in pictures[start : start + self._batch]]
            yield torch.stack(prepared).to(self.device)

    def _cuts(self, asked: Asked, threshold: float | str | None) -> Tensor | None:
        """(C,), the least probability of each label."""
        if threshold is None:
            return None
        if isinstance(threshold, str):
            if self.calibration is None:
                raise CalibrationError(f"the threshold {threshold!r} needs a calibration: run tools/calibrate.py")
            places = asked.anchor.tolist() or [-1] * len(asked.names)
            names = [self.seen[k] if k >= 0 else name for name, k in zip(asked.names, places, strict=True)]
            return torch.tensor([self.calibration.threshold(name, threshold) for name in names])
        return torch.full((len(asked.names),), float(threshold))

    def __getstate__(self) -> dict[str, Any]:
        """What it is made from; CLIP's weights are read again where it is unpickled."""
        return {
            "parts": self._parts, "device": self.device, "dtype": self._dtype, "batch": self._batch,
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
