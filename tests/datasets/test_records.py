import pytest

from datasets.records import DataError, Entry, MissingFileError, Records, collect, first_few, notes_of


def entries(*rows):
    """(image, labels) as entries of lines 1, 2, ..."""
    return [Entry(f"f, line {i}", image, labels) for i, (image, labels) in enumerate(rows, 1)]


def test_images_and_labels_keep_the_order_of_the_entries():
    records = collect(entries(("y", ["b", "a"]), ("x", ["c"])), "f")
    assert (records.images, records.labels, records.source) == (("y", "x"), (("b", "a"), ("c",)), "f")


def test_classes_that_are_not_given_are_the_labels_in_ascii_order():
    assert collect(entries(("x", ["é", "b"]), ("y", ["B", "a", "b"])), "f").classes == ("B", "a", "b", "é")


def test_classes_that_are_given_keep_their_order_and_need_no_image():
    assert collect(entries(("x", ["a"])), "f", classes=["z", "a", "B"]).classes == ("z", "a", "B")


def test_repeated_labels_are_kept_once_in_order_of_first_mention():
    assert collect(entries(("x", ["b", "a", "b", "a", "c"])), "f").labels == (("b", "a", "c"),)


def test_an_image_again_with_the_same_labels_is_kept_once_as_it_stood_first():
    records = collect(entries(("x", ["b", "a"]), ("y", []), ("x", ["a", "b", "a"])), "f")
    assert (records.images, records.labels) == (("x", "y"), (("b", "a"), ()))


def test_repeated_images_are_counted_after_the_notes_of_the_reader():
    rows = [("x", ["a"])] * 1_500
    notes = collect(entries(*rows), "f", notes=["read"]).notes
    assert notes == ("read", "1,499 repeated mentions of images with the same labels are counted once")


def test_nothing_is_noted_where_nothing_is_merged():
    assert collect(entries(("x", ["a", "a"]), ("y", ["a"])), "f").notes == ()


def test_the_origin_is_passed_on():
    assert collect(entries(("x", ["a"])), "f", origin={"seed": 3}).origin == {"seed": 3}


def test_entries_are_not_changed():
    rows = entries(("x", ["a", "a"]))
    collect(iter(rows), "f")
    assert rows == [("f, line 1", "x", ["a", "a"], ())]


def test_labels_are_brought_to_the_composed_form_of_unicode():
    found = collect(entries(("x", ["cafe\u0301"]), ("y", ["caf\u00e9"])), "f", classes=["cafe\u0301"])
    assert (found.labels, found.classes) == ((("caf\u00e9",), ("caf\u00e9",)), ("caf\u00e9",))


def test_two_spellings_of_one_path_are_one_image():
    found = collect(entries(("./a/x", ["a"]), ("a/x", ["a"])), "f")
    assert found.images == ("./a/x",)


@pytest.mark.parametrize(
    ("rows", "classes", "named"),
    [
        ([("x", ["a"]), ("z", ["a", "q", "r"])], ["a"], ["f, line 2", "'q'", "'z'", "not among the classes"]),
        ([("x", ["a"]), ("y", []), ("x", [])], ["a"], ["f, line 3", "'x'", "other labels", "f, line 1"]),
        ([("x", ["a"]), ("x", ["b"])], None, ["f, line 2", "other labels", "once, with all its labels"]),
        ([], [], ["f: ", "classes is empty"]),
        ([("x", [])], None, ["f: ", "no image has a label"]),
        ([], ["a", "b", "a"], ["f: classes[2]", "'a'", "twice"]),
        ([], ["a", "\t"], ["f: classes[1]", "not a name"]),
        ([], ["a", "b\ud800"], ["f: classes[1]", "half of a character"]),
        ([], ["a", 3], ["f: classes[1] is 3"]),
    ],
)
def test_a_contradiction_is_one_line_that_names_the_place(rows, classes, named):
    with pytest.raises(DataError) as caught:
        collect(entries(*rows), "f", classes=classes)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in named), message


def test_a_missing_file_is_an_error_of_the_data():
    assert issubclass(MissingFileError, DataError)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["b"], "'b'"),
        ({"c", "a", "B"}, "'B', 'a', 'c'"),
        (["d", "c", "b", "a"], "'a', 'b', 'c' and 1 more"),
        ([f"{i:04}" for i in range(1_234)], "'0000', '0001', '0002' and 1,231 more"),
    ],
)
def test_the_first_names_stand_for_many(names, said):
    assert first_few(names) == said


def test_notes_of_files_are_told_with_the_names_of_the_files():
    train, test = (Records((), (), ("a",), f"{name}.json") for name in ("train", "test"))
    files = [train._replace(notes=("one", "two")), test, test._replace(notes=("three",))]
    assert notes_of(files) == ("train.json: one", "train.json: two", "test.json: three")


def test_rows_are_images_with_their_labels_in_the_order_asked_for():
    found = Records(("x", "y", "z"), (("a",), (), ("b", "a")), ("a", "b"), "f", ("note",))
    assert found.rows(i for i in (2, 0)) == found._replace(images=("z", "x"), labels=(("b", "a"), ("a",)))


def test_what_is_not_known_stays_with_its_image():
    found = collect([Entry("1", "a.jpg", ["x"], ["y"]), Entry("2", "b.jpg", ["y"])], "f", classes=["x", "y"])
    assert found.unknown == (("y",), ())
    assert found.rows([1, 0]).unknown == ((), ("y",))
    assert collect([Entry("1", "a.jpg", ["x"])], "f").unknown == ()


def test_an_image_listed_again_with_other_knowledge_is_refused():
    with pytest.raises(DataError, match="2: 'a.jpg' is listed before with other labels, in 1"):
        collect([Entry("1", "a.jpg", ["x"], ["y"]), Entry("2", "a.jpg", ["x"])], "f", classes=["x", "y"])


def test_labels_that_are_not_known_are_brought_to_the_composed_form_too():
    found = collect([Entry("1", "a.jpg", [], ["e\u0301"])], "f", classes=["e\u0301", "x"])
    assert found.unknown == (("\u00e9",),)
    assert found.classes == ("\u00e9", "x")
