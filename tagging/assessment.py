"""Published scores and probabilities of one model side by side, on the images of a test."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.evaluate import Row, evaluate
from engine.metrics import measure
from tagging.calibration import Calibration, reliability
from tagging.evidence import Asked
from tagging.tagger import Tagger

__all__ = ["Assessment", "assess"]


class Assessment(NamedTuple):
    """One kind of score under one protocol; percent, but for the last three."""

    score: str  # published or probability
    protocol: str  # ZSL or GZSL
    f1: float  # of the three best labels of each image, F1@3
    precision: float  # mAP
    overall_f1: float  # of the labels whose probability reaches their threshold; nan for published scores
    ece_seen: float  # of all pairs with a label of the training, as `reliability`; nan without any
    ece_unseen: float  # with another label
    brier: float


class _Scores(NamedTuple):
    scores: Tensor


def assess(tagger: Tagger, protocols: Sequence[Any]) -> list[Assessment]:
    """Both kinds of score under each protocol; thresholds are the calibration's for the best F1.

    Args:
        tagger: calibrated.
        protocols: label lists with their images, normalised as the tagger wants them.
    """
    calibration = tagger.calibration
    assert calibration is not None  # as in every calibrated tagger
    rows = [
        Row("published", tagger.method.encode_labels, tagger.published),
        Row("probability", tagger.labels, _probabilities(tagger)),
    ]
    kept: dict[tuple[str, str], Any] = {}

    def keep(score: str, protocol: str, evaluator: Any) -> None:
        kept[score, protocol] = evaluator.scored()

    results = evaluate(rows, protocols, device=tagger.device, autocast=None, keep=keep)
    return [_row(result, kept[result.method, result.protocol], calibration, tagger.seen) for result in results]


def _probabilities(tagger: Tagger) -> Any:
    def run(images: Tensor, asked: Asked) -> _Scores:
        return _Scores(tagger.ask(tagger.gallery(images), asked).probabilities)

    return run


def _row(result: Any, scored: Any, calibration: Calibration, seen: Sequence[str]) -> Assessment:
    summary = result.metrics.summary
    overall = float("nan")
    if result.method == "probability":
        cuts = np.array([calibration.threshold(name) for name in scored.names])
        passes = (scored.scores >= cuts).astype(np.float32)
        overall = measure(passes, scored.targets, threshold=0.5).summary["OF1"]
    known = np.isin(scored.names, seen)
    return Assessment(
        result.method, result.protocol, summary["F1@3"], summary["mAP"], overall, _ece(scored, known),
        _ece(scored, ~known), reliability(torch.from_numpy(scored.scores), torch.from_numpy(scored.targets)).brier,
    )  # fmt: skip


def _ece(scored: Any, columns: np.ndarray) -> float:
    if not columns.any():
        return float("nan")
    scores, targets = (torch.from_numpy(part[:, columns]) for part in (scored.scores, scored.targets))
    return reliability(scores, targets).ece
