"""MKT against numbers of the official code (its words: test_template_words.py), and both stages as a method."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clip.image import ImageTrunk
from clip.load import load_clip
from clip.text import TextEncoder
from configs import load_config
from engine.checkpoint import CheckpointError
from engine.optim import optimizers
from engine.run import newest_run
from engine.state import load_state
from loss import normalised_ranking_loss
from model import ModelError, build_method
from model.compared.mkt import MKT, VisionTail, transfer_scores
from model.compared.template_words import TemplateWords
from tools.check_parity import build_clip, read

DATA = Path(__file__).parents[2] / "data"
RELEASE, OPEN = read(DATA / "release_mkt.npz"), read(DATA / "release_open.npz")
LIMIT = 1e-4  # of ||ours - theirs|| / ||theirs||
SEEN = ("cat", "cup", "dog", "tree")


def tensor(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def targets_of(key):
    """1, 0 and -1 (not known) from the method's +1, -1 and 0."""
    signs = RELEASE[key]
    return torch.from_numpy(np.select([signs == 1, signs == -1], [1, 0], -1))


def error(found, key):
    expected = tensor(key)
    return ((found.detach() - expected).norm() / expected.norm()).item()


def test_scores_losses_and_gradients_are_those_of_the_official_code():
    given = {name: tensor(f"head/{name}").requires_grad_() for name in ("in/tokens", "param/projection", "in/labels")}
    projected = given["in/tokens"] @ given["param/projection"]
    local, overall = transfer_scores(projected[:, 1:], projected[:, 0], given["in/labels"], top_k=16)
    ranking = normalised_ranking_loss((local + overall) / 2, targets_of("head/in/targets"))
    distillation = torch.nn.functional.l1_loss(projected[:, 0], tensor("head/in/teacher_features"))
    (ranking + distillation).backward()
    found = {"score.local": local, "score.global": overall, "score": (local + overall) / 2, "loss.ranking": ranking,
             "loss.distillation": distillation}  # fmt: skip
    assert max(error(value, f"head/out/{name}") for name, value in found.items()) < LIMIT
    for name, value in given.items():
        assert error(value.grad, f"head/grad/{name.split('/')[1]}") < LIMIT


@pytest.fixture
def release():
    """Stage 1 on the file's small CLIP, with the file's projection in the student alone."""
    clip = build_clip(OPEN)
    depth = len(clip.visual.transformer.resblocks)
    tokenize = load_clip("ViT-tiny-8", "random").tokenize
    text = TextEncoder(clip, tokenize, template="There is a {} in the scene", prompted=(0,))
    trunk = ImageTrunk(
        clip.visual, adapted=range(depth - 2, depth), saa_blocks=(), ladder_factor=1.0, ladder_start=0,
        positions="bilinear",
    )  # fmt: skip
    model = MKT(
        trunk=trunk, text=text, tail=VisionTail(clip.visual, 2), words=TemplateWords(text), stage=1, top_k=16,
        distillation=1.0, lr=1.0, layer_decay=0.65, weight_decay=0.05,
    )  # fmt: skip
    with torch.no_grad():
        model.tail.proj.copy_(tensor("stage1/param/projection"))
    return model


def test_stage_1_trains_as_the_official_code_does(release):
    images = torch.from_numpy(OPEN["image"].astype(np.float32))
    labels, targets = tensor("stage1/in/labels"), targets_of("stage1/in/targets")
    seen = labels[: targets.shape[1]]
    assert error(release(images, labels).scores, "stage1/out/score.before") < LIMIT
    trained, losses = optimizers(release.groups()), {"ranking": [], "distillation": []}
    for step, rate in enumerate(RELEASE["stage1/lr"]):
        for group in trained.groups():
            group["lr"] = float(rate) * group["base_lr"]
        output = release.train()(images.flip(3) if step % 2 else images, seen, targets)
        found = release.losses(output, targets)
        trained.zero_grad()
        sum(found.values()).backward()
        trained.step(torch.amp.GradScaler("cpu", enabled=False), torch.tensor(True))  # noqa: FBT003
        for name, value in found.items():
            losses[name].append(value.item())
    for name, values in losses.items():
        assert values == pytest.approx(RELEASE[f"stage1/loss.{name}"].tolist(), rel=LIMIT)
    output = release.eval()(images, labels)
    assert error(output.scores, "stage1/out/score") < LIMIT
    assert error(output.cls, "stage1/out/global_features") < LIMIT


def test_the_rates_of_the_parts_are_those_of_the_official_code(release):
    rates = {group.name.rsplit("_", 1)[0]: group.lr for group in release.groups()}
    assert [rates[name] for name in ("block_2", "block_3", "projection")] == pytest.approx(
        RELEASE["stage1/lr_scale"].tolist()
    )


