import pytest

from datasets.benchmarks.downloads import plain
from datasets.benchmarks.nus_photos import PhotoIndex, photos_on_disk, scan

# The photo 500 is in two folders, as one is in the official lists.
IMAGES = ("actor/0001_2124494179.jpg", "zoo/0300_500.jpg", "actor/0002_500.jpg", "rock_garden/0001_77.jpg")
INDEX = PhotoIndex(IMAGES)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("actor/0001_2124494179.jpg", 0),
        ("actor\\0001_2124494179.jpg", 0),
        ("/data/Flickr/actor/0001_2124494179.jpg", 0),
        ("0001_2124494179.jpg", 0),
        ("actor_0001_2124494179.jpg", 0),
        ("80002_2124494179_0f1e2d3c4b_m.jpg", 0),
        ("80002_2124494179_0123456789_m.jpg", 0),
        ("images/80002_2124494179_0f1e2d3c4b.jpg", 0),
        ("0596_2124494179.jpg", 0),
        ("rock_garden_0001_77.jpg", 3),
        ("rock_garden/0001_77.jpg", 3),
    ],
)
def test_an_image_is_found_by_any_name_of_its_photo(name, row):
    assert INDEX.find(name) == row


@pytest.mark.parametrize("name", ["actor/0001_999.jpg", "80002_1_2124494179_m.jpg", "Thumbs.db", "2124494179.d/a.jpg"])
def test_other_names_are_of_no_image(name):
    assert INDEX.find(name) is None


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("actor/0002_500.jpg", 2),
        ("zoo/0300_500.jpg", 1),
        ("actor_0002_500.jpg", 2),
        ("0002_500.jpg", 2),
        ("7_500_0f1e2d3c4b_m.jpg", 1),
    ],
)
def test_of_images_with_one_photo_id_folder_and_number_decide_and_else_the_first(name, row):
    assert INDEX.find(name) == row


def test_photo_ids_of_several_images_are_counted():
    assert INDEX.shared == 1


def test_an_image_whose_name_has_no_photo_id_is_found_by_it():
    assert PhotoIndex(["a/x.jpg", "a/y.jpg"]).find("Flickr/a/y.jpg") == 1


def test_each_file_belongs_to_one_image():
    assert photos_on_disk(INDEX, ["images/7_500_0f1e2d3c4b_m.jpg", "images/8_77_0f1e2d3c4b_m.jpg"]) == {
        1: "images/7_500_0f1e2d3c4b_m.jpg",
        3: "images/8_77_0f1e2d3c4b_m.jpg",
    }


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_files_of_an_image_that_with_its_folder_and_number_is_taken(order):
    files = ["F/1_2124494179_0f1e2d3c4b_m.jpg", "F/actor/0001_2124494179.jpg", "F/sea/0009_2124494179.jpg"]
    assert photos_on_disk(INDEX, files[::order]) == {0: "F/actor/0001_2124494179.jpg"}


def test_files_of_no_image_are_passed_over():
    assert photos_on_disk(INDEX, ["F/readme.txt"]) == {}


def test_a_folder_is_scanned_two_levels_deep_in_ascii_order(tmp_path):
    for name in ("Flickr/zoo/0300_500.jpg", "Flickr/actor/0001_2.jpg", "Flickr/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert scan(tmp_path, "Flickr", plain) == ["Flickr/actor/0001_2.jpg", "Flickr/b.jpg", "Flickr/zoo/0300_500.jpg"]


def test_progress_of_a_scan_is_over_the_folders(tmp_path):
    (tmp_path / "Flickr/actor").mkdir(parents=True)
    (tmp_path / "Flickr/b.jpg").touch()
    calls = []
    scan(tmp_path, "Flickr", lambda items, text: calls.append((len(items), text)) or items)
    assert calls == [(1, "folders in Flickr")]
