import os

import pytest

from datasets.formats.voc import is_image_set, is_voc, read_folder, read_image_set
from datasets.records import DataError, MissingFileError


def xml(*labels, filename="", difficult=(), head=""):
    """An annotation as VOC 2007 and 2012 have it, with parts that bear names of their own."""
    objects = "".join(
        f"\t<object>\n\t\t<name>{label}</name>\n\t\t<pose>Left</pose>\n\t\t<truncated>1</truncated>\n"
        f"\t\t<difficult>{int(i in difficult)}</difficult>\n"
        "\t\t<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>\n"
        "\t\t<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>\n\t</object>\n"
        for i, label in enumerate(labels)
    )
    named = f"\t<filename>{filename}</filename>\n" if filename else ""
    return (
        f"{head}<annotation>\n\t<folder>VOC2007</folder>\n{named}\t<owner><name>someone</name></owner>\n"
        f"\t<size><width>9</width></size>\n{objects}</annotation>\n"
    )


@pytest.fixture
def voc(tree):
    """A VOC of three images, as it unpacks."""
    return tree(
        {
            "VOC/Annotations/000012.xml": xml("car", filename="000012.jpg"),
            "VOC/Annotations/000005.xml": xml("chair", "dog", "chair", filename="000005.jpg", difficult=[0, 2]),
            "VOC/Annotations/000007.xml": xml("aeroplane", filename="000007.jpg", difficult=[0]),
            "VOC/JPEGImages/000005.jpg": "",
            "VOC/JPEGImages/000007.jpg": "",
            "VOC/JPEGImages/000012.jpg": "",
            "VOC/ImageSets/Main/trainval.txt": "000012\n000005\n",
            "VOC/ImageSets/Main/dog_trainval.txt": "000012 -1\n000005  1\n",
            "VOC/ImageSets/all.txt": "000007",
        }
    )


def names(records):
    return [os.path.basename(image) for image in records.images]


def test_a_folder_is_read_in_the_order_of_its_file_names(voc):
    records = read_folder(voc / "VOC")
    assert names(records) == ["000005.jpg", "000007.jpg", "000012.jpg"]
    assert records.labels == (("chair", "dog"), ("aeroplane",), ("car",))
    assert (records.classes, records.source) == (("aeroplane", "car", "chair", "dog"), str(voc / "VOC"))


def test_difficult_objects_are_present_and_counted(voc):
    assert read_folder(voc / "VOC").notes == ("difficult objects, present: 3",)


def test_a_list_is_read_in_its_order_and_counts_only_its_own(voc):
    records = read_image_set(voc / "VOC/ImageSets/Main/trainval.txt")
    assert names(records) == ["000012.jpg", "000005.jpg"]
    assert records.classes == ("car", "chair", "dog")
    assert records.notes == ("difficult objects, present: 2",)


def test_a_list_may_lie_in_image_sets_itself(voc):
    assert names(read_image_set(voc / "VOC/ImageSets/all.txt")) == ["000007.jpg"]


def test_an_id_that_is_listed_again_is_counted_once(voc):
    (voc / "VOC/ImageSets/Main/twice.txt").write_bytes(b"\xef\xbb\xbf000012\r\n\r\n000012 \r\n")
    records = read_image_set(voc / "VOC/ImageSets/Main/twice.txt")
    assert names(records) == ["000012.jpg"]
    assert records.notes == ("1 repeated mentions of images with the same labels are counted once",)


@pytest.mark.parametrize("source", ["VOC", "VOC/Annotations"])
def test_images_are_absolute_paths_whatever_the_source_is_relative_to(voc, monkeypatch, source):
    monkeypatch.chdir(voc)
    images = read_folder(type(voc)(source)).images
    assert images == tuple(str(voc / f"VOC/JPEGImages/{name}.jpg") for name in ("000005", "000007", "000012"))


def test_images_may_lie_among_the_xml_files(tree):
    folder = tree({"mine/a.xml": xml("dog", filename="a.png"), "mine/a.png": ""}) / "mine"
    assert read_folder(folder).images == (str(folder / "a.png"),)


@pytest.mark.parametrize(
    ("filename", "stored", "found"),
    [
        ("other.jpg", ["other.jpg", "x.jpg"], "other.jpg"),
        ("", ["x.png"], "x.png"),
        ("x", ["x.JPG"], "x.JPG"),
        ("x.jpg", ["x.jpeg", "x.webp"], "x.jpeg"),
        ("sub\\x.jpg", ["sub/x.jpg"], "sub/x.jpg"),
        ("C:\\mine\\x.jpg", ["x.jpg"], "x.jpg"),
        ("gone.jpg", ["y.jpg"], "gone.jpg"),
        ("", ["y.jpg"], "x.jpg"),
        ("ü.jpg", ["ü.jpg"], "ü.jpg"),
    ],
)
def test_an_image_bears_the_name_in_the_xml_or_that_of_the_xml(tree, filename, stored, found):
    top = tree({"Annotations/x.xml": xml("dog", filename=filename), **{f"JPEGImages/{name}": "" for name in stored}})
    assert read_folder(top).images == (str(top / "JPEGImages" / found),)


def test_an_image_without_objects_has_no_labels_and_is_counted(tree):
    top = tree({"a.xml": xml(filename="a.jpg"), "b.xml": xml("dog", filename="b.jpg")})
    records = read_folder(top)
    assert (records.labels, records.notes) == (((), ("dog",)), ("images without objects, which have no labels: 1",))