def build(towers, *overrides):
    return build_method(
        load_config("configs/tiny.yml", ["MODEL.METHOD", "mkt", "MODEL.MKT.TOP_K", "4", *overrides]), towers
    )


def stage_2(towers, *overrides):
    return build(towers, "MODEL.MKT.STAGE", "2", *overrides)


def pictures(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def train(model, targets, images=None, steps=1):
    """The last output and its losses in training."""
    trained = optimizers(model.groups())
    for _ in range(steps):
        output = model.train()(pictures() if images is None else images, model.encode_labels(SEEN), targets)
        losses = model.losses(output, targets)
        trained.zero_grad()
        sum(losses.values()).backward()
        trained.step(torch.amp.GradScaler("cpu", enabled=False), torch.tensor(True))  # noqa: FBT003
    return output, losses


def test_before_training_both_stages_see_what_the_frozen_clip_sees(towers):
    text = towers.text(towers.tokenize([f"There is a {name} in the scene" for name in SEEN]))
    for model in (build(towers), stage_2(towers)):
        labels = model.encode_labels(SEEN)
        torch.testing.assert_close(labels, text, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(pictures(), labels).cls, towers.visual(pictures()), rtol=1e-4, atol=1e-5)


def test_local_and_global_scores_have_length_1_over_the_labels_asked_for(towers):
    model = build(towers)
    for names in (SEEN, SEEN[:2]):
        output = model(pictures(), model.encode_labels(names))
        torch.testing.assert_close(output.local.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(output.overall.norm(dim=1), torch.ones(3))
        assert torch.equal(output.scores, (output.local + output.overall) / 2)


def test_a_local_score_is_the_mean_of_as_many_regions_as_the_key_says(towers):
    model = build(towers, "MODEL.MKT.TOP_K", "16")
    labels, tokens = model.encode_labels(SEEN), model.tail(model.trunk.stem(pictures()).x)
    every = torch.nn.functional.normalize(tokens[:, 1:].mean(1) @ labels.T, dim=-1)
    torch.testing.assert_close(model(pictures(), labels).local, every, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [build, stage_2])
def test_training_leaves_the_towers_as_they_are(towers, make):
    visual, text = copy.deepcopy(towers.visual.state_dict()), copy.deepcopy(towers.text.state_dict())
    model = make(towers, "SOLVER.BASE_LR", "0.1")
    before = {name: value.clone() for name, value in model.trained_state().items()}
    train(model, torch.eye(3, 4), steps=2)
    assert all(torch.equal(value, towers.visual.state_dict()[name]) for name, value in visual.items())
    assert all(torch.equal(value, towers.text.state_dict()[name]) for name, value in text.items())
    moved = {
        name.split(".")[0] for name, value in model.trained_state().items() if not torch.equal(value, before[name])
    }
    assert moved == {"tail" if make is build else "words"}


@pytest.mark.parametrize("make", [build, stage_2])
def test_the_loss_falls(towers, make):
    model = make(towers, "SOLVER.BASE_LR", "0.01")
    (_, first), (_, last) = (train(model, torch.eye(3, 4), steps=steps) for steps in (1, 10))
    assert last["ranking"] < first["ranking"]


def test_every_parameter_of_a_stage_is_trained_and_no_other(towers):
    for model in (build(towers), build(towers, "MODEL.MKT.BLOCKS", "3"), stage_2(towers)):
        grouped = [id(p) for group in model.groups() for p in group.parameters]
        assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_stage_1_decays_matrices_alone_and_slows_down_block_by_block(towers):
    groups = build(towers, "SOLVER.BASE_LR", "8", "SOLVER.WEIGHT_DECAY", "0.5", "MODEL.MKT.LAYER_DECAY", "0.5").groups()
    assert {group.name: (group.lr, group.weight_decay) for group in groups} == {
        "projection_matrices": (8, 0.5), "projection_vectors": (8, 0), "block_2_matrices": (4, 0.5),
        "block_2_vectors": (4, 0), "block_1_matrices": (2, 0.5), "block_1_vectors": (2, 0),
    }  # fmt: skip
    for group in groups:
        assert {p.ndim for p in group.parameters} == ({1} if group.name.endswith("vectors") else {2})


def test_stage_2_trains_the_words_of_the_template(towers):
    (group,) = stage_2(towers, "SOLVER.BASE_LR", "0.5", "SOLVER.WEIGHT_DECAY", "0.25").groups()
    assert group[2:] == ("adamw", 0.5, 0.25, 0.0)
    assert [tuple(p.shape) for p in group.parameters] == [(8, 64)]  # start there is a in the scene end


def test_weights_that_were_trained_with_other_words_are_refused(towers):
    theirs, mine = (build(towers, "MODEL.MKT.TEMPLATE", text) for text in ("there is a {}.", "here is one {}."))
    assert theirs.words.rows.shape == mine.words.rows.shape
    with pytest.raises(ModelError, match="trained with another MODEL.MKT.TEMPLATE"):
        mine.load_trained_state(theirs.trained_state())


def test_the_distance_to_the_frozen_clip_is_a_loss_of_stage_1_alone(towers):
    targets = torch.eye(3, 4)
    output, losses = train(build(towers, "MODEL.MKT.DISTILLATION", "0.5"), targets)
    torch.testing.assert_close(output.teacher, towers.visual(pictures()), rtol=1e-4, atol=1e-5)
    assert losses["distillation"] == 0.5 * (output.cls - output.teacher).abs().mean()
    output, losses = train(stage_2(towers), targets)
    assert (output.teacher, list(losses)) == (None, ["ranking"])


def test_images_without_a_present_label_take_no_part_in_a_training_step(towers):
    targets = torch.tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 1, -1]])
    (output, losses), (without, expected) = (
        train(build(towers), targets[kept], pictures()[kept]) for kept in ([0, 1, 2], [0, 2])
    )
    assert output.kept.tolist() == [True, False, True]
    torch.testing.assert_close(output.scores, without.scores)
    torch.testing.assert_close(losses, expected)


