"""Both kinds of image tower: which methods are built on which, and what they get of it."""

import pytest
import torch

from clip.load import load_clip
from configs import load_config
from model import METHODS, UNTRAINED, ModelError, build_method, build_zero_shot
from model.build_parts import fewest_regions

NEED_A_VIT = {"ram", "ram-peaks", "mkt", "tagclip"}
ALL_SEEN = {"dualcoop-partial", "trm-ml"}  # have prompts of each label's own
SEEN, UNSEEN = ("cat", "cup", "dog", "traffic light"), ("kite", "sun")
SMALL = ["MODEL.BACKBONE", "RN-tiny", "INPUT.SIZE_TRAIN", "(64, 64)", "INPUT.SIZE_TEST", "(96, 64)",
         "MODEL.BIAM.CHANNELS", "16", "MODEL.BIAM.TOP_K", "2", "MODEL.COMC.SENTENCES", "8", "MODEL.COMC.BATCH", "4",
         "MODEL.TRM.TOP_K", "1", "MODEL.ML_DECODER.WIDTH", "32", "MODEL.ML_DECODER.HIDDEN", "16"]  # fmt: skip


@pytest.fixture(scope="module")
def resnet():
    return load_clip("RN-tiny", "random", seed=1)


def build(towers, method, *overrides):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cfg = load_config("configs/tiny.yml", [*SMALL, "MODEL.METHOD", method, *overrides])
        return build_method(cfg, towers, seen=len(SEEN), labels=SEEN if method in ALL_SEEN else SEEN + UNSEEN)


def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", sorted(NEED_A_VIT))
def test_a_method_that_needs_a_vit_says_so_on_a_resnet_with_both_keys_and_a_way_out(resnet, method):
    words = f"^MODEL.METHOD {method} needs .* and MODEL.BACKBONE RN-tiny is a ResNet: set MODEL.BACKBONE to a ViT.*dual"
    with pytest.raises(ModelError, match=words) as caught:
        build(resnet, method)
    assert "\n" not in str(caught.value)


def test_regions_of_a_vit_alone_are_refused_on_a_resnet(resnet):
    with pytest.raises(ModelError, match=r"^MODEL.REGIONS must be values with the ResNet RN-tiny, not 'saa'$"):
        build(resnet, "dualcoop", "MODEL.REGIONS", "saa")


@pytest.mark.parametrize("score", ["global", "local", "both"])
def test_zero_shot_clip_scores_on_a_resnet(resnet, score):
    method = build(resnet, "zero-shot", "MODEL.ZERO_SHOT.SCORE", score).eval()
    scores = method(images(), method.encode_labels(UNSEEN)).scores
    assert scores.shape == (3, 2)
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", sorted(METHODS.keys() - NEED_A_VIT - UNTRAINED))
def test_the_other_methods_train_on_a_resnet_and_leave_it_as_it_is(resnet, name):
    method = build(resnet, name).train()
    before = {name: value.clone() for name, value in resnet.visual.state_dict().items()}
    targets = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]])
    losses = method.losses(method(images(), method.encode_labels(SEEN), targets), targets)
    torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for group in method.groups() for p in group.parameters if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(torch.equal(value, before[name]) for name, value in resnet.visual.state_dict().items())
    asked = SEEN[:2] if name in ALL_SEEN else UNSEEN
    method.eval()
    assert method(images(), method.encode_labels(asked)).scores.shape == (3, 2)


@pytest.mark.parametrize(
    ("method", "positions"),
    [("zero-shot", "bicubic"), ("coop", "bicubic"), ("dualcoop", "bicubic"), ("comc", None)],
)
def test_positions_of_a_resnet_are_resized_as_the_key_says_but_where_the_method_has_none(resnet, method, positions):
    assert build(resnet, method, "MODEL.POSITIONS", "bicubic").trunk.positions == positions


@pytest.mark.parametrize("score", ["local", "both"])
def test_dense_zero_shot_clip_has_no_positions_and_the_row_beside_other_methods_has(resnet, score):
    assert build(resnet, "zero-shot", "MODEL.ZERO_SHOT.SCORE", score).trunk.positions is None
    assert build_zero_shot(load_config(overrides=["MODEL.POSITIONS", "bilinear"]), resnet).trunk.positions == "bilinear"


def test_the_fewest_regions_are_those_of_the_smaller_images(resnet):
    assert fewest_regions(load_config("configs/tiny.yml", SMALL), resnet) == 4
    with pytest.raises(ModelError, match=r"MODEL\.BIAM\.TOP_K must be between 1 and the 4 regions of an image, not 5"):
        build(resnet, "biam", "MODEL.BIAM.TOP_K", "5")


def test_ram_on_a_resnet_is_one_line_and_code_2_before_anything_is_written(benchmark, train_script, command, capsys):
    sizes = ("INPUT.SIZE_TRAIN", "(64, 64)", "INPUT.SIZE_TEST", "(64, 64)")
    assert command(train_script, benchmark, "MODEL.BACKBONE", "RN-tiny", *sizes) == 2
    assert "error: MODEL.METHOD ram needs the blocks of a ViT" in capsys.readouterr().err.splitlines()[-1]
    assert not benchmark.runs.exists()
