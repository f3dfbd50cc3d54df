"""Thinned labels: the draws of published protocols, and what becomes of them on the way to a training."""

import numpy as np
import pytest

from configs import load_config
from datasets import build_splits, build_test
from datasets.annotations import read_records
from datasets.records import DataError, Records
from datasets.thinning import ALL, SINGLE, known_entries, single_positives, thinned, told

# Known entries of VOC2007's 5,011 x 20 labels at 10, 20, ..., 90 %, seed 0, computed with NumPy alone.
VOC2007 = (10108, 20200, 30163, 40067, 50163, 60284, 70128, 80132, 90174)
SHAPES = ["DATASETS.TRAIN", "shapes:train[:80]", "DATASETS.TEST", "shapes:test[:40]"]


def records(rows=50, classes=("b", "a", "d", "c"), seed=3):
    hot = np.random.default_rng(seed).random((rows, len(classes))) < 0.4
    labels = tuple(tuple(np.array(classes)[row].tolist()) for row in hot)
    return Records(tuple(f"{i}.jpg" for i in range(rows)), labels, tuple(classes), "my.csv")


def splits(*more):
    return build_splits(load_config(overrides=[*SHAPES, *map(str, more)]))


def known_of(records):
    """Image -> label -> whether it is present, of what is known."""
    unknown = records.unknown or ((),) * len(records.images)
    return {
        image: {name: name in row for name in records.classes if name not in left_out}
        for image, row, left_out in zip(records.images, records.labels, unknown, strict=True)
    }


@pytest.mark.parametrize(("share", "count"), list(zip(np.arange(1, 10) / 10, VOC2007, strict=True)))
def test_as_many_labels_of_voc2007_are_known_as_in_the_published_protocol(share, count):
    assert np.stack(list(known_entries(5011, 20, share, 0))).sum() == count


def test_the_first_row_of_coco_and_the_count_of_all_are_those_of_the_published_protocol():
    rows = np.stack(list(known_entries(82_783, 80, 0.1, 0)))
    assert np.flatnonzero(rows[0]).tolist() == [14, 15, 16, 34, 43, 67, 69, 75]
    assert rows.sum() == 662_191


def test_entries_are_those_of_one_draw_for_the_whole_table_whatever_is_drawn_at_once():
    labels = np.where(np.random.default_rng(0).random((4500, 3)) < 0.5, 1, -1)
    np.random.seed(7)  # noqa: NPY002 - as the published code does
    mask = np.random.random(labels.shape)  # noqa: NPY002
    mask[mask < 0.3] = 1
    mask[mask < 1] = 0
    expected = mask * labels
    found = np.stack(list(known_entries(4500, 3, 0.3, 7)))
    assert np.array_equal(np.where(found, labels, 0), expected)


def test_what_is_known_of_a_smaller_share_is_known_of_a_larger_one():
    less, more = (np.stack(list(known_entries(200, 9, share, 5))) for share in (0.2, 0.6))
    assert (more | ~less).all()
    assert more.sum() > less.sum()


def observed(labels, seed):
    """As ROLE draws: a matrix of 0 and 1 with one of the ones of each row."""
    rng, kept = np.random.RandomState(seed), np.zeros_like(labels)
    for row, out in zip(labels, kept, strict=True):
        present, absent = np.nonzero(row == 1)[0], np.nonzero(row == 0)[0]
        rng.shuffle(present)
        rng.shuffle(absent)
        out[present[:1]] = 1
    return kept


def test_single_positives_are_those_of_roles_draw():
    labels = (np.random.default_rng(1).random((300, 12)) < 0.2).astype(np.int64)
    labels[17] = 0
    found = list(single_positives([np.flatnonzero(row).tolist() for row in labels], 12, 1200))
    assert found[17] is None
    expected = observed(labels, 1200)
    assert [None if not row.any() else int(row.argmax()) for row in expected] == found


def test_a_single_positive_is_one_of_an_images_own_and_all_else_is_hidden():
    whole = records()
    found = told(thinned(whole, SINGLE, 4), keep_unknown=True)[0]
    for row, kept, unknown in zip(whole.labels, found.labels, found.unknown, strict=True):
        assert len(kept) == bool(row)
        assert set(kept) <= set(row)
        assert set(unknown) == set(whole.classes) - set(kept)


def test_all_labels_are_known_unless_it_is_asked_for():
    assert thinned(records(), ALL, 0) == records()
    assert told(records(), keep_unknown=True) == (records(), ())


