"""Configuration to model: every key has its effect, and impossible ones are refused by name."""

import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP

from clip.load import ClipTowers, WeightsError, load_clip
from configs import load_config
from model import MATCHERS, ModelError, ZeroShotCLIP, block_indices, build_method, build_zero_shot, load_towers
from model.matchers import Average, Bipartite, Reweight
from model.ot_native import solve_natively
from model.ot_solver import sinkhorn
from model.ot_triton import FusedKCOT
from model.pot_solver import Unbalanced, solve_with_pot

TINY = ["MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random", "MODEL.DEPTH_VISION", "(1, 2)",
        "MODEL.DEPTH_TEXT", "(1, 2)", "MODEL.SAA_LAYER", "(3, -1)", "INPUT.SIZE_TRAIN", "(32, 32)",
        "INPUT.SIZE_TEST", "(32, 32)"]  # fmt: skip
NAMES = ("dog", "traffic light", "person")
B_16 = {
    "vision_cfg": {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


def config(*overrides):
    return load_config(overrides=[*TINY, *overrides])


def build(towers, *overrides):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(config(*overrides), towers).eval()


def recognise(model, targets=None):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return model(images, model.encode_labels(NAMES), targets)


@pytest.mark.parametrize(
    ("spec", "blocks"),
    [((9, 10, 11), (9, 10, 11)), ((4, 1), (1, 4)), ((0,), (0,)), ((-1,), ()), ((), ()), ((12, -1), tuple(range(12))),
     ((3, -1), (0, 1, 2)), ((0, -1), ()), (("none",), ()), (("all",), tuple(range(12))), (("first", 2), (0, 1)),
     (("last", 3), (9, 10, 11)), (("last", 0), ()), (("first", 12), tuple(range(12)))],
)  # fmt: skip
def test_blocks_are_listed_or_words(spec, blocks):
    assert block_indices(spec, 12, "KEY") == blocks


@pytest.mark.parametrize(
    "spec",
    [
        (12,),
        (-2,),
        (13, -1),
        (-3, -1),
        (3, 3),
        (1, 2, -1),
        (1.5,),
        (1.5, -1),
        ("1",),
        ("last", 13),
        ("last", -1),
        ("some",),
    ],
)
def test_blocks_that_the_tower_lacks_are_refused(spec):
    with pytest.raises(ModelError, match=r"KEY is \[.*\], but the tower has blocks 0 to 11, each to be named once"):
        block_indices(spec, 12, "KEY")


def test_the_last_blocks_of_a_deeper_tower_need_no_other_setting():
    assert block_indices(load_config().MODEL.DEPTH_VISION, 24, "KEY") == (21, 22, 23)


def test_a_local_temperature_of_zero_is_a_tenth_over_the_number_of_seen_labels(towers):
    model = build_method(config("MODEL.TEMPERATURE", "0.0"), towers, seen=35)
    assert model.local_temperature.item() == pytest.approx(0.1 / 35)


def test_texts_of_labels_reach_the_text_tower_of_the_model_and_of_zero_shot_clip(towers):
    cfg = config("MODEL.TEMPLATE", "{}!")
    texts = {"a": "two words!"}
    model, plain = build_method(cfg, towers, texts=texts), build_method(cfg, towers)
    zero_shot, plain_zero_shot = build_zero_shot(cfg, towers, texts=texts), build_zero_shot(cfg, towers)
    assert torch.equal(model.encode_labels(["a"]).frozen, plain.encode_labels(["two words"]).frozen)
    assert torch.equal(zero_shot.encode_labels(["a"]), plain_zero_shot.encode_labels(["two words"]))


@pytest.mark.parametrize("key", ["DEPTH_VISION", "DEPTH_TEXT", "SAA_LAYER"])
def test_error_names_the_key_of_the_blocks(towers, key):
    with pytest.raises(ModelError, match=f"MODEL.{key} is"):
        build(towers, f"MODEL.{key}", "(9, 10, 11)")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("TEMPERATURE", "0.0", "positive, or auto where the seen labels are known"),
        ("TEXT_CTX", "76", "between 0 and 75"),
    ],
)
def test_impossible_numbers_are_refused_by_name(towers, key, value, wanted):
    with pytest.raises(ModelError, match=f"MODEL.{key} must be {wanted}"):
        build(towers, f"MODEL.{key}", value)


