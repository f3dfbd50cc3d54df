import shutil
from pathlib import Path

import pytest

from datasets.benchmarks.downloads import Downloads, plain
from datasets.benchmarks.nus_tables import find_names, need_names, read_part
from datasets.records import DataError, MissingFileError

LISTS = Path(__file__).parents[3].parent / "shared" / "data" / "nus_wide"
TAGS = "NUS_WID_Tags/Test_Tags1k.dat"
EXPECTED = {
    "actor/0003_2001.jpg": ("tag001", "concept02", "concept80"),
    "sea/0001_2002.jpg": ("tag001", "tag002"),
    "sea/0002_2003.jpg": ("concept01",),
    "sea/0003_2004.jpg": (),
    "sea/0004_2005.jpg": (),
}


def read(download, part="Test", *, with_concepts=True, progress=plain):
    downloads = Downloads(download.root)
    return read_part(downloads, part, need_names(downloads), progress, with_concepts=with_concepts)


def pairs(records):
    return dict(zip(records.images, records.labels, strict=True))


def flatten(download, *folders):
    """Moves what is in the folders to the root."""
    for folder in folders:
        for path in list((download.root / folder).iterdir()):
            path.rename(download.root / path.name)


def test_seen_labels_are_the_tags_that_are_no_concepts_in_their_order(nus_download):
    names = need_names(Downloads(nus_download.root))
    assert names.seen == tuple(f"tag{i:03d}" for i in range(925))
    assert (len(names.tags), len(names.concepts)) == (1000, 81)


@pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists of names are not here")
def test_the_official_lists_give_925_seen_labels():
    names = need_names(Downloads(LISTS))
    assert (len(names.tags), len(names.concepts), len(names.seen)) == (1000, 81, 925)
    assert names.seen[:5] == ("nature", "blue", "red", "green", "bravo")
    assert names.seen[-5:] == ("warehouse", "driver", "funeral", "antenna", "cake")
    outside = set(names.concepts) - set(names.tags)
    assert outside == {"computer", "fire", "map", "swimmers", "tattoo", "whales"}


@pytest.mark.parametrize("name", ["NUS_WID_Tags/TagList1k.txt", "ConceptsList/Concepts81.txt"])
def test_a_missing_list_of_names_is_an_error_only_where_it_is_needed(nus_download, name):
    (nus_download.root / name).unlink()
    assert find_names(Downloads(nus_download.root)) is None
    with pytest.raises(MissingFileError, match=name):
        need_names(Downloads(nus_download.root))


def test_names_that_are_there_are_found(nus_download):
    downloads = Downloads(nus_download.root)
    assert find_names(downloads) == need_names(downloads)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("".join(f"t{i}\n" for i in range(999)), "expected 1,000 different names, has 999 in 999 lines"),
        ("".join(f"t{i % 999}\n" for i in range(1000)), "has 999 in 1,000 lines"),
        ("".join(f"t{i}\n" for i in range(1000)), "1,000 tags are not among the concepts, expected 925"),
        ("a\n\nb\n", "line 2: the line is blank"),
    ],
)
def test_another_list_of_tags_is_an_error(nus_download, text, named):
    nus_download.write("NUS_WID_Tags/TagList1k.txt", text)
    with pytest.raises(DataError, match=named):
        need_names(Downloads(nus_download.root))


def test_a_list_that_is_not_utf8_is_an_error(nus_download):
    (nus_download.root / "NUS_WID_Tags/TagList1k.txt").write_bytes(b"a\xff\n")
    with pytest.raises(DataError, match=r"TagList1k\.txt: not a UTF-8 text file \(byte 1\)"):
        need_names(Downloads(nus_download.root))


def test_images_have_their_tags_without_concepts_and_then_their_human_labels(nus_download):
    records = read(nus_download)
    assert pairs(records) == EXPECTED
    assert records.classes == tuple(f"tag{i:03d}" for i in range(925)) + tuple(f"concept{i:02d}" for i in range(81))


def test_without_concepts_the_label_files_are_not_needed(nus_download):
    shutil.rmtree(nus_download.root / "Groundtruth")
    records = read(nus_download, "Train", with_concepts=False)
    assert pairs(records) == {
        "actor/0001_1001.jpg": ("tag000", "tag924"),
        "actor/0002_1002.jpg": (),
        "zoo/0001_1003.jpg": (),
        "zoo/0002_1004.jpg": ("tag007",),
    }
    assert len(records.classes) == 925


def test_label_folders_may_be_outside_groundtruth(nus_download):
    (nus_download.root / "Groundtruth/TrainTestLabels").rename(nus_download.root / "TrainTestLabels")
    assert pairs(read(nus_download)) == EXPECTED


