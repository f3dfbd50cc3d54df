"""Any pictures, any labels."""

import os
import pickle
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from clip.load import TextError
from datasets.records import DataError
from model import Tagger as FromModel
from model import build_method, load_towers
from tagging import CalibrationError, Tagger, TaggerError
from tagging.build import zero_shot_parts
from tagging.pictures import Encoded

ROOT = Path(__file__).parents[2]
LABELS = ("dog", "sun", "a rather long name", "cat")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("pictures")
    for k, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{k}.png")
    return [folder / f"{k}.png" for k in range(3)]


def probabilities(tags):
    return dict(zip(tags.labels, tags.probabilities, strict=True))


def close(left, right, atol=1e-6):
    assert left.keys() == right.keys()
    assert all(abs(left[name] - right[name]) <= atol for name in left)


def test_the_tagger_is_offered_beside_the_methods():
    assert FromModel is Tagger


def test_a_picture_may_come_in_any_form(tagger, files, pixels):
    tensor = torch.from_numpy(pixels[0]).permute(2, 0, 1)
    expected = tagger.tag(files[0], LABELS)
    encoded = Encoded("0.png", files[0].read_bytes())
    forms = (str(files[0]), encoded, Image.open(files[0]), pixels[0], tensor, tensor / 255)
    for picture in forms:
        assert tagger.tag(picture, LABELS) == expected
    for batch in (torch.stack([tensor, tensor]), pixels[:2]):
        close(probabilities(tagger.tag(batch, LABELS)[0]), probabilities(expected))


def test_many_pictures_give_a_list_in_their_order_whatever_the_batch(tagger, files):
    for whole, alone in zip(tagger.tag(files, LABELS), map(lambda f: tagger.tag(f, LABELS), files), strict=True):
        close(probabilities(whole), probabilities(alone))


def test_a_probability_does_not_depend_on_the_other_labels(tagger, files):
    whole = probabilities(tagger.tag(files[0], LABELS))
    for names in (("sun",), ("cat", "dog"), (*reversed(LABELS), "kite", "tree")):
        found = probabilities(tagger.tag(files[0], names))
        close({name: found[name] for name in names if name in whole}, {n: whole[n] for n in names if n in whole})


def test_tags_are_sorted_and_all_of_the_labels_of_the_training_by_default(tagger, files):
    tags = tagger.tag(files[0])
    assert set(tags.labels) == set(tagger.seen)
    assert list(tags.probabilities) == sorted(tags.probabilities, reverse=True)
    assert tags.maps is None


def test_top_k_and_a_threshold_leave_the_first_labels(tagger, files):
    everything = tagger.tag(files[0], LABELS)
    assert tagger.tag(files[0], LABELS, top_k=2).labels == everything.labels[:2]
    cut = everything.probabilities[1]
    assert tagger.tag(files[0], LABELS, threshold=cut).labels == everything.labels[:2]
    assert tagger.tag(files[0], LABELS, threshold=cut, top_k=1).labels == everything.labels[:1]
    assert tagger.tag(files[0], LABELS, threshold=1.1).labels == ()


@pytest.mark.parametrize("wanted", ["best", "precision=0.8"])
def test_thresholds_of_the_calibration_hold_label_by_label(tagger, files, wanted):
    cuts = dict(zip(LABELS, tagger.thresholds(LABELS, wanted), strict=True))
    assert cuts == {name: pytest.approx(tagger.calibration.threshold(name, wanted)) for name in LABELS}
    everything = probabilities(tagger.tag(files[0], LABELS))
    passing = {name for name, p in everything.items() if p >= cuts[name]}
    assert set(tagger.tag(files[0], LABELS, threshold=wanted).labels) == passing


def test_maps_have_the_grid_of_the_regions_and_reach_the_probability(tagger, files):
    tags = tagger.tag(files[0], LABELS, maps=True)
    assert tags.maps.shape == (4, 4, 4)
    assert tags.maps.min() >= 0
    torch.testing.assert_close(tags.maps.amax((1, 2)), torch.tensor(tags.probabilities))


def test_labels_and_images_can_be_prepared_apart(tagger, files):
    asked, gallery = tagger.labels(LABELS), tagger.index(files)
    found = tagger.ask(gallery, asked).probabilities
    for row, tags in zip(found, tagger.tag(files, asked), strict=True):
        close(dict(zip(LABELS, row.tolist(), strict=True)), probabilities(tags))