def test_the_losses_of_an_evaluation_are_of_all_images(towers):
    model, targets = build(towers).eval(), torch.eye(3, 4)
    output = model(pictures(), model.encode_labels(SEEN))
    assert output.kept is None
    assert model.losses(output, targets) == {"ranking": normalised_ranking_loss(output.scores, targets)}


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("BLOCKS", "4", "between 1 and the 3 blocks of the image tower, not 4"),
        ("TOP_K", "17", "between 1 and the 16 regions of an image, not 17"),
    ],
)
def test_impossible_settings_are_refused_by_name(towers, key, value, wanted):
    with pytest.raises(ModelError, match=rf"MODEL\.MKT\.{key} must be {wanted}"):
        build(towers, f"MODEL.MKT.{key}", value)


def test_regions_are_counted_on_the_smaller_images(towers):
    with pytest.raises(ModelError, match="between 1 and the 8 regions"):
        build(towers, "INPUT.SIZE_TEST", "(32, 16)", "MODEL.MKT.TOP_K", "9")


@pytest.mark.parametrize("make", [build, stage_2])
def test_scores_are_computed_in_float32_whatever_the_towers_are_computed_in(towers, make):
    model, targets = make(towers).train(), torch.eye(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(pictures(), model.encode_labels(SEEN), targets)
    sum(model.losses(output, targets).values()).backward()
    assert output.scores.dtype == torch.float32
    assert all(p.grad.isfinite().all() for group in model.groups() for p in group.parameters)


@pytest.fixture
def stages(benchmark, tmp_path):
    """Configurations of both stages, with a folder of runs each."""

    def config(stage, *more):
        return benchmark.config(
            "MODEL.METHOD", "mkt", "MODEL.USE_EMA", "False", "MODEL.MKT.TOP_K", "4", "MODEL.MKT.STAGE", str(stage),
            "SOLVER.MAX_EPOCHS", "1", "OUTPUT_DIR", str(tmp_path / f"stage-{stage}"), *more,
        )  # fmt: skip

    return config


def test_stage_2_begins_with_stage_1_and_either_is_tested(stages, train_script, test_script):
    runs = []
    for stage in (1, 2):
        train_script.train(stages(stage, *(("SOLVER.INIT", str(runs[0])) if runs else ())), None)
        runs += Path(stages(stage).OUTPUT_DIR).iterdir()
        test_script.test(stages(stage))
        results = json.loads((newest_run(runs[-1] / "test", "results.json") / "results.json").read_text())["results"]
        assert list(results["MKT"]) == ["ZSL", "GZSL"]  # unseen labels alone, and all of them
    first, second = (load_state(run / "checkpoint.pth").model for run in runs)
    assert first.keys() == second.keys()
    assert {name for name, value in first.items() if not torch.equal(value, second[name])} == {"words.rows"}
    with pytest.warns(UserWarning, match=r"MODEL\.MKT\.STAGE was 1 in training and is 2"):
        test_script.test(stages(2, "TEST.WEIGHT", str(runs[0] / "checkpoint.pth")))


def test_stage_2_does_not_begin_with_another_tail(stages, train_script):
    train_script.train(stages(1, "MODEL.MKT.BLOCKS", "1"), None)
    (run,) = Path(stages(1).OUTPUT_DIR).iterdir()
    with pytest.raises(CheckpointError, match=r"SOLVER\.INIT .* is of another model: tail\."):
        train_script.train(stages(2, "SOLVER.INIT", str(run)), None)
