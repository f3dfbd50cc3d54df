"""Names and files to the two frozen towers of CLIP; the only importer of open_clip.

The towers are open_clip's own modules in float32. Supported is what the trunks of this folder can take
apart: plain CLIP ViTs, whose blocks are pre-norm with one projection for q, k and v, read at the class
token, and OpenAI's ResNets, which end in attention pooling, both with a causal text tower, read at the end of the
text.
"""

import difflib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.pretrained import hf_hub_download
from torch import Tensor

from clip.regions import STRIDE
from clip.weights import WeightsError, fill_model, fingerprint, read_weights, weights_of
from errors import UserError

__all__ = ["IMAGENET_TEMPLATES", "ClipTowers", "Sizes", "TextError", "WeightsError", "load_clip", "sizes"]

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY, END_OF_TEXT = 49408, 49407  # of CLIP's byte-pair encoding
PLAIN_PARTS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}
SPECIAL_ATTENTION = (
    "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"
)  # fmt: skip
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
PUBLISHED = {  # by OpenAI: name -> URL, with the SHA-256 as last folder
    url.rsplit("/", 1)[-1]: url
    for url in (open_clip.get_pretrained_url(model, "openai") for model in open_clip.list_openai_models())
    if "openaipublic" in url
}

# OpenAI's 80 texts around a label for ImageNet, each with one {}.
IMAGENET_TEMPLATES: tuple[str, ...] = tuple(fill("{}") for fill in open_clip.OPENAI_IMAGENET_TEMPLATES)

open_clip.add_model_config(ROOT / "clip" / "architectures")


class TextError(UserError, ValueError):
    """A text that CLIP cannot read: empty, or longer than its context."""


class ClipTowers(NamedTuple):
    """A frozen CLIP in float32, in eval mode; the towers share no parameter."""

    visual: Any  # open_clip's VisionTransformer or ModifiedResNet
    text: Any  # open_clip's TextTransformer
    logit_scale: float  # factor of cosines, 100 for OpenAI's
    tokenize: Callable[[Sequence[str]], Tensor]  # C texts to (C, context) int64, zeros behind the end
    identity: str  # architecture, activation and SHA-256 of the weights, whichever file they came from


class Sizes(NamedTuple):
    """What the name of a CLIP says of its towers."""

    vision_blocks: int  # of a ViT; a ResNet has none, 0
    text_blocks: int
    region: int  # pixels of a side


def sizes(backbone: str) -> Sizes:
    """The sizes of the towers; no weights are needed.

    Args:
        backbone: as in `load_clip`.

    Raises:
        WeightsError: if it is not a plain CLIP ViT or ResNet.
    """
    _, config = _architecture(backbone)
    vision, text = open_clip.CLIPVisionCfg(**config["vision_cfg"]), open_clip.CLIPTextCfg(**config["text_cfg"])
    if not isinstance(vision.layers, int):
        return Sizes(0, text.layers, STRIDE)
    assert isinstance(vision.patch_size, int)  # no library of models holds another
    return Sizes(vision.layers, text.layers, vision.patch_size)


def load_clip(backbone: str, weights: str, *, seed: int = 0) -> ClipTowers:
    """The frozen towers of a CLIP.

    QuickGELU is used where the weights are OpenAI's (their archive, or a state dict with their extra
    keys) or belong to a tag trained with it; otherwise the name decides: OpenAI's spelling ("ViT-B/16") has it,
    open_clip's has it with "-quickgelu" at the end. Global random state is left alone.

    Args:
        backbone: OpenAI's name, such as "ViT-B/16", "ViT-L/14@336px" or "RN50", or a name of open_clip.
        weights: tag of open_clip, downloaded if need be; a local file, relative to the working directory
            or else to the repository; or "random".
        seed: of "random" weights.

    Raises:
        WeightsError: in one line, if the backbone is not a plain CLIP ViT or ResNet, the weights are missing, broken
            or of another architecture.
    """
    name, config = _architecture(backbone)
    path, tag = (None, {}) if weights == "random" else _locate(name, weights)
    loaded = None if path is None else read_weights(path, PUBLISHED)
    by_name = config.get("quick_gelu", False) or "/" in backbone  # OpenAI's spelling means OpenAI's model
    by_file = loaded is not None and loaded.openai
    quick_gelu = by_file or (tag.get("quick_gelu", False) if tag else by_name)
    model = _build(config, quick_gelu, seed)
    if loaded is not None:
        fill_model(model, loaded.tensors, f"{path} does not fit {name}")
    activation = "-quickgelu" if quick_gelu else ""
    identity = f"{name.removesuffix('-quickgelu')}{activation}/sha256:{fingerprint(weights_of(model))}"
    model.eval().requires_grad_(False)
    tokenize = partial(_tokenize, context=model.text.context_length)
    return ClipTowers(model.visual, model.text, float(model.logit_scale.exp()), tokenize, identity)


