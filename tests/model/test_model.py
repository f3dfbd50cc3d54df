"""RAM as a whole, on a tiny CLIP with random weights."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from configs import load_config
from loss import mmc_loss
from model import Labels, ModelError, build_method

TINY = ["MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random", "MODEL.DEPTH_VISION", "(1, 2)",
        "MODEL.DEPTH_TEXT", "(1, 2)", "MODEL.SAA_LAYER", "(3, -1)", "MODEL.TEXT_CTX", "2", "MODEL.VISION_ADAPT", "3",
        "INPUT.SIZE_TRAIN", "(32, 32)", "INPUT.SIZE_TEST", "(32, 32)"]  # fmt: skip
NAMES = ("dog", "traffic light", "person", "car", "kite")
TARGETS = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
TRAINED_TSS = (
    "conv1x1.weight", "bn1x1.weight", "bn1x1.bias", "conv3x3.weight", "bn3x3.weight", "bn3x3.bias",
    "norm_query1x1.weight", "norm_query1x1.bias", "norm_query3x3.weight", "norm_query3x3.bias",
    "norm_text.weight", "norm_text.bias", "mask_conv.weight", "out_conv.weight",
)  # fmt: skip
STATISTICS = tuple(
    f"{bn}.{s}" for bn in ("bn1x1", "bn3x3") for s in ("running_mean", "running_var", "num_batches_tracked")
)


@pytest.fixture
def model(towers):
    return build(towers)


def build(towers, *overrides):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(load_config(overrides=[*TINY, *overrides]), towers).eval()


def images(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def recognise(model, targets=None, batch=None):
    return model(images() if batch is None else batch, model.encode_labels(NAMES), targets)


def loss_of(model):
    found = recognise(model, TARGETS)
    return mmc_loss(found.global_logits, TARGETS) + mmc_loss(found.local_logits, TARGETS)


def test_outputs_have_their_shapes(model):
    found = recognise(model, TARGETS)
    shapes = {name: tuple(getattr(found, name).shape) for name in ("scores", "global_logits", "local_logits")}
    assert shapes == dict.fromkeys(shapes, (3, 5))
    assert found.similarity.shape == found.assignment.shape == found.matching.plan.shape == (3, 16, 5)
    assert found.grid == (4, 4)


def test_scores_are_the_mean_of_both_softmaxes(model):
    found = recognise(model)
    local, global_ = (x.double().exp() for x in (found.local_logits, found.global_logits))
    expected = (local / local.sum(1, keepdim=True) + global_ / global_.sum(1, keepdim=True)) / 2
    torch.testing.assert_close(found.scores.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.scores.sum(1), torch.ones(3))


def test_local_logits_are_plan_weighted_similarities_over_their_temperature(model):
    found = recognise(model)
    expected = torch.einsum("bnc,bnc->bc", found.matching.plan, found.similarity) / 2e-3
    torch.testing.assert_close(found.local_logits, expected, rtol=1e-4, atol=1e-4)


def test_global_logits_are_cosines_over_their_temperature(model):
    labels = model.encode_labels(NAMES)
    cls = model.trunk.finish(model.trunk.stem(images()), model.visual_prompts()).cls
    expected = F.cosine_similarity(cls[:, None], labels.features[None], dim=-1) / 1e-2
    torch.testing.assert_close(recognise(model).global_logits, expected, rtol=1e-4, atol=1e-4)


def test_similarities_are_cosines_of_regions_at_the_top_of_the_ladder_and_labels(model):
    labels = model.encode_labels(NAMES)
    features = model.trunk.finish(model.trunk.stem(images()), model.visual_prompts())
    regions = model.trunk.project(model.adapter(features, labels.features))
    expected = F.cosine_similarity(regions[:, :, None], labels.features, dim=-1)
    torch.testing.assert_close(recognise(model).similarity, expected, rtol=1e-4, atol=1e-5)


def test_labels_hold_names_and_features_with_and_without_prompts(model):
    labels = model.encode_labels(list(NAMES))
    frozen = model.text.text(model.text.tokenize([f"A photo of a {name}." for name in NAMES]))
    assert labels.names == NAMES
    torch.testing.assert_close(labels.frozen, frozen, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(labels.features, labels.frozen)


@pytest.mark.parametrize("training", [True, False])
def test_targets_switch_the_teacher_on(model, training):
    model.train(training)
    without, with_teacher = recognise(model), recognise(model, TARGETS)
    assert without.assignment is None
    assert without.matching.reg == 0.1
    assert math.isclose(with_teacher.matching.reg, 0.15)
    regions = model.trunk.teacher_regions(model.trunk.stem(images(), teacher=True))
    frozen = model.encode_labels(NAMES).frozen
    assert torch.equal(with_teacher.assignment, model.teach(regions, frozen))


def test_scores_of_an_image_do_not_depend_on_its_batch(model):
    alone, together = recognise(model, batch=images()[1:2]), recognise(model)
    torch.testing.assert_close(alone.scores[0], together.scores[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(alone.matching.plan[0], together.matching.plan[1], rtol=1e-4, atol=1e-6)


def test_in_steps_the_same_is_said_to_the_bit_of_each_list_of_labels(model):
    model.eval()
    features = model.features(model.stem(images()))
    for names in (NAMES, NAMES[:2]):
        labels = model.encode_labels(names)
        in_steps, at_once = model.recognise(features, labels), model(images(), labels)
        assert torch.equal(in_steps.scores, at_once.scores)
        assert torch.equal(in_steps.matching.plan, at_once.matching.plan)


def test_scores_depend_on_the_candidate_labels(model):
    few = model(images(), model.encode_labels(NAMES[:3]))
    assert not torch.allclose(few.similarity, recognise(model).similarity[..., :3], atol=1e-4)


def test_checkpoint_holds_exactly_what_is_trained(model):
    expected = {"local_temperature", "global_temperature"}
    expected |= {f"{kind}_prompts.by_block.{block}" for kind in ("visual", "label") for block in (1, 2)}
    expected |= {f"adapter.selections.{block}.{name}" for block in (1, 2) for name in TRAINED_TSS + STATISTICS}
    assert set(model.trained_state()) == expected


def test_groups_hold_all_parameters_that_require_gradients_once(model):
    parts = [p for group in model.groups() for p in group.parameters]
    assert len({id(p) for p in parts}) == len(parts)
    assert {id(p) for p in parts} == {id(p) for p in model.parameters() if p.requires_grad}


def test_trained_state_goes_back_to_another_model(towers):
    source, target = build(towers), build(towers)
    with torch.no_grad():
        for value in source.trained_state().values():
            value += 1
    target.load_trained_state(copy.deepcopy(source.trained_state()))
    assert all(torch.equal(value, source.trained_state()[name]) for name, value in target.trained_state().items())
    source.local_temperature.data += 1
    assert target.local_temperature != source.local_temperature  # copied, not shared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("visual_prompts.by_block.1"), r"visual_prompts.by_block.1 is \(3, 64\) in .* missing in"),
        (lambda s: s.update(other=torch.ones(2)), r"other is missing in this model and \(2,\) in the checkpoint"),
        (lambda s: s.update(local_temperature=torch.ones(1)), r"local_temperature is \(\) in .* and \(1,\) in"),
    ],
)
def test_state_of_another_model_is_refused_by_name_and_changes_nothing(model, change, message):
    state = {name: value + 1 for name, value in model.trained_state().items()}
    before = copy.deepcopy(model.trained_state())
    change(state)
    with pytest.raises(ModelError, match=message):
        model.load_trained_state(state)
    assert all(torch.equal(value, before[name]) for name, value in model.trained_state().items())


def test_frozen_towers_stay_in_evaluation_mode(model):
    model.train()
    assert not any(m.training for tower in (model.trunk, model.text) for m in tower.modules())
    assert all(m.training for m in model.adapter.modules())
    assert not model.eval().adapter.training


def test_step_changes_every_trained_parameter_and_no_frozen_weight(model):
    model.train()
    frozen = {k: v.clone() for k, v in model.state_dict().items() if k.startswith(("trunk.", "text."))}
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([p for group in model.groups() for p in group.parameters], lr=1e-3, weight_decay=0.0)
    loss_of(model).backward()
    optimizer.step()
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert [name for name, value in before.items() if torch.equal(after[name], value)] == []


def test_gradients_reach_label_prompts_through_selections_and_through_logits(model):
    def gradient(labels):
        model.zero_grad()
        found = model(images(), labels, TARGETS)
        mmc_loss(found.local_logits, TARGETS).backward()
        return torch.cat([p.grad.flatten() for p in model.label_prompts.parameters()])

    labels = model.encode_labels(NAMES)
    both = gradient(labels)
    forward = model.adapter.forward
    model.adapter.forward = lambda features, features_of_labels: forward(features, features_of_labels.detach())
    logits_only = gradient(model.encode_labels(NAMES))
    assert logits_only.abs().sum() > 0
    assert (both - logits_only).abs().max() > 1e-3 * both.abs().max()


def test_no_gradient_flows_through_the_plan(model):
    found = recognise(model, TARGETS)
    assert found.similarity.requires_grad
    assert not found.matching.plan.requires_grad
    assert not found.assignment.requires_grad


def test_scores_under_bfloat16_autocast_are_near_those_of_float32(model):
    expected = recognise(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = recognise(model)
    assert found.scores.dtype == found.similarity.dtype == torch.float32
    assert (found.scores - expected.scores).abs().max() < 0.1
    assert (found.similarity - expected.similarity).abs().max() < 0.02


def test_bfloat16_autocast_trains(model):
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for group in model.groups() for p in group.parameters)


class Scores(torch.nn.Module):
    """RAM as a function of tensors alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch, features):
        return self.model(batch, Labels((), features, features)).scores


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_forward_pass_is_exported_with_any_number_of_images_and_labels(towers):
    scores = Scores(build(towers, "MODEL.OT_TOL", "0"))
    example = (images(3), torch.randn(4, 32, generator=torch.Generator().manual_seed(0)))
    sizes = {"batch": {0: torch.export.Dim("B", max=64)}, "features": {0: torch.export.Dim("C", max=4096)}}
    exported = torch.export.export(scores, example, dynamic_shapes=sizes).module()
    for count, labels in ((1, 1), (2, 7), (5, 300)):
        inputs = (images(count), torch.randn(labels, 32, generator=torch.Generator().manual_seed(labels)))
        torch.testing.assert_close(exported(*inputs), scores(*inputs))
