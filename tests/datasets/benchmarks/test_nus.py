import json
import shutil

import pytest

from datasets.benchmarks import nus
from datasets.benchmarks.downloads import Downloads
from datasets.records import DataError, MissingFileError

SEEN = [f"tag{i:03d}" for i in range(925)]
UNSEEN = [f"concept{i:02d}" for i in range(81)]
# Names as ROLE has them: another number, the photo id, a hash.
ROLE_TRAIN = ["80002_2001_0f1e2d3c4b_m.jpg", "1_1001_0f1e2d3c4b_m.jpg", "2_1002_0f1e2d3c4b_m.jpg"]
ROLE_TEST = ["3_1004_0f1e2d3c4b_m.jpg", "4_2005_0f1e2d3c4b_m.jpg", "5_2003_0f1e2d3c4b_m.jpg", "6_9999_0f1e2d3c4b_m.jpg"]
THEIRS = {
    "train_925": {"images": [["/mnt/t.jpg", ["tag003", "tag003"]]], "classes": SEEN},
    "test_1006": {"images": [["/mnt/b.jpg", ["tag001", "concept05"]], ["/mnt/a.jpg", []]], "classes": SEEN + UNSEEN},
    "test_81": {"images": [["/mnt/b.jpg", ["concept05"]]], "classes": UNSEEN},
}


def prepare(download, **options):
    return nus.prepare(Downloads(download.root), seed=0, **options)


def release(download, *names, **changes):
    for name in names:
        content = changes.get(name, THEIRS[name])
        download.write(f"annotations/{name}_filtered.json", json.dumps(content))


def pairs(records):
    return dict(zip(records.images, records.labels, strict=True))


def touch(download, *names):
    for name in names:
        download.write(name, "")


def test_official_training_images_have_a_tag_whatever_their_concepts(nus_download):
    train = prepare(nus_download).train
    assert pairs(train) == {
        "Flickr/actor/0001_1001.jpg": ("tag000", "tag924"),
        "Flickr/zoo/0002_1004.jpg": ("tag007",),
    }
    assert train.classes == tuple(SEEN)


def test_official_test_images_have_a_tag_or_a_concept(nus_download):
    test = prepare(nus_download).test
    assert pairs(test) == {
        "Flickr/actor/0003_2001.jpg": ("tag001", "concept02", "concept80"),
        "Flickr/sea/0001_2002.jpg": ("tag001", "tag002"),
        "Flickr/sea/0002_2003.jpg": ("concept01",),
    }
    assert test.classes == tuple(SEEN + UNSEEN)


def test_images_of_the_zsl_list_have_a_concept_by_hand_not_by_tag(nus_download):
    zsl = prepare(nus_download).test_zsl
    assert pairs(zsl) == {
        "Flickr/actor/0003_2001.jpg": ("concept02", "concept80"),
        "Flickr/sea/0002_2003.jpg": ("concept01",),
    }
    assert zsl.classes == tuple(UNSEEN)


def test_all_test_images_stay_in_both_test_lists_on_demand(nus_download):
    lists = prepare(nus_download, test_images="all")
    assert lists.test.images == lists.test_zsl.images
    assert len(lists.test.images) == 5
    assert lists.origin["test_images"] == "all"


def test_all_test_images_are_a_choice_for_the_lists_of_role_too(nus_download):
    nus_download.write_role(ROLE_TRAIN, ROLE_TEST)
    lists = prepare(nus_download, test_images="all")
    assert len(lists.test_zsl.images) == 3
    assert not lists.origin["exact"]


def test_what_is_left_out_is_counted(nus_download):
    notes = prepare(nus_download).notes
    assert "of 4 training images, 2 have no seen label: left out" in notes
    assert "of 5 test images, 2 have no label: left out" in notes


def test_the_official_split_is_not_that_of_the_paper_and_says_so(nus_download):
    lists = prepare(nus_download, split="official")
    assert (lists.origin["benchmark"], lists.origin["split"], lists.origin["exact"]) == ("nus", "official", False)
    assert any("formatted_train_images.npy" in note and "not comparable" in note for note in lists.notes)
    assert "NUS_WID_Tags/Train_Tags1k.dat" in lists.origin["sources"]