def test_images_without_an_xml_are_counted(tree):
    files = {"Annotations/a.xml": xml("dog", filename="a.jpg"), "JPEGImages/a.jpg": "", "JPEGImages/a.png": ""}
    top = tree({**files, "JPEGImages/b.jpg": "", "JPEGImages/.c.jpg": "", "JPEGImages/Thumbs.db": ""})
    assert read_folder(top).notes == ("images without an XML, left out: 2 ('a.png', 'b.jpg')",)


def test_hidden_files_are_not_read(tree):
    assert len(read_folder(tree({"a.xml": xml("dog"), "._a.xml": b"\0\5\x16\7"})).images) == 1


@pytest.mark.parametrize(
    ("head", "encoding"),
    [("", "utf-8-sig"), ('<?xml version="1.0" encoding="ISO-8859-1"?>', "latin-1"),
     ('<?xml version="1.0" encoding="UTF-16"?>', "utf-16")],
)  # fmt: skip
def test_the_encoding_of_an_xml_is_what_it_says(tree, head, encoding):
    assert read_folder(tree({"a.xml": xml(" Hündin\n", head=head).encode(encoding)})).classes == ("Hündin",)


@pytest.mark.parametrize(
    ("files", "answer"),
    [({"Annotations/a.txt": ""}, True), ({"a.XML": ""}, True), ({"a.jpg": "", "a.txt": "", "b/a.xml": ""}, False)],
)
def test_a_folder_of_voc_is_told_from_others(tree, files, answer):
    assert is_voc(tree(files)) is answer


def test_a_list_is_told_from_other_text_files(voc):
    lists = [voc / "VOC/ImageSets/Main/trainval.txt", voc / "VOC/ImageSets/all.txt", voc / "VOC/Main/all.txt"]
    assert [is_image_set(path) for path in lists] == [True, True, False]


BOMB = '<!DOCTYPE a [<!ENTITY x "dog"><!ENTITY y "&x;&x;&x;&x;">]>'


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("<annotation>\n<object>\n</annotation>", ["a.xml, line 3", "broken XML", "mismatched tag"]),
        ("", ["a.xml, line 1", "broken XML", "no element found"]),
        (xml("müde").encode("latin-1"), ["a.xml, line 6", "broken XML"]),
        (
            xml("狗", head='<?xml version="1.0" encoding="GB2312"?>').encode("gb2312"),
            ["a.xml", "save the file as UTF-8"],
        ),
        (xml(head='<?xml version="1.0" encoding="mine"?>'), ["a.xml", "unknown encoding: mine", "UTF-8"]),
        ("<html><object/></html>", ["a.xml", "<html>", "<annotation>"]),
        (xml("dog", " "), ["a.xml", "object 2 of 2", "no <name>"]),
        ("<annotation><object><part><name>head</name></part></object></annotation>", ["a.xml", "object 1 of 1"]),
        (xml("&y;", head=BOMB), ["a.xml", "<!DOCTYPE>", "remove it"]),
        (xml("dog", head='<?xml version="1.0" encoding="UTF-16"?>' + BOMB).encode("utf-16"), ["a.xml", "<!DOCTYPE>"]),
        (xml(), ["no XML has an object"]),
    ],
)
def test_what_is_wrong_in_an_xml_is_said_in_one_line_that_names_the_place(tree, content, named):
    top = tree({"a.xml": content})
    with pytest.raises(DataError) as caught:
        read_folder(top)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [str(top), *named]), message


def test_two_xml_files_that_name_one_image_are_an_error_that_names_both(tree):
    top = tree({"a.xml": xml("dog", filename="x.jpg"), "b.xml": xml("cat", filename="x.jpg"), "x.jpg": ""})
    with pytest.raises(DataError, match=r"b\.xml: .*x\.jpg.* other labels, in .*a\.xml"):
        read_folder(top)


def test_a_folder_of_annotations_without_xml_is_an_error(tree):
    with pytest.raises(DataError, match=r"Annotations: there is no XML"):
        read_folder(tree({"Annotations/a.txt": ""}))


@pytest.mark.parametrize(
    ("content", "error", "named"),
    [
        ("000012 -1\n000005  1\n", DataError, ["line 1", "'000012 -1'", "second column", "trainval.txt"]),
        ("000012\n000005\t0\n", DataError, ["line 2", "second column"]),
        ("000012\n\n000099\n", MissingFileError, ["line 3", "000099.xml", "without its suffix"]),
        ("000012.jpg\n", MissingFileError, ["line 1", "000012.jpg.xml", "without its suffix"]),
        ("\n", DataError, ["the list is empty"]),
    ],
)
def test_what_is_wrong_in_a_list_is_said_in_one_line_that_names_the_place(voc, content, error, named):
    path = voc / "VOC/ImageSets/Main/x.txt"
    path.write_text(content)
    with pytest.raises(error) as caught:
        read_image_set(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [str(path), *named]), message


def test_a_name_with_a_blank_may_stand_in_a_list(tree):
    top = tree({"Annotations/my dog.xml": xml("dog"), "ImageSets/Main/all.txt": "my dog\n"})
    assert names(read_image_set(top / "ImageSets/Main/all.txt")) == ["my dog.jpg"]