def test_very_many_labels_are_asked_in_parts(tagger, files, monkeypatch):
    expected = tagger.tag(files[0], LABELS, maps=True)
    monkeypatch.setattr(tagger.evidence, "at_once", lambda *_: 3)
    monkeypatch.setattr("tagging.encoding.TOGETHER", 3)
    found = tagger.tag(files[0], LABELS, maps=True)
    close(probabilities(found), probabilities(expected))
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-4, atol=1e-6)


def test_the_published_score_is_the_methods_own(tagger, files):
    tags = tagger.tag(files[0], LABELS, score="paper")
    pixels = tagger.preparation(files[0])[None]
    own = tagger.method(pixels, tagger.method.encode_labels(LABELS)).scores[0]
    close(probabilities(tags), dict(zip(LABELS, own.tolist(), strict=True)))
    assert sum(tags.probabilities) == pytest.approx(1)


def test_a_text_of_ones_own_is_encoded_in_place_of_the_template_and_forgotten(tagger):
    plain = tagger.labels(["dog", "sun"])
    own = tagger.labels(["dog", "sun"], {"sun": "The star of our sky.", "moon": "unasked"})
    torch.testing.assert_close(own.text[0], plain.text[0], rtol=1e-4, atol=1e-6)  # as texts share other beginnings
    assert not torch.allclose(own.text[1], plain.text[1], atol=1e-3)
    encoded = tagger.method.encode_labels(["x"])
    assert torch.equal(tagger.labels(["dog", "sun"]).text, plain.text)
    assert tagger.method.text.texts == {}
    tagger.method.text.texts["x"] = "The star of our sky."
    try:
        tagger.method.text._kept.clear()
        other = tagger.method.encode_labels(["x"]).features
    finally:
        tagger.method.text.texts.clear()
        tagger.method.text._kept.clear()
    assert not torch.equal(other, encoded.features)
    torch.testing.assert_close(
        torch.nn.functional.normalize(other.double(), dim=-1)[0], own.text[1], rtol=1e-4, atol=1e-5
    )


def test_a_seen_label_with_another_text_is_no_anchor(tagger):
    assert tagger.labels(["dog", "sun"]).anchor.tolist() == [tagger.seen.index("dog"), -1]
    assert tagger.labels(["dog"], {"dog": "A photo of a puppy."}).anchor.tolist() == [-1]