@pytest.mark.parametrize("split", ["auto", "role"])
@pytest.mark.parametrize("folder", ["", "role"])
def test_the_lists_of_role_take_images_of_either_official_part(nus_download, split, folder):
    nus_download.write_role(ROLE_TRAIN, ROLE_TEST, folder)
    lists = prepare(nus_download, split=split)
    assert lists.origin["split"] == "role"
    assert pairs(lists.train) == {
        "Flickr/actor/0003_2001.jpg": ("tag001",),
        "Flickr/actor/0001_1001.jpg": ("tag000", "tag924"),
    }
    assert pairs(lists.test) == {"Flickr/zoo/0002_1004.jpg": ("tag007",), "Flickr/sea/0002_2003.jpg": ("concept01",)}
    assert pairs(lists.test_zsl) == {"Flickr/sea/0002_2003.jpg": ("concept01",)}


def test_names_of_role_that_cannot_be_joined_are_counted(nus_download):
    nus_download.write_role(ROLE_TRAIN, ROLE_TEST)
    assert "1 of 4 names in formatted_val_images.npy belong to no official image" in prepare(nus_download).notes


def test_names_of_role_for_one_image_are_counted(nus_download):
    nus_download.write_role([*ROLE_TRAIN, "actor/0001_1001.jpg"], ROLE_TEST)
    path = nus_download.root / "formatted_train_images.npy"
    note = f"{path}: 1 repeated mentions of images with the same labels are counted once"
    assert note in prepare(nus_download).notes


def test_counts_of_role_are_compared_with_those_of_the_paper(nus_download):
    nus_download.write_role(ROLE_TRAIN, ROLE_TEST)
    lists = prepare(nus_download)
    assert not lists.origin["exact"]
    assert all(count in lists.notes[-1] for count in ("2 and 1 images", "143,528 and 46,848"))


def test_as_many_zsl_images_as_in_the_paper_are_exact(nus_download, monkeypatch):
    nus_download.write_role(ROLE_TRAIN, ROLE_TEST)
    monkeypatch.setattr(nus, "ROLE_ZSL", 1)
    assert prepare(nus_download).origin["exact"]


def test_the_official_split_can_be_had_beside_the_lists_of_role(nus_download):
    nus_download.write_role(ROLE_TRAIN, ROLE_TEST)
    assert len(prepare(nus_download, split="official").test.images) == 3


def test_the_split_of_role_needs_its_lists(nus_download):
    with pytest.raises(MissingFileError, match=r"formatted_train_images\.npy"):
        prepare(nus_download, split="role")


def test_images_get_the_paths_of_their_files_by_the_official_names(nus_download):
    touch(nus_download, "images/actor/0001_1001.jpg", "images/zoo/0002_1004.jpg")
    assert prepare(nus_download).train.images == ("images/actor/0001_1001.jpg", "images/zoo/0002_1004.jpg")


def test_images_get_the_paths_of_their_files_by_the_names_of_another_download(nus_download):
    touch(nus_download, "Flickr/80002_1001_0f1e2d3c4b_m.jpg", "Flickr/zoo_0002_1004.jpg")
    train = prepare(nus_download).train
    assert train.images == ("Flickr/80002_1001_0f1e2d3c4b_m.jpg", "Flickr/zoo_0002_1004.jpg")


def test_images_without_a_file_are_counted_and_keep_the_official_path(nus_download):
    touch(nus_download, "Flickr/actor/0001_1001.jpg")
    lists = prepare(nus_download)
    assert "Flickr/zoo/0002_1004.jpg" in lists.train.images
    assert "3 of 4 train images are not in Flickr/" in lists.notes
    assert "5 of 5 test images are not in Flickr/" in lists.notes


def test_without_a_folder_of_images_nothing_is_said_of_files(nus_download):
    assert not any("are not in" in note for note in prepare(nus_download).notes)


