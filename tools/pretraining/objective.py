"""CLIP's objective where an image may have several texts and a text several images."""

from torch import Tensor

__all__ = ["contrastive_loss"]


def contrastive_loss(logits: Tensor, named: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy where an image may have two texts and a text several images."""
    per_image = named / named.sum(1, keepdim=True)
    present = named.sum(0) > 0
    per_text = (named / named.sum(0).clamp(min=1))[:, present]
    image_loss = -(per_image * logits.log_softmax(1)).sum(1).mean()
    text_loss = -(per_text * logits[:, present].log_softmax(0)).sum(0).mean()
    return (image_loss + text_loss) / 2