def test_all_files_may_be_in_the_root(nus_download):
    flatten(nus_download, "Groundtruth/TrainTestLabels", "NUS_WID_Tags", "ImageList", "ConceptsList")
    assert pairs(read(nus_download)) == EXPECTED


def test_without_the_tables_of_the_part_rows_of_those_of_all_images_are_picked_by_name(nus_download):
    nus_download.write_whole()
    expected = pairs(read(nus_download, "Train"))
    (nus_download.root / "NUS_WID_Tags/Train_Tags1k.dat").unlink()
    shutil.rmtree(nus_download.root / "Groundtruth/TrainTestLabels")
    assert pairs(read(nus_download, "Train")) == expected
    assert pairs(read(nus_download, "Test")) == EXPECTED


def test_an_image_that_the_list_of_all_images_lacks_is_an_error(nus_download):
    nus_download.write_whole()
    (nus_download.root / TAGS).unlink()
    nus_download.write("ImageList/TestImagelist.txt", "sea\\0009_2009.jpg\n")
    with pytest.raises(DataError, match=r"TestImagelist\.txt: the image 'sea/0009_2009.jpg' is not in .*/Imagelist"):
        read(nus_download)


@pytest.mark.parametrize("name", ["ImageList/TestImagelist.txt", TAGS])
def test_a_missing_table_is_named(nus_download, name):
    (nus_download.root / name).unlink()
    with pytest.raises(MissingFileError, match=name):
        read(nus_download)


def test_a_missing_label_file_is_named(nus_download):
    (nus_download.root / "Groundtruth/TrainTestLabels/Labels_concept33_Test.txt").unlink()
    with pytest.raises(MissingFileError, match="Groundtruth/TrainTestLabels/Labels_concept33_Test.txt or TrainTest"):
        read(nus_download)


def rewrite_row(download, row):
    path = download.root / TAGS
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], row, *lines[2:]]))


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("0\t" * 999 + "\n", "found 999 values"),
        ("0\t" * 1001 + "\n", "found 1,001 values"),
        ("0\t" * 999 + "2\t\n", "found '2'"),
        ("0\t" * 998 + "10\t\n", "found '10'"),
        ("0\t" * 999 + "-1\t\n", "found '-1'"),
        ("\n", "found 0 values"),
    ],
)
def test_a_wrong_row_of_tags_is_an_error_with_its_number(nus_download, row, named):
    rewrite_row(nus_download, row)
    with pytest.raises(DataError, match=rf"Test_Tags1k\.dat, row 2: expected 1,000 values 0 or 1, {named}"):
        read(nus_download)


def test_blank_lines_at_the_end_of_a_tag_table_are_no_rows(nus_download):
    with (nus_download.root / TAGS).open("a") as file:
        file.write("\t\n\n")
    assert pairs(read(nus_download)) == EXPECTED


def test_spaces_may_separate_tags(nus_download):
    path = nus_download.root / TAGS
    path.write_text(path.read_text().replace("\t", " "))
    assert pairs(read(nus_download)) == EXPECTED


@pytest.mark.parametrize(("rows", "found"), [(-1, 4), (1, 6)])
def test_a_tag_table_of_other_length_than_the_image_list_is_an_error(nus_download, rows, found):
    path = nus_download.root / TAGS
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:rows] if rows < 0 else [*lines, lines[0]]))
    with pytest.raises(
        DataError, match=rf"Test_Tags1k\.dat: has {found} rows, but .*TestImagelist\.txt names 5 images"
    ):
        read(nus_download)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("0\n1\n0\n0\n", "has 4 rows, but"),
        ("0\n1\n0\n0\n0\n1\n", "has 6 rows, but"),
        ("0\n1\n2\n0\n0\n", "row 3: expected 0 or 1, found '2'"),
    ],
)
def test_a_wrong_label_file_is_an_error_with_its_name(nus_download, text, named):
    nus_download.write("Groundtruth/TrainTestLabels/Labels_concept07_Test.txt", text)
    with pytest.raises(DataError, match=rf"Labels_concept07_Test\.txt.{{1,2}}{named}"):
        read(nus_download)


def test_an_image_listed_twice_with_other_labels_is_an_error_with_its_line(nus_download):
    path = nus_download.root / "ImageList/TestImagelist.txt"
    path.write_text(path.read_text().replace("0002_2003", "0001_2002"))
    with pytest.raises(DataError, match=r"TestImagelist\.txt, line 3: 'sea/0001_2002.jpg' is listed before"):
        read(nus_download)


def test_progress_is_over_rows_and_label_files(nus_download):
    texts = []
    read(nus_download, progress=lambda items, text: texts.append(text) or items)
    assert texts == ["rows of Test_Tags1k.dat", "files of concept labels"]