def test_threads_may_share_a_tagger(tagger, files):
    lists = [(*LABELS, f"thing {k}") for k in range(8)]
    expected = [tagger.tag(files[0], names) for names in lists]
    found = [None] * len(lists)

    def work(k):
        for _ in range(3):
            found[k] = tagger.tag(files[0], lists[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(lists))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for left, right in zip(found, expected, strict=True):
        close(probabilities(left), probabilities(right))


def test_a_tagger_can_be_pickled(tagger, files):
    again = pickle.loads(pickle.dumps(tagger))
    assert again.tag(files[0], LABELS) == tagger.tag(files[0], LABELS)


def test_nothing_needs_a_gradient(tagger, files):
    assert not tagger.index(files[:1]).regions.requires_grad
    assert not any(p.requires_grad for p in tagger.method.parameters())


def test_half_precision_is_near(parts, tagger, files):
    rough = Tagger(parts, dtype=torch.bfloat16)
    assert {block.mlp.c_fc.weight.dtype for block in rough.method.trunk.blocks} == {torch.bfloat16}
    assert {p.dtype for p in rough.method.text.parameters()} == {torch.float32}
    for score in ("probability", "paper"):
        found, expected = (made.tag(files[0], LABELS, score=score) for made in (rough, tagger))
        close(probabilities(found), probabilities(expected), atol=0.05)
        assert found != expected


def test_an_exported_folder_gives_the_same_to_the_bit_and_holds_no_pickle(tagger, files, tmp_path):
    tagger.export(tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "model.safetensors"]
    again = Tagger.load(tmp_path / "out")
    assert again.tag(files[0], LABELS, threshold="best") == tagger.tag(files[0], LABELS, threshold="best")
    assert again.calibration.summary() == tagger.calibration.summary()


def test_the_hub_of_hugging_face_is_fed_and_read(tagger, files, tmp_path, monkeypatch):
    tagger.save_pretrained(tmp_path / "saved")
    assert Tagger.from_pretrained(tmp_path / "saved").tag(files[0], LABELS) == tagger.tag(files[0], LABELS)

    uploaded = {}

    def upload(self, *, repo_id, folder_path, **_):  # noqa: ARG001
        uploaded[repo_id] = sorted(os.listdir(folder_path))

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda *_, **__: type("Repo", (), {"repo_id": "me/it"}))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    tagger.push_to_hub("me/it")
    assert {"config.json", "model.safetensors"} <= set(uploaded["me/it"])

    asked = {}

    def download(model_id, **how):
        asked.update(how, model_id=model_id)
        return str(tmp_path / "saved")

    monkeypatch.setattr("tagging.tagger.snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.hub_mixin, "hf_hub_download", lambda **_: str(tmp_path / "saved/config.json"))
    assert Tagger.from_pretrained("me/it", revision="v1").tag(files[0], LABELS) == tagger.tag(files[0], LABELS)
    assert (asked["model_id"], asked["revision"]) == ("me/it", "v1")


def test_torch_hub_loads_it_from_the_repository(tagger, files, tmp_path, monkeypatch):
    tagger.export(tmp_path / "out")
    monkeypatch.setattr(sys, "path", list(sys.path))
    hub = torch.hub.load(str(ROOT), "tagger", str(tmp_path / "out"), source="local")
    assert hub.tag(files[0], LABELS) == tagger.tag(files[0], LABELS)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "no labels"), (["dog", "cat", "dog"], "'dog' is asked for twice"), (["dog", " "], "' ' is not the name"),
        ([3], "3 is not the name"), ("dog, cat", "a list of names, not the text"), (["a\0b"], "is not the name"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("score", ["probability", "paper"])
def test_labels_that_are_none_are_refused(tagger, files, labels, said, score):
    with pytest.raises(TaggerError, match=said):
        tagger.tag(files[0], labels, score=score)


def test_a_label_longer_than_clips_context_is_refused(tagger, files):
    with pytest.raises(TextError):
        tagger.tag(files[0], ["dog " * 100])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), torch.zeros(4, 4, 3), torch.full((3, 4, 4), 2.0),
     torch.full((3, 4, 4), torch.nan), 7, None],
)  # fmt: skip
def test_what_is_no_picture_is_refused(tagger, picture):
    with pytest.raises(TaggerError, match="no picture: .*expected is an array"):
        tagger.tag([picture], LABELS)


