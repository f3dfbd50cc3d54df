"""TagCLIP step by step against the numbers of the official code, and as a method of this project."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn

from clip.blocks import run_block_on_values
from clip.image import ImageTrunk
from clip.load import IMAGENET_TEMPLATES
from configs import load_config
from engine.run import newest_run
from model import UNTRAINED, ModelError, build_method
from model.compared.tagclip import Columns, TagCLIP, box_masks, coarse_map, refinement, region_of, stretched

REFERENCE = np.load(Path(__file__).parents[2] / "data" / "release_tagclip.npz")
GRID = (7, 14)
TINY = "configs/tiny.yml"
NAMES = ("dog", "traffic light", "Building")


def reference(name):
    values = torch.from_numpy(REFERENCE[name])
    return values.float() if values.is_floating_point() else values


def assert_same(found, name):
    """Within 1e-5 of the official numbers, by norm; exactly where they are whole or yes or no."""
    expected = reference(name)
    assert found.shape == expected.shape
    if expected.is_floating_point():
        assert (found - expected).norm() <= 1e-5 * expected.norm()
    else:
        assert torch.equal(found.to(expected.dtype), expected)


def official_trunk():
    visual = (
        VisionTransformer(224, 16, 128, 12, 2, 4.0, output_dim=32, act_layer=QuickGELU).eval().requires_grad_(False)
    )
    for name, parameter in visual.named_parameters():
        _, _, rest = name.partition("transformer.resblocks.")
        source = f"block.{rest.partition('.')[2]}" if rest else name  # all blocks have the same weights
        parameter.copy_(reference(f"param/visual.{source}"))
    return ImageTrunk(visual, adapted=(), saa_blocks=(), ladder_factor=1.0, ladder_start=0, positions="bilinear")


@pytest.fixture(scope="module")
def official():
    return TagCLIP(
        trunk=official_trunk(), text=nn.Identity(), scale=reference("param/logit_scale").exp().item(), templates=(),
        background=(), blocks=3, votes=1 / 3, threshold=0.5,
    )  # fmt: skip


def columns():
    return Columns(F.normalize(reference("in/text_features"), dim=-1), int(REFERENCE["in/num_labels"]))


def test_the_last_block_on_values_is_the_official_one(official):
    found = run_block_on_values(official.trunk.blocks[-1], reference("out/last_block.input")[None])
    assert_same(found[0], "out/last_block.output")


def test_patches_and_attention_are_the_official_ones(official):
    patches, attention, grid = official._look(reference("in/image"))
    assert grid == GRID
    assert (patches - reference("out/features")[1:]).norm() <= 1e-5 * patches.norm()
    assert_same(attention.mean((1, 2)), "out/attention.layer_mean")
    assert_same(attention[-1], "out/attention.last_block")
    assert_same((attention > attention.mean((1, 2), keepdim=True)).sum(0), "out/attention.votes")
    assert_same(refinement(attention, blocks=3, votes=1 / 3), "out/attention.W")


def test_the_coarse_map_is_the_official_one(official):
    assert_same(coarse_map(reference("out/features")[1:], columns().features, official.scale), "out/map.coarse")


def test_refinement_by_boxes_is_the_official_one():
    weights, coarse, first = (reference(f"out/{name}") for name in ("attention.W", "map.coarse", "map.first"))
    assert_same(weights @ coarse, "out/map.first")
    boxes = box_masks(first, GRID)
    assert_same(boxes, "out/box_masks")
    assert_same(weights @ (boxes.flatten(1).T * coarse), "out/map.refined")


def test_boxes_and_foregrounds_of_labels_are_the_official_ones():
    refined = reference("out/map.refined")
    for label, expected, mask in zip(*(reference(f"out/reid.{n}") for n in ("labels", "boxes", "region_masks")),
                                     strict=True):  # fmt: skip
        region, (rows, cols) = region_of(refined[:, label], GRID)
        assert [cols.start, rows.start, cols.stop, rows.stop] == expected.tolist()
        foreground = F.interpolate(region[rows, cols][None, None].float(), (14, 14))[0, 0]
        assert torch.equal(foreground, mask.float())


def test_global_features_of_crops_are_the_official_ones(official):
    crops = [
        official._crop(reference("in/image"), (slice(y0, y1), slice(x0, x1)))
        for x0, y0, x1, y1 in reference("out/reid.boxes").tolist()
    ]
    found = official._global_features(torch.cat(crops), reference("out/reid.region_masks"))
    assert_same(found, "out/reid.cls_features")


def test_scores_are_the_official_ones_from_pixels_to_the_end(official):
    found = official(reference("in/image"), columns())
    assert_same(found.local[0], "out/scores.local")
    assert_same(found.scores[0], "out/scores.final")


def attention_of(blocks, patches=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(blocks, patches, patches, generator=generator).softmax(-1)


@pytest.mark.parametrize(("depth", "needed"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (12, 4), (24, 8)])
def test_a_third_of_the_blocks_has_to_agree_in_a_tower_of_any_depth(depth, needed):
    attention = attention_of(depth)
    agreeing = (attention > attention.mean((1, 2), keepdim=True)).sum(0)
    assert torch.equal(refinement(attention, blocks=3, votes=1 / 3) > 0, agreeing >= needed)


@pytest.mark.parametrize(
    ("depth", "blocks", "chosen"), [(12, 3, [8, 9, 10]), (12, 11, range(11)), (3, 3, [0, 1]), (2, 1, [0]), (1, 3, [0])]
)
def test_attention_is_the_mean_of_blocks_in_front_of_the_last(depth, blocks, chosen):
    attention = attention_of(depth)
    expected = torch.stack([attention[block] for block in chosen]).mean(0)
    torch.testing.assert_close(refinement(attention, blocks=blocks, votes=0.0), expected)


def drawn(*rows):
    """A map (N, 1) of rows of digits."""
    return torch.tensor([[float(digit) for digit in row] for row in rows]).flatten()[:, None]


def boxes_of(*rows):
    return ["".join(map(str, row.tolist())) for row in box_masks(drawn(*rows), (len(rows), len(rows[0])))[0].int()]


def test_a_box_spans_its_connected_region():
    assert boxes_of("900000", "090000", "000090", "000000") == ["110000", "110000", "000010", "000000"]


def test_a_box_never_holds_the_last_row_or_column():
    assert boxes_of("0009", "0099", "0000", "9900") == ["0010", "0010", "0000", "0000"]


def test_regions_are_above_the_mean_of_their_own_column():
    maps = torch.cat([drawn("910", "000", "000"), drawn("990", "000", "000"), drawn("555", "555", "555")], 1)
    assert box_masks(maps, (3, 3)).sum((1, 2)).tolist() == [1, 2, 0]


def test_columns_are_stretched_to_the_unit_interval_and_constant_ones_to_zero():
    found = stretched(torch.tensor([[1.0, 3.0], [2.0, 3.0], [5.0, 3.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.25, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("rows", "box"),
    [(("900", "090", "000"), ((0, 2), (0, 2))), (("900", "009", "000"), ((0, 2), (0, 2))),
     (("009", "000", "000"), None), (("000", "000", "990"), None), (("555", "555", "555"), None)],
)  # fmt: skip
def test_a_label_has_one_box_around_all_that_is_above_half_or_none(rows, box):
    _, found = region_of(drawn(*rows)[:, 0], (3, 3))
    assert (found and tuple((side.start, side.stop) for side in found)) == box


def build(towers, *overrides):
    return build_method(load_config(TINY, ["MODEL.METHOD", "tagclip", *overrides]), towers).eval()


def images(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def tags(model, batch=None):
    return model(images() if batch is None else batch, model.encode_labels(NAMES))


def test_an_image_is_scored_alike_alone_and_among_others(towers):
    model = build(towers, "MODEL.TAGCLIP.BACKGROUND", "sky, road")
    found = tags(model)
    assert found.scores.shape == found.local.shape == (3, 3)
    torch.testing.assert_close(tags(model, images()[1:2]).scores, found.scores[1:2])


def test_labels_that_are_not_above_the_threshold_keep_their_local_score(towers):
    found = tags(build(towers, "MODEL.TAGCLIP.THRESHOLD", "1.0"))
    assert torch.equal(found.scores, found.local)
    again = tags(build(towers, "MODEL.TAGCLIP.THRESHOLD", "0.0"))
    assert torch.equal(again.local, found.local)
    assert not torch.equal(again.scores, again.local)


def test_a_label_without_a_box_keeps_its_local_score_and_those_behind_it_do_not(towers):
    model = build(towers, "MODEL.TAGCLIP.THRESHOLD", "0.0")
    refined = torch.cat([drawn("0009", "0000", "0000", "0000"), drawn("9900", "9900", "0000", "0000")], 1)
    labels = Columns(model.encode_labels(NAMES).features[:2], 2)
    local = refined.amax(0)
    scores = model._looked_at_again(images(1), refined, local, (4, 4), labels)
    assert scores[0] == local[0]
    assert scores[1] < local[1]


def test_crops_are_computed_alike_together_and_one_by_one(towers, monkeypatch):
    model = build(towers, "MODEL.TAGCLIP.THRESHOLD", "0.0")
    together = tags(model).scores
    monkeypatch.setattr("model.compared.tagclip.CROPS", 1)
    torch.testing.assert_close(tags(model).scores, together)


def test_everything_is_computed_in_float32(towers):
    model = build(towers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tags(model)
    assert torch.equal(found.scores, tags(model).scores)


def test_features_of_labels_are_averaged_over_the_official_templates_or_one(towers):
    official, one = (build(towers, "MODEL.TAGCLIP.TEMPLATES", kind) for kind in ("official", "one"))
    assert len(official.templates) == len(set(official.templates)) == 85
    assert set(IMAGENET_TEMPLATES) < set(official.templates)
    expected = F.normalize(one.text.prefix(NAMES).plain, dim=-1)
    torch.testing.assert_close(one.encode_labels(NAMES).features, expected)
    assert not torch.allclose(official.encode_labels(NAMES).features, expected, atol=1e-3)


def test_words_for_the_background_are_columns_unless_they_are_labels(towers):
    model = build(towers, "MODEL.TAGCLIP.BACKGROUND", "sky, Dog, road, building", "MODEL.TAGCLIP.TEMPLATES", "one")
    labels = model.encode_labels(("dog", "Roads", "kite"))
    words = F.normalize(model.text.prefix(("sky", "building")).plain, dim=-1)
    assert labels.candidates == 3
    torch.testing.assert_close(labels.features[3:], words)


def test_it_is_tested_without_a_checkpoint_on_seen_and_unseen_labels(benchmark, test_script):
    assert "tagclip" in UNTRAINED
    cfg = load_config(["configs/tiny.yml", "configs/methods/tagclip.yml"], benchmark.overrides)
    test_script.test(cfg)
    folder = newest_run(benchmark.runs / "tagclip" / "test", "results.json")
    results = json.loads((folder / "results.json").read_text())["results"]
    assert {protocol for protocol in results["TagCLIP"]} == {"ZSL", "GZSL"}


def test_training_it_is_a_clear_error(benchmark, train_script):
    with pytest.raises(ModelError, match=r"MODEL\.METHOD tagclip has nothing to train"):
        train_script.train(benchmark.config("MODEL.METHOD", "tagclip"), None)