def test_what_is_known_is_true_and_the_rest_is_not_known():
    whole = records()
    found, (note,) = told(thinned(whole, 0.5, 0), keep_unknown=True)
    mask = np.stack(list(known_entries(50, 4, 0.5, 0)))
    truth, known = known_of(whole), known_of(found)
    for i, image in enumerate(whole.images):
        names = {name for name, is_known in zip(whole.classes, mask[i], strict=True) if is_known}
        assert known[image] == {name: truth[image][name] for name in names}
    present = sum(map(len, found.labels))
    assert f"of 200 labels of training images {mask.sum()} are known, {present} of them present" in note


def test_hidden_labels_can_count_as_absent():
    kept, negative = (told(thinned(records(), 0.5, 0), keep_unknown=keep)[0] for keep in (True, False))
    assert negative.labels == kept.labels
    assert negative.unknown == ()


def test_what_the_file_does_not_know_stays_so():
    whole = records()._replace(unknown=tuple(("x",) if i == 7 else () for i in range(50)))
    found = told(thinned(whole, 0.5, 0), keep_unknown=True)[0]
    assert found.unknown[7][0] == "x"
    assert "x" not in found.unknown[8]


def test_too_small_a_share_is_an_error_with_a_way_out():
    with pytest.raises(DataError, match=r"my\.csv: no label that is present is left .* raise DATASETS\.KNOWN"):
        told(thinned(records(), 1e-9, 0), keep_unknown=True)


def test_seen_labels_are_thinned_and_tests_are_not():
    whole, thin = splits(), splits("DATASETS.KNOWN", 0.5)
    assert thin.vocabulary == whole.vocabulary
    assert (thin.test, thin.train.images) == (whole.test, whole.train.images)
    assert 0.45 < 1 - sum(map(len, thin.train.unknown)) / (80 * 48) < 0.55
    assert {label for row in thin.train.unknown for label in row} <= set(thin.vocabulary.seen)
    cfg = load_config(overrides=[*SHAPES, "DATASETS.KNOWN", "single"])
    assert set(build_test(cfg, "test", build_splits(cfg)).protocols) == {"ZSL", "GZSL"}


def test_validation_images_that_are_cut_off_are_not_thinned():
    keys = ("DATASETS.VAL_FRACTION", 0.25)
    whole, thin = splits(*keys), splits(*keys, "DATASETS.KNOWN", 0.3)
    assert thin.val == whole.val
    rest = splits("DATASETS.KNOWN", 0.3).train
    assert known_of(thin.train).items() <= known_of(rest).items()  # and the cut changes nothing of the rest


def test_another_seed_hides_other_labels():
    one, same, other = (splits("DATASETS.KNOWN", 0.5, "DATASETS.KNOWN_SEED", seed) for seed in (0, 0, 1))
    assert one.train == same.train != other.train


@pytest.fixture
def table(tmp_path):
    rows = [f"{i}.png,{i % 2},{i % 3 == 0:d},{i % 5 == 0:d}" for i in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["image,dog,hound,cat", *rows]))
    for i in range(60):
        (tmp_path / f"{i}.png").touch()
    (tmp_path / "labels.json").write_text('{"dog": {"synonyms": ["hound"]}}')

    def thin(*more):
        keys = ("DATASETS.ROOT_DIR", tmp_path, "DATASETS.TRAIN", "a.csv", "DATASETS.TEST", "a.csv",
                "DATASETS.CHOOSE", "none", "DATASETS.KNOWN", 0.5, *more)  # fmt: skip
        return build_splits(load_config(overrides=list(map(str, keys))))

    return tmp_path, thin


def test_images_that_are_not_there_change_nothing_of_the_others(table):
    folder, thin = table
    whole = thin().train
    (folder / "3.png").unlink()
    found = thin("DATASETS.SKIP_MISSING", True).train
    assert known_of(found) == {image: row for image, row in known_of(whole).items() if image != "3.png"}


def test_a_label_is_hidden_where_one_of_its_spellings_is(table):
    folder, thin = table
    by_spelling = known_of(thin().train)
    truth = read_records("a.csv", str(folder))
    merged = known_of(thin("DATASETS.LABELS", "labels.json").train)
    for image, row in zip(truth.images, truth.labels, strict=True):
        is_known = {"dog", "hound"} <= by_spelling[image].keys()
        assert ("dog" in merged[image]) == is_known
        if is_known:
            assert merged[image]["dog"] == bool({"dog", "hound"} & set(row))