def test_two_official_images_of_one_photo_with_other_labels_keep_two_paths(nus_download):
    path = nus_download.root / "ImageList/TrainImagelist.txt"
    path.write_text(path.read_text().replace("zoo\\0002_1004", "zoo\\0002_1001"))
    touch(nus_download, "images/80002_1001_0f1e2d3c4b_m.jpg")
    assert prepare(nus_download).train.images == ("images/80002_1001_0f1e2d3c4b_m.jpg", "Flickr/zoo/0002_1001.jpg")


def test_the_authors_lists_alone_are_enough_and_are_taken_exactly(tmp_path, nus_download):
    release(nus_download, *THEIRS)
    (tmp_path / "bare").mkdir()
    (nus_download.root / "annotations").rename(tmp_path / "bare/annotations")
    lists = nus.prepare(Downloads(tmp_path / "bare"), seed=0)
    assert pairs(lists.train) == {"/mnt/t.jpg": ("tag003",)}
    assert (lists.test.images, lists.test.labels) == (("/mnt/b.jpg", "/mnt/a.jpg"), (("tag001", "concept05"), ()))
    assert pairs(lists.test_zsl) == {"/mnt/b.jpg": ("concept05",)}
    assert (lists.origin["split"], lists.origin["exact"]) == ("released", True)


def test_without_the_zsl_list_of_the_authors_it_is_derived_from_their_test_list(nus_download):
    release(nus_download, "train_925", "test_1006")
    lists = prepare(nus_download)
    assert pairs(lists.test_zsl) == {"/mnt/b.jpg": ("concept05",)}
    assert (lists.origin["split"], lists.origin["exact"]) == ("released", False)


def test_the_authors_test_lists_leave_training_images_to_the_official_tables(nus_download):
    release(nus_download, "test_1006", "test_81")
    (nus_download.root / "NUS_WID_Tags/Test_Tags1k.dat").unlink()
    shutil.rmtree(nus_download.root / "Groundtruth")
    lists = prepare(nus_download)
    assert (len(lists.train.images), lists.test.images[0]) == (2, "/mnt/b.jpg")
    assert (lists.origin["split"], lists.origin["exact"]) == ("official", True)


def test_the_authors_training_list_leaves_test_images_to_those_of_role(nus_download):
    release(nus_download, "train_925")
    nus_download.write_role([], ROLE_TEST)
    (nus_download.root / "formatted_train_images.npy").unlink()
    lists = prepare(nus_download)
    assert (lists.train.images, lists.origin["split"], len(lists.test.images)) == (("/mnt/t.jpg",), "role", 2)


@pytest.mark.parametrize("name", list(THEIRS))
def test_a_released_list_of_other_classes_is_an_error(nus_download, name):
    other = {"images": [], "classes": [*THEIRS[name]["classes"][1:], "fox"]}
    release(nus_download, name, **{name: other})
    with pytest.raises(DataError, match=rf"{name}_filtered\.json: its classes are not the [0-9,]+ expected: .*'fox'"):
        prepare(nus_download)


def test_released_lists_of_other_numbers_of_classes_are_an_error_without_official_names(nus_download):
    release(nus_download, *THEIRS, train_925={"images": [], "classes": SEEN[1:]})
    (nus_download.root / "NUS_WID_Tags/TagList1k.txt").unlink()
    with pytest.raises(DataError, match="924 classes and .* 82 further ones, expected 925 and 81"):
        prepare(nus_download)


@pytest.mark.parametrize("options", [{"split": "paper"}, {"test_images": "some"}])
def test_an_unknown_choice_is_an_error_with_the_choices(nus_download, options):
    with pytest.raises(ValueError, match=r"'(paper|some)' is none of (auto, role, official|labelled, all)"):
        prepare(nus_download, **options)


def test_progress_is_shown_of_tables_and_folders(nus_download):
    touch(nus_download, "Flickr/actor/0001_1001.jpg")
    texts = []
    prepare(nus_download, progress=lambda items, text: texts.append(text) or items)
    assert texts == [
        "rows of Train_Tags1k.dat",
        "rows of Test_Tags1k.dat",
        "files of concept labels",
        "folders in Flickr",
    ]