def test_a_file_that_is_missing_or_no_picture_is_named(tagger, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    for name in ("a.png", "b.png"):
        with pytest.raises(DataError, match=name):
            tagger.tag(tmp_path / name, LABELS)


def test_a_file_of_the_same_name_elsewhere_is_another_picture(tagger, files, monkeypatch):
    monkeypatch.chdir(files[0].parent)
    with pytest.raises(DataError, match="no picture gone/0.png"):
        tagger.tag("gone/0.png", LABELS)


def test_no_pictures_are_refused(tagger):
    with pytest.raises(TaggerError, match="no pictures"):
        tagger.tag([], LABELS)


def test_another_score_is_refused(tagger, files):
    with pytest.raises(TaggerError, match="no score 'mean': probability or paper"):
        tagger.tag(files[0], LABELS, score="mean")


def test_without_a_calibration_there_are_no_probabilities_but_the_published_score(parts, files):
    bare = Tagger(parts._replace(calibration=None))
    assert not bare.calibrated
    for ask in (
        lambda: bare.tag(files[0], LABELS),
        lambda: bare.tag(files[0], LABELS, score="paper", threshold="best"),
    ):
        with pytest.raises(CalibrationError, match="calibrate.py"):
            ask()
    assert len(bare.tag(files[0], LABELS, score="paper").labels) == 4


def test_clip_as_it_is_tags_by_the_published_score(config, files):
    clip = Tagger(zero_shot_parts(config().dump()))
    assert sum(clip.tag(files[0], LABELS, score="paper").probabilities) == pytest.approx(1)
    with pytest.raises(TaggerError, match="zero-shot CLIP scores lists of labels only"):
        clip.tag(files[0], LABELS)
    with pytest.raises(TaggerError, match="belongs to images alone"):
        clip.index(files)
    with pytest.raises(TaggerError, match="trained on none"):
        clip.tag(files[0])


def test_a_matcher_without_a_cost_tags_by_the_published_score(parts, config, files):
    average = Tagger(parts._replace(config=config("MODEL.MATCHER", "average").dump()))
    assert len(average.tag(files[0], LABELS, score="paper").labels) == 4
    with pytest.raises(TaggerError, match="scores lists of labels only"):
        average.tag(files[0], LABELS)


@pytest.fixture(scope="module")
def made(parts, config):
    """A tagger of another method or other label prompts, with fresh weights."""

    def make(*overrides):
        cfg = config(*overrides)
        state = build_method(cfg, load_towers(cfg), seen=len(parts.seen)).trained_state()
        return Tagger(parts._replace(config=cfg.dump(), state=state), batch=2)

    return make


def test_labels_behind_a_learned_context_have_probabilities(made, files, tmp_path):
    tagger = made("MODEL.LABEL_PROMPTING", "coop")
    together = probabilities(tagger.tag(files[0], LABELS))
    for name in LABELS:
        assert probabilities(tagger.tag(files[0], [name])) == {name: together[name]}
    asked = tagger.labels(["a", "b"], {"a": "dog.", "b": "A photo of a dog."})
    assert asked.anchor.tolist() == [tagger.seen.index("dog"), -1]
    tagger.export(tmp_path)
    assert probabilities(Tagger.load(tmp_path).tag(files[0], LABELS)) == together


@pytest.mark.parametrize(
    ("overrides", "title"),
    [
        (("MODEL.LABEL_PROMPTING", "dualcoop"), "RAM"),
        (("MODEL.METHOD", "coop"), "CoOp"),
        (("MODEL.METHOD", "dualcoop"), "DualCoOp"),
    ],
)
def test_other_methods_tag_by_the_scores_of_their_own(made, files, overrides, title, tmp_path):
    tagger = made(*overrides)
    tagger.export(tmp_path)
    tagger = Tagger.load(tmp_path)
    expected = tagger.method(tagger.preparation(files[0])[None], tagger.method.encode_labels(LABELS)).scores[0]
    tags = tagger.tag(files[0], LABELS, score="paper")
    close(probabilities(tags), dict(zip(LABELS, expected.tolist(), strict=True)))
    assert not tagger.calibrated
    with pytest.raises(TaggerError, match=f"^{title} scores lists of labels only: score='paper'$"):
        tagger.tag(files[0], LABELS)


def test_another_clip_is_refused(parts, tmp_path):
    with pytest.raises(TaggerError, match="this tagger needs the CLIP ViT-other"):
        Tagger(parts._replace(clip="ViT-other/sha256:0"))
    with pytest.raises(Exception, match="nowhere"):
        Tagger(parts, clip_weights=str(tmp_path / "nowhere.pt"))


def test_a_label_that_clip_reads_as_a_seen_one_is_that_one_however_it_is_spelt(tagger, files):
    expected = probabilities(tagger.tag(files[0], ["dog"]))["dog"]
    for name, texts in (("Dog", {}), (" dog", {}), ("hound", {"hound": "A photo of a dog."})):
        asked = tagger.labels([name], texts)
        assert asked.anchor.tolist() == [tagger.seen.index("dog")]
        assert tagger.tag(files[0], asked).probabilities[0] == pytest.approx(expected, abs=1e-6)
        assert tagger.thresholds(asked) == tagger.thresholds(["dog"])


def test_what_only_probabilities_have_is_refused_of_published_scores(tagger, files):
    with pytest.raises(TaggerError, match="takes the names of labels"):
        tagger.tag(files[0], tagger.labels(LABELS), score="paper")
    with pytest.raises(TaggerError, match="has no maps"):
        tagger.tag(files[0], LABELS, score="paper", maps=True)
    with pytest.raises(TaggerError, match="top_k is 0"):
        tagger.tag(files[0], LABELS, top_k=0)


def test_a_calibration_of_other_evidence_is_refused(parts):
    few = {name: parts.calibration[name][:5] for name in ("mean", "std", "weight")}
    with pytest.raises(TaggerError, match="of 5 numbers, not of 34"):
        Tagger(parts._replace(calibration=parts.calibration | few))


@pytest.mark.parametrize("solver", ["triton", "native"])
def test_what_was_trained_with_another_solver_is_solved_with_what_is_here(
    parts, tagger, config, files, solver, monkeypatch
):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("model.ot_native._kernel", lambda: None)
    elsewhere = Tagger(parts._replace(config=config("MODEL.OT_SOLVER", solver).dump()))
    warned = (
        pytest.warns(UserWarning, match="OT_SOLVER triton .*: torch solves") if solver == "triton" else nullcontext()
    )
    with warned:
        assert elsewhere.tag(files[0], LABELS, score="paper") == tagger.tag(files[0], LABELS, score="paper")