def _architecture(backbone: str) -> tuple[str, dict[str, Any]]:
    """open_clip's name and configuration of a plain CLIP ViT or ResNet."""
    name = re.sub(r"@(\d+)px$", r"-\1", backbone.replace("/", "-"))
    known = {model.lower(): model for model in open_clip.list_models()}
    if name not in known.values():
        near = ", ".join(known[model] for model in difflib.get_close_matches(name.lower(), known, n=5)) or "none"
        raise WeightsError(f"MODEL.BACKBONE {backbone!r} is no architecture of open_clip; near names: {near}")
    config = open_clip.get_model_config(name)
    peculiarity = _peculiarity(config)
    if peculiarity is not None:
        raise WeightsError(
            f"MODEL.BACKBONE {backbone!r} is not a plain CLIP ViT or ResNet: {peculiarity}; ViT-B/16 and RN50 are"
        )
    return name, config


def _peculiarity(config: dict[str, Any]) -> str | None:
    """What the trunks could not take apart, in words, or None."""
    extra = sorted(config.keys() - PLAIN_PARTS)
    if extra:
        return f"it has {', '.join(extra)}"
    vision, text = open_clip.CLIPVisionCfg(**config["vision_cfg"]), open_clip.CLIPTextCfg(**config["text_cfg"])
    end_pooled = text.pool_type == "argmax" or (text.pool_type == "eos" and text.eos_id == END_OF_TEXT)
    peculiarities = {
        "its image tower is one of timm": vision.timm_model_name,
        "its text tower is one of Hugging Face": text.hf_model_name,
        "its tokenizer is not CLIP's": text.hf_tokenizer_name or text.tokenizer_kwargs or text.vocab_size != VOCABULARY,
        "its attention is a special one": any(
            getattr(tower, flag) for tower in (vision, text) for flag in SPECIAL_ATTENTION
        ),
        "its images are not read at the class token": vision.attentional_pool or vision.pool_type != "tok",
        "its normalisation follows the pooling": vision.final_ln_after_pool or text.final_ln_after_pool,
        "it drops patches": vision.patch_dropout > 0,
        "its texts are not read at their end": not end_pooled,
        "its text tower is not causal": text.no_causal_mask or text.embed_cls,
        "its text projection is not a matrix": text.proj_bias or text.proj_type != "linear",
    }
    return next((words for words, applies in peculiarities.items() if applies), None)


def _locate(name: str, weights: str) -> tuple[Path, dict[str, Any]]:
    """The file, and the entry of open_clip's list of tags that led there, if any."""
    tag = open_clip.get_pretrained_cfg(name, weights)
    if tag:
        return _fetch(tag, f"{weights!r} of {name}"), tag
    given = Path(weights).expanduser()
    for path in (given, ROOT / given):
        if path.is_file():
            return path, {}
    url = open_clip.get_pretrained_url(name, "openai")
    raise WeightsError(
        f"CLIP weights {weights!r} are not there: neither a file, here or in {ROOT}, nor a tag of {name} "
        f"(tags: {', '.join(open_clip.pretrained.list_pretrained_tags_by_model(name)) or 'none'}); "
        f"set MODEL.CLIP_WEIGHTS to a local file{f', such as a download of {url}' if url else ''}"
    )


def _fetch(tag: dict[str, Any], what: str) -> Path:
    """The file of a tag: kept by Hugging Face's cache, or downloaded from the tag's URL, or from their hub."""
    url, hub = tag["url"], tag["hf_hub"]
    kept = _kept_by_hub(hub)
    if kept is not None:
        return kept
    reason = "no network"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if url:
        try:
            return Path(open_clip.download_pretrained_from_url(url))
        except Exception as error:  # noqa: BLE001 - whatever urllib and open_clip's checks raise
            reason = _one_line(error)
    if hub and _reachable(endpoint):  # without a network, the hub's client retries for most of a minute
        try:
            return Path(open_clip.download_pretrained(tag, prefer_hf_hub=True))
        except Exception as error:  # noqa: BLE001 - whatever the hub's client raises
            reason = _one_line(error)
    raise WeightsError(
        f"CLIP weights {what} are not there and cannot be downloaded ({reason}): "
        f"get {url or f'{endpoint}/{hub}'} and set MODEL.CLIP_WEIGHTS to the local file"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _kept_by_hub(hub: str) -> Path | None:
    repository, file = os.path.split(hub)
    for name in (file,) if file else HUB_FILES:
        try:
            return Path(hf_hub_download(repo_id=repository, filename=name, local_files_only=True))
        except (OSError, ValueError):
            continue
    return None


def _reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _build(config: dict[str, Any], quick_gelu: bool, seed: int) -> open_clip.CustomTextCLIP:
    # Built directly: open_clip's factory logs through the root logger and sets it up on the way.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return open_clip.CustomTextCLIP(
            config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=quick_gelu
        )


def _tokenize(texts: Sequence[str], *, context: int) -> Tensor:
    """Token ids (C, context); raises TextError where open_clip would cut a text off, or find nothing in it."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    tokens = open_clip.tokenize(texts, context_length=context + 1)  # one more: is it ever used?
    for text, ids in zip(texts, tokens, strict=True):
        if ids[1] == END_OF_TEXT:
            raise TextError(f"the text {text!r} is empty for CLIP; every label needs a name")
        if ids[context] != 0:
            raise TextError(f"the text {text!r} is longer than the {context - 2} tokens that CLIP reads; shorten it")
    return tokens[:, :context]
