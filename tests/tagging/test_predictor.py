"""Many pictures to the labels of each."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clip.load import TextError
from datasets.records import DataError
from tagging import CalibrationError, Tagger, TaggerError
from tagging.build import zero_shot_parts
from tagging.pictures import Encoded
from tagging.predictor import Predictor, Unreadable, threshold_of
from tagging.spellings import Spellings, spelt_alike

LABELS = ("dog", "kite", "sofa", "a red car")


@pytest.fixture
def pictures(tmp_path):
    """Five files of noise, of different sizes."""
    generator = np.random.default_rng(0)
    paths = [str(tmp_path / f"{k}.png") for k in range(5)]
    for k, path in enumerate(paths):
        Image.fromarray(generator.integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)).save(path)
    return paths


def predicted(predictor, pictures, size=2):
    return [one for batch in predictor.batches(pictures, size) for one in batch.predictions]


@pytest.mark.parametrize("score", ["probability", "paper"])
def test_predictions_are_what_the_tagger_says_of_each_picture_alone(tagger, pictures, score):
    found = predicted(Predictor(tagger, spelt_alike(LABELS), score=score, top=3), pictures)
    assert [one.picture for one in found] == pictures
    for one in found:
        expected = tagger.tag(one.picture, LABELS, score=score, top_k=3)
        assert one.labels == expected.labels
        assert one.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize("threshold", [0.5, "best", "precision=0.8"])
def test_thresholds_are_those_of_the_tagger(tagger, pictures, threshold):
    found = predicted(Predictor(tagger, spelt_alike(LABELS), threshold=threshold), pictures)
    expected = tagger.tag(pictures, LABELS, threshold=threshold)
    assert [one.labels for one in found] == [tags.labels for tags in expected]
    assert 0 < sum(len(one.labels) for one in found) < len(pictures) * len(LABELS)


def test_a_label_is_as_probable_as_its_most_probable_spelling_and_lies_where_that_does(tagger, pictures):
    names = ("dog", "kite", "hound", "sofa", "puppy")
    asked = Spellings(names, ("dog", "kite", "dog", "sofa", "dog"), {})
    winners = set()
    for one in predicted(Predictor(tagger, asked, maps=True), pictures):
        alone = {name: tagger.tag(one.picture, [name], maps=True) for name in names}
        best = max(("dog", "hound", "puppy"), key=lambda name: alone[name].probabilities[0])
        winners.add(best)
        place = one.labels.index("dog")
        assert sorted(one.labels) == ["dog", "kite", "sofa"]
        assert one.probabilities[place] == pytest.approx(alone[best].probabilities[0], abs=1e-5)
        torch.testing.assert_close(one.maps[place], alone[best].maps[0], atol=1e-5, rtol=1e-5)
        assert list(one.probabilities) == sorted(one.probabilities, reverse=True)
    assert winners != {"dog"}  # or spellings would make no difference here


def test_a_synonym_is_cut_by_the_threshold_of_its_label(tagger, pictures):
    asked = Spellings(("hound",), ("dog",), {})
    cut = tagger.thresholds(["dog"], "best")[0]
    assert cut != tagger.thresholds(["hound"], "best")[0]
    values = [tagger.tag(picture, ["hound"]).probabilities[0] for picture in pictures]
    found = predicted(Predictor(tagger, asked, threshold="best"), pictures)
    assert [bool(one.labels) for one in found] == [value >= cut for value in values]


@pytest.mark.parametrize("score", ["probability", "paper"])
def test_a_text_takes_the_place_of_the_name(parts, tagger, pictures, score):
    texts = {"x1": "A photo of a dog."}
    answering = tagger if score == "probability" else Tagger(parts._replace(texts=texts))
    found = predicted(Predictor(answering, Spellings(("x1", "kite"), ("x1", "kite"), texts), score=score), pictures)
    for one in found:
        values = dict(zip(*tagger.tag(one.picture, ["dog", "kite"], score=score)[:2], strict=True))
        ours = dict(zip(one.labels, one.probabilities, strict=True))
        assert ours["kite"] == pytest.approx(values["kite"], abs=1e-5)
        if score == "paper":  # of a label that the tagger was trained on, more than the text is known
            assert ours["x1"] == pytest.approx(values["dog"], abs=1e-5)


def test_zero_shot_clip_gives_scores_that_sum_to_one(config, pictures):
    tagger = Tagger(zero_shot_parts(config().dump()))
    found = predicted(Predictor(tagger, spelt_alike(LABELS), score="paper"), pictures)
    assert [sum(one.probabilities) for one in found] == pytest.approx([1] * 5, abs=1e-5)


def test_without_a_threshold_scores_below_zero_pass_too(parts, pictures, monkeypatch):
    tagger = Tagger(parts)
    whole = Predictor(tagger, spelt_alike(LABELS), score="paper")
    below = SimpleNamespace(scores=torch.full((1, len(LABELS)), -2.0))
    monkeypatch.setattr(tagger.method, "forward", lambda *_: below)
    assert len(predicted(whole, pictures[:1])[0].labels) == len(LABELS)


def test_what_cannot_be_read_is_set_aside_and_the_rest_is_answered(tagger, pictures, tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    mixed = [str(tmp_path / "gone.png"), *pictures[:2], str(tmp_path / "broken.png"), pictures[2]]
    batches = list(Predictor(tagger, spelt_alike(LABELS)).batches(mixed, 2))
    assert [one.picture for batch in batches for one in batch.predictions] == pictures[:3]
    reasons = [reason for batch in batches for reason in batch.unreadable]
    assert len(reasons) == 2
    assert "gone.png" in reasons[0]
    assert "broken.png" in reasons[1]


def test_each_picture_is_answered_in_its_place_whatever_it_is(tagger, pictures):
    predictor = Predictor(tagger, spelt_alike(LABELS))
    content = Path(pictures[1]).read_bytes()
    given = {
        "a": pictures[0], "b": DataError("nobody knows where"), "c": Encoded("c of d", content[:200]),
        "d": Encoded("d of d", content), "e": pictures[2],
    }  # fmt: skip
    answers = list(predictor.answers(iter(given.items()), 2, threads=1))
    assert [len(some) for some in answers] == [2, 2, 1]
    a, b, c, d, e = (one for some in answers for one in some)
    assert b == Unreadable("b", "nobody knows where")
    assert c.picture == "c"
    assert c.why.startswith("cannot read the image c of d: ")
    alone = [one for path in pictures[:3] for one in predicted(predictor, [path])]
    assert [one.labels for one in (a, d, e)] == [one.labels for one in alone]
    for one, expected in zip((a, d, e), alone, strict=True):
        assert one.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_no_more_pictures_are_taken_than_two_batches(tagger, pictures):
    taken = []
    source = ((path, taken.append(path) or path) for path in pictures)
    answers = Predictor(tagger, spelt_alike(LABELS)).answers(source, 1)
    next(answers)
    assert taken == pictures[:2]
    answers.close()


def test_no_pictures_are_no_batches(tagger):
    assert list(Predictor(tagger, spelt_alike(LABELS)).batches([], 4)) == []


def test_who_stops_early_does_not_wait_for_all_pictures(tagger, pictures, monkeypatch):
    read = []

    def slowly(picture):
        time.sleep(0.01)
        read.append(picture)
        return torch.zeros(3, 32, 32)

    monkeypatch.setattr(tagger, "preparation", slowly)
    batches = Predictor(tagger, spelt_alike(LABELS)).batches(pictures * 40, 2)
    next(batches)
    batches.close()
    assert len(read) <= 4  # a batch, and the one that was read ahead


def test_a_label_that_is_too_long_is_found_before_any_picture_is_read(tagger):
    for score in ("probability", "paper"):
        with pytest.raises(TextError, match="is longer than"):
            Predictor(tagger, spelt_alike(["dog " * 80]), score=score)


def test_scores_have_no_maps_and_no_thresholds_of_probabilities(tagger):
    with pytest.raises(TaggerError, match="maps belong to probabilities"):
        Predictor(tagger, spelt_alike(LABELS), score="paper", maps=True)
    with pytest.raises(CalibrationError, match="'best' is one of probabilities"):
        Predictor(tagger, spelt_alike(LABELS), score="paper", threshold="best")


def test_a_threshold_is_a_number_from_0_to_1_or_a_name():
    assert [threshold_of(text) for text in ("0", ".25", "1", "best", "precision=0.9")] == [
        0, 0.25, 1, "best", "precision=0.9",
    ]  # fmt: skip
    for text in ("nan", "1.5", "-0.1", "inf"):
        with pytest.raises(CalibrationError, match="a number from 0 to 1, best, or precision=0.9"):
            threshold_of(text)
