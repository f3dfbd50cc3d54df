"""RAM written down from its equations, with nothing shared and nothing kept: what speeds are measured beside.

Student and teacher each run the whole image tower, texts are padded to 77 tokens and encoded for every batch, attention
forms its matrix of weights, and Sinkhorn copies K^T in every iteration and goes on until the slowest image of the batch
is done. So does the authors' release; as there, only the teacher's texts are encoded beforehand.

It reads the weights of a RAM that was built with the settings of the release (configs/coco.yml, configs/nus.yml) and
imports nothing of it, so that it also is an oracle: with MODEL.OT_STOP batch both compute the same.

B images, N regions, C labels, W trunk width, D joint width, P prompts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

__all__ = ["Answer", "PlainRAM", "looped_sinkhorn"]

NO_PROMPTS: Mapping[int, Tensor] = {}


class Answer(NamedTuple):
    """What is said of a batch of images, each (B, C)."""

    scores: Tensor
    local_logits: Tensor
    global_logits: Tensor


class PlainRAM:
    """The scores and the loss of a RAM.

    Args:
        method: whose weights are read at every call.
        cfg: what it was built with.
        scale: CLIP's logit scale.
    """

    def __init__(self, method: Any, cfg: CfgNode, scale: float) -> None:
        self.method, self.settings, self.scale = method, cfg.MODEL, scale
        self.visual, self.text = method.trunk.visual, method.text.text

    def __call__(
        self, images: Tensor, labels: Tensor, targets: Tensor | None = None, frozen: Tensor | None = None
    ) -> Answer:
        """Scores and logits of images (B, 3, H, W) for encoded labels; in training with targets and `teacher_labels`.

        Args:
            images: normalised.
            labels: (C, D), what `encode` gives.
            targets: (B, C), 1 where the label is present.
            frozen: (C, D).
        """
        cls, regions = self._see(images, self.method.visual_prompts(), labels)
        text, regions = F.normalize(labels, dim=-1), F.normalize(regions, dim=-1)
        similarity = regions @ text.T  # (B, N, C), s
        with torch.no_grad():
            plan = self._plan(similarity, images, targets, frozen)
        local_logits = (plan * similarity).sum(1) / self.method.local_temperature  # Eq. (14)
        global_logits = F.normalize(cls, dim=-1) @ text.T / self.method.global_temperature
        return Answer((local_logits.softmax(-1) + global_logits.softmax(-1)) / 2, local_logits, global_logits)

    def loss(self, images: Tensor, names: Sequence[str], targets: Tensor, frozen: Tensor) -> Tensor:
        """The sum of both losses, Eq. (13) and (15)."""
        answer = self(images, self.encode(names), targets, frozen)
        present = targets.flatten() > 0
        local, whole = (logits.flatten().log_softmax(0)[present].mean() for logits in answer[1:])
        return -local - whole

    @torch.no_grad()
    def teacher_labels(self, names: Sequence[str]) -> Tensor:
        """What the frozen CLIP makes of the names, (C, D); the same in every step."""
        return self._read(names, NO_PROMPTS)

    def encode(self, names: Sequence[str]) -> Tensor:
        """Features (C, D) of the names, not normalised."""
        return self._read(names, self.method.label_prompts())

    def _read(self, names: Sequence[str], prompts: Mapping[int, Tensor]) -> Tensor:
        """Features (C, D) by the text tower, Eq. (2): prompts (P, W) stand behind the start for one block."""
        tokens = self.method.tokens(names).to(self.text.positional_embedding.device)  # (C, 77)
        x = self.text.token_embedding(tokens) + self.text.positional_embedding
        unseen = torch.full((x.shape[1],) * 2, -torch.inf, device=x.device).triu(1)
        for index, block in enumerate(self.text.transformer.resblocks):
            if index not in prompts:
                x = _run(block, x, unseen)
                continue
            count = len(prompts[index])
            kept = x.shape[1] - count  # the context does not grow
            inserted = prompts[index].expand(len(x), -1, -1)
            out = _run(block, torch.cat([x[:, :1], inserted, x[:, 1:kept]], 1), unseen)
            x = torch.cat([out[:, :1], out[:, 1 + count :], x[:, kept:]], 1)
        ends = x[torch.arange(len(x)), tokens.argmax(-1)]
        return self.text.ln_final(ends) @ self.text.text_projection

    def _see(
        self, images: Tensor, prompts: Mapping[int, Tensor], labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Global feature (B, D) and regions (B, N, D), Eq. (3) to (5); the teacher's without prompts and labels."""
        visual = self.visual
        patches = visual.conv1(images)  # (B, W, h, w)
        grid = patches.shape[2:]
        start = visual.class_embedding.expand(len(images), 1, -1)
        x = visual.ln_pre(torch.cat([start, patches.flatten(2).transpose(1, 2)], 1) + visual.positional_embedding)
        local, count = x[:, 1:], x.shape[1]
        for index, block in enumerate(visual.transformer.resblocks):
            saa = _self_aware(block, x)[:, 1:]
            if index in prompts:
                x = torch.cat([x, prompts[index].expand(len(x), -1, -1)], 1)
            x = _run(block, x)[:, :count]
            factor = 1.0 if labels is None else self.settings.LADDER_FACTOR
            local = local + factor * saa
            if labels is not None and str(index) in self.method.adapter.selections:
                local = local + factor * _select(self.method.adapter.selections[str(index)], x[:, 1:], labels, grid)
        cls, regions = (visual.ln_post(tokens) @ visual.proj for tokens in (x[:, 0], local))
        return cls, regions

    def _plan(self, similarity: Tensor, images: Tensor, targets: Tensor | None, frozen: Tensor | None) -> Tensor:
        """T of Eq. (6) to (12), (B, N, C)."""
        settings = self.settings
        cost, reg = 1 - (self.scale * similarity).softmax(-1), settings.OT_REG  # Eq. (7)
        if targets is not None and frozen is not None:
            _, regions = self._see(images, NO_PROMPTS)
            cosines = F.normalize(regions, dim=-1) @ F.normalize(frozen, dim=-1).T
            assigned = (settings.TKT_SHARPNESS * (self.scale * cosines).softmax(-1)).softmax(1)  # Eq. (9)
            knowledge = torch.where(targets[:, None] > 0, assigned, assigned.min())
            cost, reg = cost - settings.OT_REGSC * knowledge.log(), reg + settings.OT_REGSC  # Eq. (11)
        mu = (similarity.amax(-1) / settings.LPD_TEMPERATURE).softmax(-1)  # Eq. (8)
        nu = torch.full_like(similarity[:, 0], 1 / similarity.shape[2])
        return looped_sinkhorn(cost, mu, nu, reg=reg, max_iter=settings.OT_ITER, tol=settings.OT_TOL)[0]


