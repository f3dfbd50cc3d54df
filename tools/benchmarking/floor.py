"""The fewest floating-point operations that RAM's results need: matrix products alone, 2 for each multiply and add.

What is frozen and in front of all prompts is computed once for student and teacher, raw and averaged weights and all
lists of labels; texts are as long as they are, and what they begin with is computed once; gradients go only where
something is trained. For T tokens of width W,

    a block             24 T W^2 + 4 T^2 W       queries, keys, values 6 T W^2, output 2 T W^2, MLP 16 T W^2, attention
    SAA of a block       2 T W^2 + 4 T^2 W       output; the values attend to themselves
    a ladder step       22 N W D + 8 N C D       convolutions 1x1, 3x3 and back; two views attend to C labels

With ViT-B/16 that is 2.91, 0.35 and 1.70 + 0.0008 C GFLOP. Backward passes: a frozen matrix costs as much again, a
trained one and an attention twice as much.

B images, N regions, C labels, W trunk width, D joint width.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

from torch import Tensor
from yacs.config import CfgNode

from clip.load import ClipTowers
from model import block_indices

__all__ = ["Floor", "TextLengths", "lengths_of", "solver"]


class TextLengths(NamedTuple):
    """Texts as they are, without padding."""

    texts: int  # C
    shared: int  # tokens that all begin with
    own: int  # other tokens of all texts together


def lengths_of(tokens: Tensor) -> TextLengths:
    """Of what a text tower reads, (C, context) int64, zeros behind the ends."""
    ends = tokens.argmax(-1)  # end-of-text has the largest id
    alike = int((tokens == tokens[:1]).all(0).cumprod(0).sum())
    shared = min(alike, int(ends.min()))
    return TextLengths(len(tokens), shared, int((ends + 1 - shared).sum()))


def solver(images: int, regions: int, labels: int, iterations: int) -> float:
    """FLOP of Sinkhorn: K b and K^T a in each iteration."""
    return 4.0 * images * regions * labels * iterations


class Floor(NamedTuple):
    """FLOP of RAM on a CLIP, for images of one size."""

    width: int  # W
    joint: int  # D
    blocks: int
    patch: int  # numbers of a patch, three colours
    regions: int  # N
    adapted: int  # blocks with prompts and a step of the ladder, up to the last one
    text_width: int
    text_blocks: int
    prompted: int  # text blocks with prompts, up to the last one

    @classmethod
    def of(cls, towers: ClipTowers, cfg: CfgNode, size: Sequence[int]) -> Self:
        """Of images of `size`, height and width; prompts end at the last block of either tower."""
        visual, text = towers.visual, towers.text
        width, joint = visual.proj.shape
        depths = [len(tower.transformer.resblocks) for tower in (visual, text)]
        chosen = [
            block_indices(spec, depth, key)
            for spec, depth, key in zip(
                (cfg.MODEL.DEPTH_VISION, cfg.MODEL.DEPTH_TEXT), depths, ("DEPTH_VISION", "DEPTH_TEXT"), strict=True
            )
        ]
        rows, columns = visual.patch_size
        return cls(
            width, joint, depths[0], 3 * rows * columns, (size[0] // rows) * (size[1] // columns), len(chosen[0]),
            text.token_embedding.weight.shape[1], depths[1], len(chosen[1]),
        )  # fmt: skip

    @property
    def tokens(self) -> int:
        """Of an image: its regions and the class token."""
        return self.regions + 1

    @property
    def whole_block(self) -> float:
        """A block of the image tower with its SAA, of one image."""
        return _block(self.tokens, self.width) + _saa(self.tokens, self.width)

    @property
    def stem(self) -> float:
        """In front of the first adapted block, of one image."""
        return 2.0 * self.regions * self.patch * self.width + (self.blocks - self.adapted) * self.whole_block

    @property
    def trunk(self) -> float:
        """From there on, convolutions of the ladder included, of one image: all that the labels do not change."""
        return self.adapted * (self.whole_block + 20.0 * self.regions * self.width * self.joint)

    def head(self, labels: int) -> float:
        """What is different for every list of labels, of one image: attention to them, both projections, cosines."""
        n, w, d = self.regions, self.width, self.joint
        ladder = self.adapted * (8.0 * n * labels * d + 2.0 * n * w * d)
        return ladder + 2.0 * self.tokens * (w * d + d * labels)

    def recognise(self, images: int, labels: int) -> float:
        """A forward pass with encoded labels."""
        return images * (self.stem + self.trunk + self.head(labels))

    def evaluate(self, distinct: int, asked: Sequence[tuple[int, int]], weights: int) -> float:
        """Several lists of labels by several sets of weights; labels encoded.

        Args:
            distinct: images, each counted once.
            asked: images and labels of each list.
            weights: such as raw and averaged ones, 2.
        """
        heads = sum(images * self.head(labels) for images, labels in asked)
        return distinct * self.stem + weights * (distinct * self.trunk + heads)

    def encode(self, texts: TextLengths) -> float:
        """New labels, without and with prompts."""
        return self._texts(texts, self.text_blocks) + self.prompt(texts)

    def prompt(self, texts: TextLengths) -> float:
        """Labels whose way through the frozen blocks is known."""
        return self._texts(texts, self.prompted)

    def train(self, images: int, texts: TextLengths) -> float:
        """A step: forward and backward pass, with the teacher and what the prompts change of the labels."""
        n, t, w, d, labels = self.regions, self.tokens, self.width, self.joint, texts.texts
        shared = 6.0 * t * w * w + _saa(t, w)  # of the first adapted block, by student and teacher
        last = 20.0 * t * w * w + 4.0 * t * t * w  # all but the values of the last one, which the teacher needs
        teacher = self.adapted * self.whole_block - shared - last + 2.0 * n * d * (w + labels)
        steps = 2 * self.adapted * (22.0 * n * w * d + 8.0 * n * labels * d)
        behind = (self.adapted - 1) * (26.0 * t * w * w + 16.0 * t * t * w)  # blocks and SAA behind the first adapted
        first = 18.0 * t * w * w  # whose prompts are reached from its output: MLP, output projection
        backward = steps + behind + first + 2.0 * n * d * (w + 2 * labels)
        each = self.stem + self.trunk + self.head(labels) + teacher + backward
        return images * each + 2 * self.prompt(texts)

    def _texts(self, texts: TextLengths, blocks: int) -> float:
        """The last blocks of the text tower; of the very last one, keys and values and the ends alone."""
        w, tokens = self.text_width, texts.shared + texts.own
        attention = 4.0 * texts.own * (texts.shared + texts.own / texts.texts) * w
        return (blocks - 1) * (24.0 * tokens * w * w + attention) + 4.0 * tokens * w * w + 20.0 * texts.texts * w * w


def _block(tokens: int, width: int) -> float:
    return 24.0 * tokens * width**2 + 4.0 * tokens**2 * width


def _saa(tokens: int, width: int) -> float:
    return 2.0 * tokens * width**2 + 4.0 * tokens**2 * width