@pytest.mark.parametrize(
    ("key", "value", "attribute"),
    [("OT_REG", 0.2, "reg"), ("OT_REGSC", 0.01, "reg_teacher"), ("LPD_TEMPERATURE", 0.3, "presence_temperature")],
)
def test_matching_obeys_its_keys(towers, key, value, attribute):
    assert getattr(build(towers).matcher, attribute) != value
    assert getattr(build(towers, f"MODEL.{key}", str(value)).matcher, attribute) == value


@pytest.mark.parametrize(
    ("key", "value", "argument"), [("OT_ITER", 7, "max_iter"), ("OT_TOL", 0.5, "tol"), ("OT_STOP", "batch", "stop")]
)
def test_the_solver_obeys_its_keys(towers, key, value, argument):
    usual, changed = build(towers).matcher.solve, build(towers, f"MODEL.{key}", str(value)).matcher.solve
    assert usual.func is changed.func is sinkhorn
    assert usual.keywords[argument] != value
    assert changed.keywords[argument] == value


def test_a_tolerance_of_0_looks_at_no_value(towers):
    assert build(towers, "MODEL.OT_TOL", "0").matcher.solve.keywords["tol"] is None


def test_the_solver_can_be_pots(towers):
    solve = build(towers, "MODEL.OT_SOLVER", "pot", "MODEL.OT_ITER", "9", "MODEL.OT_TOL", "0.5").matcher.solve
    assert (solve.func, solve.keywords) == (solve_with_pot, {"max_iter": 9, "tol": 0.5})


def test_the_solver_can_be_a_kernel(towers):
    usual = build(towers, "MODEL.MATCHER", "ot+tkt").matcher
    fused = build(towers, "MODEL.MATCHER", "ot+tkt", "MODEL.OT_SOLVER", "triton", "MODEL.OT_ITER", "9").matcher
    assert (type(fused), fused.max_iter, fused.tol) == (FusedKCOT, 9, 1e-3)
    names = ("scale", "reg", "reg_teacher", "presence_temperature")
    assert [getattr(fused, name) for name in names] == [getattr(usual, name) for name in names]
    assert build(towers, "MODEL.OT_SOLVER", "triton", "MODEL.OT_TOL", "0").matcher.tol is None


def test_the_solver_can_be_native_code(towers):
    solve = build(towers, "MODEL.OT_SOLVER", "native", "MODEL.OT_ITER", "9", "MODEL.OT_TOL", "0.5").matcher.solve
    assert (solve.func, solve.keywords) == (solve_natively, {"max_iter": 9, "tol": 0.5})
    assert build(towers, "MODEL.OT_SOLVER", "native", "MODEL.OT_TOL", "0").matcher.solve.keywords["tol"] is None


@pytest.mark.parametrize("solver", ["native", "triton"])
def test_images_in_a_kernel_do_not_wait_for_each_other(towers, solver):
    with pytest.raises(ModelError, match=f"MODEL.OT_STOP must be image with MODEL.OT_SOLVER {solver}, not 'batch'"):
        build(towers, "MODEL.OT_SOLVER", solver, "MODEL.OT_STOP", "batch")


