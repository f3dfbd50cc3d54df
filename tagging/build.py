"""A tagger's method and transform from the configuration that its parts hold; the only reader of it in this folder."""

import json
import os
from functools import partial
from typing import NamedTuple

import torch
from tqdm import tqdm
from yacs.config import CfgNode

from configs import restore_config
from datasets import build_test
from datasets.compose import Splits
from datasets.images import decode_image, open_image
from datasets.shuffle import shuffled
from datasets.splits import restrict
from datasets.transforms import test_transform
from model import RAM, Method, ModelError, build_method, load_towers
from tagging.calibration import LARGEST, Calibration, CalibrationError, fit
from tagging.evidence import RegionEvidence
from tagging.pictures import Preparation
from tagging.portable import Parts, TaggerError

__all__ = ["Built", "build", "calibrated", "portable", "template", "zero_shot_parts"]


class Built(NamedTuple):
    """A method in evaluation mode, and how pictures become its input."""

    method: Method
    preparation: Preparation


def build(parts: Parts, *, clip_weights: str | None = None) -> Built:
    """The method with its trained weights, on the CPU.

    Args:
        parts: of a tagger.
        clip_weights: where CLIP's weights are, if not where they were in training.

    Raises:
        TaggerError: if they are those of another CLIP.
        clip.load.WeightsError: if they cannot be had.
        ConfigError: if the configuration is not one of this version.
    """
    cfg = _configuration(parts, clip_weights)
    towers = load_towers(cfg)
    if parts.clip and towers.identity != parts.clip:
        raise TaggerError(f"this tagger needs the CLIP {parts.clip}; the weights given are {towers.identity}")
    labels = (*parts.seen, *parts.unseen)
    method = build_method(cfg, towers, seen=len(parts.seen), texts=parts.texts, labels=labels)
    method.load_trained_state(parts.state)
    transform = test_transform(size=cfg.INPUT.SIZE_TEST, mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)
    opened, decoded = (
        partial(read, rotate=cfg.INPUT.EXIF_ROTATION, most_pixels=cfg.INPUT.MAX_PIXELS)
        for read in (open_image, decode_image)
    )
    return Built(method.eval(), Preparation(opened, decoded, transform))


def zero_shot_parts(config_text: str) -> Parts:
    """The parts of a tagger that is CLIP as it is, of a configuration."""
    cfg = restore_config(config_text)
    cfg.defrost()
    cfg.MODEL.METHOD = "zero-shot"
    return Parts(cfg.dump(), {}, (), (), {}, "", None)


def portable(parts: Parts) -> Parts:
    """The same with only what a tagger needs of the configuration, as JSON and without paths of this machine."""
    cfg = restore_config(parts.config)
    weights = cfg.MODEL.CLIP_WEIGHTS
    cfg.defrost()
    cfg.MODEL.CLIP_WEIGHTS = os.path.basename(weights) if os.path.isabs(os.path.expanduser(weights)) else weights
    return parts._replace(config=json.dumps({"MODEL": dict(cfg.MODEL), "INPUT": dict(cfg.INPUT)}, ensure_ascii=False))


def template(parts: Parts) -> str:
    """What a label becomes a text by."""
    return restore_config(parts.config).MODEL.TEMPLATE


def calibrated(
    parts: Parts, cfg: CfgNode, splits: Splits, *, device: torch.device, progress_bar: bool = True
) -> Calibration:
    """A calibration of the parts on the seen labels of validation images.

    Of very many, as many images as give a million pairs of image and label, drawn by DATASETS.SPLIT_SEED.

    Args:
        parts: of a tagger.
        cfg: says how the images are read.
        splits: with validation images.
        device: where to compute.
        progress_bar: shown on stderr.

    Raises:
        CalibrationError: if there are no validation images, or they are too few or too much alike.
        ModelError: if the method gives no evidence for labels one by one.
        DataError: if an image cannot be read.
    """
    if splits.val is None:
        raise CalibrationError("there are no validation images to calibrate on: set DATASETS.VAL or VAL_FRACTION")
    method = build(parts).method.to(device).requires_grad_(False)
    if not isinstance(method, RAM):
        raise ModelError(f"{method.title} gives no evidence for labels one by one, so there is nothing to calibrate")
    evidence = RegionEvidence(method, parts.seen)
    positions = list(map(str, range(len(splits.val.images))))
    drawn = sorted(map(int, shuffled(positions, cfg.DATASETS.SPLIT_SEED)[: LARGEST // len(parts.seen) + 1]))
    few = splits._replace(val=restrict(splits.val.rows(drawn), splits.vocabulary.all, drop_empty=False))
    names = tuple(name for name in splits.vocabulary.seen if name in set(parts.seen))
    protocol = build_test(cfg, "val", few).protocols["GZSL"]
    columns = [protocol.labels.index(name) for name in names]
    asked, encoded = evidence.labels(names), method.encode_labels(names)
    numbers, targets, published = [], [], []
    with torch.no_grad():
        for batch in tqdm(protocol.loader, "calibration", disable=not progress_bar, unit="batch", leave=False):
            pixels = batch.images.to(device)
            numbers.append(evidence.ask(evidence.gallery(pixels), asked).numbers.cpu())
            published.append(method(pixels, encoded).scores.cpu())
            targets.append(batch.targets[:, columns])
    return fit(torch.cat(numbers), torch.cat(targets), torch.cat(published), names)


def _configuration(parts: Parts, clip_weights: str | None) -> CfgNode:
    cfg = restore_config(parts.config)
    if clip_weights is not None:
        cfg.defrost()
        cfg.MODEL.CLIP_WEIGHTS = clip_weights
        cfg.freeze()
    return cfg