@torch.no_grad()
def looped_sinkhorn(
    cost: Tensor, mu: Tensor, nu: Tensor, *, reg: float, max_iter: int, tol: float
) -> tuple[Tensor, int]:
    """Plans (B, N, C) of Eq. (12) and the iterations that they took, of the whole batch together."""
    kernel = torch.exp(-cost / reg)
    a, b = torch.ones_like(mu), torch.ones_like(nu)
    iterations = 0
    while iterations < max_iter:
        iterations += 1
        before = a
        a = mu / (kernel @ b[:, :, None])[:, :, 0]
        b = nu / (kernel.permute(0, 2, 1).contiguous() @ a[:, :, None])[:, :, 0]
        if bool(((a - before).abs().mean(1) < tol).all()):  # host-device sync
            break
    return a[:, :, None] * kernel * b[:, None, :], iterations


def _run(block: Any, x: Tensor, unseen: Tensor | None = None) -> Tensor:
    """The block's output (B, N, W)."""
    attn = block.attn
    q, k, v = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
    x = x + attn.out_proj(_attend(q, k, v, attn.num_heads, unseen))
    return x + block.mlp(block.ln_2(x))


def _self_aware(block: Any, x: Tensor) -> Tensor:
    """SAA of Eq. (3), (B, N, W): the block's values attend to themselves."""
    attn = block.attn
    v = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)[2]
    return attn.out_proj(_attend(v, v, v, attn.num_heads))


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, unseen: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with `heads` heads, (B, N, W)."""
    q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))  # (B, heads, N, d)
    similar = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    weights = (similar if unseen is None else similar + unseen).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _select(selection: Any, tap: Tensor, labels: Tensor, grid: Sequence[int]) -> Tensor:
    """TSS of Eq. (4), (B, N, W), of a block's patches (B, N, W) and labels (C, D)."""
    features, text = tap.transpose(1, 2).unflatten(2, tuple(grid)), selection.norm_text(labels)
    views = []
    for conv, norm, query in (
        (selection.conv1x1, selection.bn1x1, selection.norm_query1x1),
        (selection.conv3x3, selection.bn3x3, selection.norm_query3x3),
    ):
        view = F.gelu(norm(conv(features))).flatten(2).transpose(1, 2)  # (B, N, D)
        weights = (query(view) @ text.T / text.shape[1] ** 0.5).softmax(-1)  # (B, N, C)
        views.append((view + weights @ text).transpose(1, 2).unflatten(2, tuple(grid)))
    both = torch.cat(views, 1)
    masks = selection.mask_conv(torch.stack([both.mean(1), both.amax(1)], 1)).sigmoid()  # (B, 2, h, w)
    return selection.out_conv(views[0] * masks[:, :1] + views[1] * masks[:, 1:]).flatten(2).transpose(1, 2)