@pytest.mark.parametrize(
    ("name", "presence", "teacher"),
    [("kcot", 0.1, 0.05), ("ot", None, None), ("ot+lpd", 0.1, None), ("ot+tkt", None, 0.05)],
)
def test_matchers_of_table_6_are_kcot_without_its_parts(towers, name, presence, teacher):
    matcher = build(towers, "MODEL.MATCHER", name).matcher
    assert (matcher.presence_temperature, matcher.reg_teacher) == (presence, teacher)
    assert matcher.needs_teacher == (teacher is not None)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("average", Average, {}),
        ("reweight", Reweight, {"sharpness": 3.0}),
        ("bipartite", Bipartite, {}),
        ("unbalanced", Unbalanced, {"reg": 0.2, "relax": 7.0, "max_iter": 9, "tol": 0.5}),
    ],
)
def test_other_matchers_are_built_from_their_keys(towers, name, kind, settings):
    keys = ("MODEL.REWEIGHT_SHARPNESS", "3.0", "MODEL.OT_REG", "0.2", "MODEL.OT_RELAX", "7.0", "MODEL.OT_ITER", "9",
            "MODEL.OT_TOL", "0.5")  # fmt: skip
    matcher = build(towers, "MODEL.MATCHER", name, *keys).matcher
    assert type(matcher) is kind
    assert {key: getattr(matcher, key) for key in settings} == pytest.approx(settings)
    assert getattr(matcher, "scale", towers.logit_scale) == towers.logit_scale


@pytest.mark.parametrize("name", MATCHERS)
def test_every_matcher_trains_and_scores(towers, name):
    targets = torch.tensor([[1, 0, 0], [0, 1, 1]])
    model = build(towers, "MODEL.MATCHER", name).train()
    output = recognise(model, targets)
    torch.stack(list(model.losses(output, targets).values())).sum().backward()
    assert all(p.grad.isfinite().all() for group in model.groups() for p in group.parameters)
    assert (output.assignment is not None) == model.matcher.needs_teacher
    torch.testing.assert_close(output.matching.plan.sum(1), torch.full((2, 3), 1 / 3))
    assert all(value.ndim == 0 for value in model.diagnostics(output).values())


@pytest.mark.parametrize(("key", "value"), [("METHOD", "clip"), ("MATCHER", "hungarian")])
def test_names_that_are_not_in_the_table_are_refused_with_those_that_are(towers, key, value):
    with pytest.raises(ModelError, match=f"MODEL.{key} must be one of (ram, .*zero-shot, .*|kcot, .*), not '{value}'"):
        build(towers, f"MODEL.{key}", value)


def test_zero_shot_is_a_method_like_any_other(towers):
    model = build(towers, "MODEL.METHOD", "zero-shot")
    assert isinstance(model, ZeroShotCLIP)
    assert model.trained_state() == {}


@pytest.mark.parametrize("score", ["global", "local", "both"])
def test_zero_shot_scores_as_its_key_says_and_the_row_beside_other_methods_globally(towers, score):
    cfg = config("MODEL.METHOD", "zero-shot", "MODEL.ZERO_SHOT.SCORE", score)
    assert build_method(cfg, towers).score == score
    assert build_zero_shot(cfg, towers).score == "global"


def test_the_cost_and_the_teacher_use_the_scale_of_the_clip(towers):
    model = build(towers)
    assert model.matcher.scale == towers.logit_scale
    assert model.teach.keywords == {"scale": towers.logit_scale, "sharpness": 20.0}


def test_one_ladder_factor_serves_saa_and_tss(towers):
    model, usual = (build(towers, "MODEL.LADDER_FACTOR", factor) for factor in ("0.5", "1.0"))
    images, labels = torch.randn(2, 3, 32, 32), torch.randn(3, 32)
    found, full = (m.trunk.finish(m.trunk.stem(images), {}) for m in (model, usual))
    start = found.saa - (full.saa - found.saa)  # the embeddings: half a sum of SAA below the half ladder
    torch.testing.assert_close(model.adapter(found, labels) - start, (usual.adapter(full, labels) - start) / 2)


