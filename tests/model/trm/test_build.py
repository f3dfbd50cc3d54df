"""TRM-ML from the configuration: the published counts of parameters, and settings that are refused."""

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import nn

from clip.text import TextEncoder
from configs import load_config
from model import ModelError, build_method
from model.trm import build as trm
from model.trm.build import build_trm

LABELS = ("cat", "traffic light", "dog", "kite")
UNIT = 2**20  # of the paper's Table 5
RESNETS = {  # layers, width, joint width
    "RN101": ((3, 4, 23, 3), 64, 512), "RN50": ((3, 4, 6, 3), 64, 1024),
}  # fmt: skip


def build(towers, *overrides, labels=LABELS, seen=None):
    cfg = load_config("configs/tiny.yml", ["MODEL.METHOD", "trm-ml", *overrides])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(cfg, towers, seen=len(labels) if seen is None else seen, labels=labels)


class Pooled(nn.Module):
    """A ResNet as an image trunk, as far as counting goes."""

    def __init__(self, visual):
        super().__init__()
        self.visual = visual


@pytest.fixture
def of_resnet(monkeypatch):
    """TRM-ML for MS-COCO on a ResNet, without weights."""

    def make(name, labels=80):
        layers, width, joint = RESNETS[name]
        with torch.device("meta"):
            clip = CLIP(
                joint, {"layers": layers, "width": width, "image_size": 224, "patch_size": None},
                {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}, quick_gelu=True,
            ).requires_grad_(False)  # fmt: skip
            text = TextEncoder(clip, None, template="{}", prompted=())
            monkeypatch.setattr(trm, "frozen_trunk", lambda *_, **_how: Pooled(clip.visual))
            monkeypatch.setattr(trm, "frozen_text", lambda *_: text)
            monkeypatch.setattr(trm, "fewest_regions", lambda *_: 196)
            cfg = load_config(overrides=["MODEL.CONTEXT.COUNT", "16"])
            return clip, build_trm(cfg, None, labels=[f"label {k}" for k in range(labels)])

    return make


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


def test_the_counts_of_parameters_are_those_of_table_5(of_resnet):
    clip, method = of_resnet("RN101")
    frozen = count(clip.parameters()) - 1  # CLIP's own temperature
    frozen -= clip.token_embedding.weight.numel() + clip.visual.attnpool.positional_embedding.numel()
    assert frozen == 56_157_536 + 38_131_200
    contexts = count([method.positive.vectors, method.negative.vectors])
    learnable = count(group for group in method.groups()[0].parameters)
    assert [f"{number / UNIT:.2f}" for number in (frozen + contexts, contexts)] == ["91.17", "1.25"]  # DualCoOp
    assert [f"{number / UNIT:.2f}" for number in (frozen + learnable, learnable)] == ["96.72", "6.80"]
    assert learnable - contexts == 5_821_952 + 1  # and theta


def test_on_a_resnet_50_contexts_keep_their_width_and_the_decoder_is_as_wide_as_the_joint_space(of_resnet):
    _, method = of_resnet("RN50", labels=20)
    assert method.positive.vectors.shape == (20, 16, 512)
    assert method.decoder.queries.shape == (20, 1024)
    assert method.decoder.linear1.weight.shape == (2048, 1024)
    assert method.objective.projection[2].weight.shape == (1024, 1024)


def test_contexts_are_of_each_label_and_drawn_apart(towers):
    method = build(towers, "MODEL.CONTEXT.COUNT", "7")
    drawn = torch.stack([method.positive.vectors, method.negative.vectors])
    assert drawn.shape == (2, 4, 7, 64)
    assert len({tuple(vector) for vector in drawn.flatten(0, 2).tolist()}) == 56
    assert drawn.std().item() == pytest.approx(0.02, rel=0.05)


def test_positive_contexts_can_begin_as_words(towers):
    method = build(towers, "MODEL.CONTEXT.WORDS", "a photo of a")
    assert method.positive.vectors.shape == (4, 4, 64)
    assert all(torch.equal(own, method.positive.vectors[0]) for own in method.positive.vectors)
    assert not torch.equal(method.negative.vectors[0], method.negative.vectors[1])


def test_negative_contexts_without_names_begin_as_the_words_too(towers):
    method = build(towers, "MODEL.CONTEXT.WORDS", "a photo of a", "MODEL.CONTEXT.NEGATIVE", "nothing")
    assert torch.equal(method.negative.vectors, method.positive.vectors)
    labels = method.encode_labels(LABELS)
    assert torch.equal(labels.negative[0], labels.negative[1])
    assert not torch.equal(labels.positive[0], labels.positive[1])


def test_queries_can_begin_as_texts_as_long_as_random_ones(towers):
    method = build(towers, "MODEL.TRM.QUERIES", "texts")
    queries, texts = method.decoder.queries, method.text.prefix(LABELS).plain
    torch.testing.assert_close(queries.norm(dim=-1), torch.full((4,), queries.shape[1] ** 0.5))
    torch.testing.assert_close(F.cosine_similarity(queries, texts), torch.ones(4))


def test_the_scale_begins_as_asked_for(towers):
    assert build(towers, "MODEL.TRM.SCALE", "7").log_scale.exp().item() == pytest.approx(7)


@pytest.mark.parametrize(("chosen", "kinds"), [
    ("both", ("visual", "text")), ("visual", ("visual",)), ("text", ("text",)), ("none", ()),
])  # fmt: skip
def test_pseudo_labels_are_made_by_the_chosen_prototypes(towers, chosen, kinds):
    assert build(towers, "MODEL.TRM.PSEUDO_LABELS", chosen).prototypes.kinds == kinds


@pytest.mark.parametrize(("overrides", "complaint"), [
    (["MODEL.TRM.TOP_K", "17"], r"MODEL\.TRM\.TOP_K must be at most the 16 regions of an image, not 17"),
    (["MODEL.CONTEXT.COUNT", "75"], r"MODEL\.CONTEXT\.COUNT must be between 1 and 74, not 75"),
])  # fmt: skip
def test_impossible_settings_name_their_key(towers, overrides, complaint):
    with pytest.raises(ModelError, match=complaint):
        build(towers, *overrides)


def test_a_joint_width_that_has_no_positions_is_refused(towers, monkeypatch):
    monkeypatch.setattr(TextEncoder, "joint_width", 30)
    with pytest.raises(ModelError, match=r"MODEL\.BACKBONE must be one whose joint width, here 30, is a multiple of 4"):
        build(towers)


def test_without_labels_it_is_not_built(towers):
    with pytest.raises(ModelError, match="trm-ml has prompts of each label's own, and no labels are known here"):
        build(towers, labels=())


def test_unseen_labels_are_refused_with_a_way_out(towers):
    with pytest.raises(ModelError, match="1 of 4 labels are unseen, 'kite' among them: take a benchmark without such"):
        build(towers, seen=3)