def test_without_tss_the_ladder_is_saa_alone_and_visual_prompts_stay(towers):
    model = build(towers, "MODEL.TSS", "False")
    features = model.trunk.finish(model.trunk.stem(torch.zeros(1, 3, 32, 32)), model.visual_prompts())
    assert torch.equal(model.adapter(features, torch.zeros(3, 32)), features.saa)
    assert list(model.visual_prompts()) == [1, 2]


def test_without_saa_and_tss_regions_are_clips_own_patches(towers):
    model = build(towers, "MODEL.TSS", "False", "MODEL.SAA_LAYER", "(-1,)", "MODEL.VISION_ADAPT", "0")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    visual = towers.visual
    visual.output_tokens = True  # open_clip's own patches, normalised but not projected
    try:
        _, patches = visual(images)
    finally:
        visual.output_tokens = False
    labels = model.encode_labels(NAMES)
    expected = F.cosine_similarity((patches @ visual.proj)[:, :, None], labels.features, dim=-1)
    torch.testing.assert_close(model(images, labels).similarity, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TEMPLATE", "{} at sea"),
        ("DEPTH_VISION", "(2,)"),
        ("DEPTH_TEXT", "(2,)"),
        ("SAA_LAYER", "(2,)"),
        ("TEXT_CTX", "2"),
        ("VISION_ADAPT", "2"),
        ("LADDER_FACTOR", "0.5"),
        ("KERNEL_SIZE", "5"),
        ("TEMPERATURE", "1e-3"),
        ("TEMPERATURE_GLOBAL", "2e-2"),
        ("LPD_TEMPERATURE", "0.5"),
        ("OT_REG", "0.2"),
        ("OT_ITER", "1"),
    ],
)
def test_each_key_changes_the_scores(towers, key, value):
    changed, usual = recognise(build(towers, f"MODEL.{key}", value)), recognise(build(towers))
    assert torch.isfinite(changed.scores).all()
    assert not torch.equal(changed.scores, usual.scores)


def test_the_ladder_can_start_from_what_enters_its_first_block(towers):
    printed = ("MODEL.SAA_LAYER", "(1, 2)", "MODEL.LADDER_FACTOR", "0.5")
    assert build(towers, *printed, "MODEL.LADDER_START", "block").trunk.ladder_start == 1
    assert build(towers, "MODEL.SAA_LAYER", "(2,)", "MODEL.LADDER_START", "block").trunk.ladder_start == 1  # TSS
    assert build(towers, *printed).trunk.ladder_start == 0
    changed, usual = (recognise(build(towers, *printed, "MODEL.LADDER_START", s)) for s in ("block", "embeddings"))
    assert not torch.allclose(changed.similarity, usual.similarity, atol=1e-3)


def test_positions_are_resized_as_the_key_says(towers):
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    found = [
        model(images, model.encode_labels(NAMES)).similarity
        for model in (build(towers, "MODEL.POSITIONS", how) for how in ("bilinear", "bicubic"))
    ]
    assert not torch.allclose(*found, atol=1e-5)


@pytest.mark.parametrize(
    "student",
    [
        ("MODEL.SAA_LAYER", "(-1,)"),
        ("MODEL.SAA_LAYER", "(2,)"),
        ("MODEL.LADDER_FACTOR", "0.5"),
        ("MODEL.SAA_LAYER", "(1, 2)", "MODEL.LADDER_START", "block"),
    ],
)
def test_the_students_ladder_does_not_change_the_teacher(towers, student):
    targets = torch.tensor([[1, 0, 0], [0, 1, 1]])
    changed, usual = (recognise(build(towers, *overrides), targets) for overrides in (student, ()))
    torch.testing.assert_close(changed.assignment, usual.assignment)
    assert not torch.allclose(changed.similarity, usual.similarity, atol=1e-3)


@pytest.mark.parametrize(("key", "value"), [("OT_REGSC", "0.2"), ("TKT_SHARPNESS", "5.0")])
def test_each_key_of_the_teacher_changes_the_plan_in_training(towers, key, value):
    targets = torch.tensor([[1, 0, 0], [0, 1, 1]])
    changed = recognise(build(towers, f"MODEL.{key}", value), targets)
    assert not torch.equal(changed.matching.plan, recognise(build(towers), targets).matching.plan)


def test_prompts_stand_where_and_as_many_as_configured(towers):
    model = build(towers, "MODEL.VISION_ADAPT", "5", "MODEL.TEXT_CTX", "3", "MODEL.DEPTH_TEXT", "(0, 2)")
    assert {b: tuple(p.shape) for b, p in model.visual_prompts().items()} == {1: (5, 64), 2: (5, 64)}
    assert {b: tuple(p.shape) for b, p in model.label_prompts().items()} == {0: (3, 64), 2: (3, 64)}


@pytest.mark.parametrize(
    "overrides",
    [
        ("MODEL.TEXT_CTX", "0"),
        ("MODEL.VISION_ADAPT", "0"),
        ("MODEL.DEPTH_VISION", "(-1,)"),
        ("MODEL.DEPTH_TEXT", "(-1,)"),
        ("MODEL.SAA_LAYER", "(-1,)"),
        ("MODEL.DEPTH_VISION", "(-1,)", "MODEL.DEPTH_TEXT", "(-1,)", "MODEL.SAA_LAYER", "(-1,)"),
    ],
)
def test_parts_can_be_left_out(towers, overrides):
    targets = torch.tensor([[1, 0, 0], [0, 1, 1]])
    model = build(towers, *overrides).train()
    recognise(model, targets).local_logits.sum().backward()
    assert model.local_temperature.grad.abs() > 0
    torch.testing.assert_close(recognise(model.eval()).scores.sum(1), torch.ones(2))


def test_no_text_prompts_leave_the_frozen_label_features(towers):
    labels = build(towers, "MODEL.TEXT_CTX", "0").encode_labels(NAMES)
    assert torch.equal(labels.features, labels.frozen)


def test_random_state_decides_what_is_drawn(towers):
    first, second = build(towers).trained_state(), build(towers).trained_state()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_vit_b_16_on_coco_trains_thirteen_million_parameters():
    with torch.device("meta"):
        clip = CLIP(512, **B_16).requires_grad_(False)
        model = build_method(load_config(), ClipTowers(clip.visual, clip, 100.0, list, ""))
    trained = sum(p.numel() for group in model.groups() for p in group.parameters)
    assert trained == 12_991_596 + 6_144 + 18_432 + 2
    assert trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_towers_are_those_of_the_configuration():
    towers = load_towers(config("SOLVER.SEED", "3"))
    assert towers.identity == load_clip("ViT-tiny-8", "random", seed=3).identity
    assert towers.identity != load_clip("ViT-tiny-8", "random", seed=4).identity


@pytest.mark.parametrize("key", ["INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST"])
def test_images_that_patches_do_not_cover_are_refused(key):
    with pytest.raises(WeightsError, match="30 x 32 pixels"):
        load_towers(config(key, "(30, 32)"))


def test_zero_shot_shares_the_towers_and_obeys_both_normalisations(towers):
    cfg = config("INPUT.PIXEL_MEAN", "(0.1, 0.2, 0.3)", "INPUT.PIXEL_STD", "(0.4, 0.5, 0.6)",
                 "MODEL.CLIP_MEAN", "(0.2, 0.2, 0.2)", "MODEL.CLIP_STD", "(0.2, 0.5, 0.3)")  # fmt: skip
    zero_shot = build_zero_shot(cfg, towers)
    assert zero_shot.trunk.visual is towers.visual
    assert zero_shot.text.text is towers.text
    assert zero_shot.scale == towers.logit_scale
    torch.testing.assert_close(zero_shot.gain.flatten(), torch.tensor([2.0, 1.0, 2.0]))
    torch.testing.assert_close(zero_shot.offset.flatten(), torch.tensor([-0.5, 0.0, 1 / 3]))
