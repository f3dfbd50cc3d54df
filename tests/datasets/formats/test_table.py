import csv

import pytest

from datasets.formats.table import read_table
from datasets.records import DataError


@pytest.fixture
def table(tmp_path):
    """The records of a table with this content."""

    def table(content, **options):
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "my.csv").write_bytes(content)
        return read_table(tmp_path / "my.csv", **options)

    return table


def test_a_row_is_an_image_with_its_labels_in_order_of_first_mention(table, tmp_path):
    records = table("image,labels\nb/2.jpg,dog|cat|dog\n1.jpg,Ant\n")
    assert records.images == ("b/2.jpg", "1.jpg")
    assert records.labels == (("dog", "cat"), ("Ant",))
    assert (records.classes, records.source) == (("Ant", "cat", "dog"), str(tmp_path / "my.csv"))


@pytest.mark.parametrize("image", ["image", "file", "filename", "file_name", "path", "img", "IMAGE", "File_Name"])
@pytest.mark.parametrize("labels", ["labels", "label", "tags", "classes", "Tags"])
def test_columns_are_known_by_their_usual_names_in_any_order(table, image, labels):
    records = table(f"{labels},{image}\ndog|cat,a.jpg\n")
    assert (records.images, records.labels) == (("a.jpg",), (("dog", "cat"),))


@pytest.mark.parametrize(
    "content",
    [
        "image\tlabels\na, b.jpg\tdog;cat\n",
        'image;labels\r\na, b.jpg;"dog;cat"\r\n',
        'image,labels\r"a, b.jpg",dog;cat',
        '\n\nimage,labels\n\n"a, b.jpg","dog;cat"\n  \n',
        '"image", "labels"\n"a, b.jpg", " dog; cat "\n',
        b'\xef\xbb\xbfimage,labels\n"a, b.jpg",dog ;cat\n',
        "tags\timage\ta;b;c\ndog;cat\ta, b.jpg\t\n",
    ],
    ids=["tab", "semicolon", "comma-mac", "blank-lines", "quotes", "byte-order-mark", "semicolons-in-a-header"],
)
def test_delimiter_ends_of_lines_quotes_and_byte_order_mark_do_not_matter(table, content):
    records = table(content)
    assert (records.images, records.labels) == (("a, b.jpg",), (("dog", "cat"),))


def test_names_that_are_not_ascii_are_kept_to_the_letter(table):
    records = table("image,labels\nfür/犬.jpg,Hündin|犬\n")
    assert (records.images, records.classes) == (("für/犬.jpg",), ("Hündin", "犬"))


def test_what_pythons_csv_module_writes_is_read_back(tmp_path):
    rows = [["a,1.jpg", 'say "x"|y, z'], ["b\t.jpg", "q;r"], ["c.jpg", "line\nbreak"]]
    with open(tmp_path / "written.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "labels"], *rows])
    records = read_table(tmp_path / "written.csv", separator="|")
    assert records.images == ("a,1.jpg", "b\t.jpg", "c.jpg")
    assert records.labels == (('say "x"', "y, z"), ("q;r",), ("line", "break"))


def test_the_separator_that_is_found_is_noted_and_holds_for_the_whole_table(table):
    records = table('image,labels\na.jpg,"big, red"\nb.jpg,dog;cat\n')
    assert records.labels == (("big, red",), ("dog", "cat"))
    (note,) = records.notes
    assert note.startswith("labels are taken to be separated by ';'; where it is part of a label, set DATASETS.SEP")


def test_a_separator_that_is_set_is_the_only_one(table):
    assert table("image,labels\na.jpg,x|y/z\n", separator="/").labels == (("x|y", "z"),)


def test_an_empty_cell_means_no_labels_and_is_counted(table):
    records = table("image,labels\na.jpg,\nb.jpg,dog\nc.jpg, \n")
    assert (records.labels, records.notes) == (((), ("dog",), ()), ("images without labels: 2",))


def test_columns_besides_are_not_read_and_noted(table):
    records = table(",image,labels,width\n0,a.jpg,dog,640\n1,b.jpg,cat,480\n")
    assert records.classes == ("cat", "dog")
    assert records.notes == ("columns that are not read: 2 ('number 1', 'width')",)


def test_a_column_of_flags_per_label_gives_the_classes_in_the_order_of_the_header(table):
    records = table("name of it,file,ant\n0,a.jpg,1\n0,b.jpg,0\n1,c.jpg,1\n")
    assert (records.images, records.classes) == (("a.jpg", "b.jpg", "c.jpg"), ("name of it", "ant"))
    assert records.labels == (("ant",), (), ("name of it", "ant"))
    assert records.notes == ("images without labels: 1",)


@pytest.mark.parametrize(("cell", "labels"), [(c, ("x",)) for c in ("1", "1.0", "true", "TRUE", " 1")])
def test_flags_that_mean_present(table, cell, labels):
    assert table(f"image,x,y\na.jpg,{cell},0\n").labels == (labels,)


@pytest.mark.parametrize("cell", ["0", "0.0", "false", "False"])
def test_flags_that_mean_absent(table, cell):
    assert table(f"image,x,y\na.jpg,{cell},1\n").labels == (("y",),)


def test_no_image_need_have_a_label_where_the_header_names_them(table):
    assert table("image,x\na.jpg,0\n").classes == ("x",)


def test_a_label_that_is_called_tag_is_a_column_of_flags_beside_others(table):
    records = table("image,dog,tag\na.jpg,1,0\nb.jpg,0,1\n")
    assert (records.classes, records.labels) == (("dog", "tag"), (("dog",), ("tag",)))


def test_a_column_of_labels_may_hold_numbers(table):
    assert table("image,label\na.jpg,1\nb.jpg,0\n").classes == ("0", "1")


def test_a_label_may_be_called_as_an_image_column(table):
    assert table("image,path,tree\na.jpg,1,0\n").labels == (("path",),)


def test_an_image_again_with_the_same_labels_is_counted_once(table):
    records = table("image,labels\na.jpg,x|y\na.jpg,y|x\n")
    assert (records.images, len(records.notes)) == (("a.jpg",), 2)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", ["the file is empty"]),
        (" \n\n", ["the file is empty"]),
        (b"\xef\xbb\xbf", ["the file is empty"]),
        ("image,labels\n", ["no images below the header"]),
        ("a.jpg,dog\nb.JPG,cat\n", ["line 1", "no header", "image,labels"]),
        ("\na.jpg,dog\n", ["line 2", "no header"]),
        ("picture,labels\nx,dog\n", ["line 1", "'labels', 'picture'", "file_name"]),
        ("image\na.jpg\n", ["line 1", "no column 'labels'"]),
        ("image,labels\na.jpg,dog\nb.jpg,dog,cat\n", ["line 3", "3 cells", "header has 2", "','"]),
        ("image,labels\na.jpg\n", ["line 2", "1 cells"]),
        ('image,labels\n"a.jpg","dog\ncat"\n\nb.jpg\n', ["line 5", "1 cells"]),
        ('image,labels\n"a\nb.jpg",\n"c\nd.jpg"\n', ["line 4", "1 cells"]),
        ("image,labels\n ,dog\n", ["line 2", "'image' is empty"]),
        ("image,x,y\n,0,1\n", ["line 2", "'image' is empty"]),
        ("image,labels,labels\na.jpg,x,y\n", ["line 1", "two columns", "'labels'"]),
        ("image,dog,dog\na.jpg,1,0\n", ["line 1", "two columns", "'dog'"]),
        ("image,labels,tags\na.jpg,x,y\n", ["line 1", "'labels' and 'tags'", "keep one"]),
        ("path,file,labels\na,a.jpg,x\n", ["line 1", "'path' and 'file'", "keep one"]),
        ("image,x,\na.jpg,1,0\n", ["line 1", "column 3", "no name"]),
        ("image,x,y\na.jpg,1,0\nb.jpg,1,-2\n", ["line 3", "'y'", "'-2'", "not 0, 1 or -1"]),
        ("image,x\na.jpg,2\n", ["line 2", "'x'", "'2'"]),
        ("image,caption\na.jpg,a dog\n", ["line 2", "'caption'", "'a dog'", "'labels'"]),
        ("image,labels\na.jpg,\nb.jpg,\n", ["no image has a label"]),
        ("image,labels\na.jpg,x|z\nb.jpg,y\na.jpg,y\n", ["line 4", "'a.jpg'", "other labels", "my.csv, line 2"]),
        ('image,labels\na.jpg,x\n"b.jpg,y\nc.jpg,z\n', ["line 3", "broken quotes"]),
        ('image,labels\na.jpg,x\n"b"c.jpg,y\n', ["line 3", "broken quotes"]),
        ('image,labels\na.jpg,x\n"' + "b" * 140_000 + "\n", ["line 3", "broken quotes"]),
        ("image,labels\na.jpg,x\nb.jpg,\"['dog', 'cat']\"\n", ["line 3", "['dog', 'cat']", "dog|cat"]),
        ("image,labels\na.jpg,[]\n", ["line 2", "'[]'"]),
        ("image,labels\na.jpg,x\nb.jpg,müde\n".encode("latin-1"), ["line 3", "UTF-8"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_place(table, tmp_path, content, named):
    with pytest.raises(DataError) as caught:
        table(content)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [str(tmp_path / "my.csv"), *named]), message


@pytest.mark.parametrize(("empty_is_unknown", "unknown"), [(False, (("y",), ())), (True, (("y",), ("x",)))])
def test_minus_one_and_if_wanted_an_empty_cell_say_that_nothing_is_known(tmp_path, empty_is_unknown, unknown):
    (tmp_path / "a.csv").write_text("image,x,y\na.jpg,1,-1\nb.jpg,,1\n")
    found = read_table(tmp_path / "a.csv", empty_is_unknown=empty_is_unknown)
    assert (found.labels, found.unknown) == ((("x",), ("y",)), unknown)


@pytest.mark.parametrize("head", ["sep=;\n", "SEP=; \r\n", "\nsep=;\n"])
def test_a_separator_named_in_the_first_line_is_taken(table, head):
    records = table(f"{head}image;labels\na,b.jpg;dog|cat\n")
    assert (records.images, records.labels) == (("a,b.jpg",), (("dog", "cat"),))


def test_lines_are_numbered_as_in_the_file_below_a_named_separator(table):
    with pytest.raises(DataError, match="line 4"):
        table("sep=|\nimage|x\na.jpg|1\nb.jpg|7\n")


@pytest.mark.parametrize(("name", "first"), [("", 0), ("", 1), ("Unnamed: 0", 0), ("index", 0)])
def test_a_column_that_numbers_the_rows_is_no_label(table, name, first):
    records = table(f"{name},image,cat,dog\n{first},a.jpg,1,0\n{first + 1},b.jpg,0,1\n")
    assert (records.classes, records.labels) == (("cat", "dog"), (("cat",), ("dog",)))
    assert records.notes == ("the column that numbers the rows is not read",)


def test_a_label_called_index_that_counts_nothing_is_a_label(table):
    assert table("image,index,dog\na.jpg,1,0\nb.jpg,1,1\n").classes == ("index", "dog")


def test_a_column_without_a_name_that_counts_nothing_is_an_error(table):
    with pytest.raises(DataError, match="column 1 has no name"):
        table(",image,cat\n1,a.jpg,1\n1,b.jpg,0\n")


def test_a_table_with_a_row_for_each_label_is_joined_by_image_and_says_so(table):
    records = table("image,label\na.jpg,dog\nb.jpg,\n./a.jpg,cat\na.jpg,dog\nb.jpg,ant\n")
    assert records.images == ("a.jpg", "b.jpg")
    assert records.labels == (("dog", "cat"), ("ant",))
    assert records.notes == ("a row for each label: 5 rows of 2 images",)


def test_labels_with_a_comma_are_kept_whole_where_a_cell_is_said_to_be_one_label(table):
    content = 'image,label\na.jpg,"car, red"\na.jpg,"car, blue"\n'
    assert table(content, separator="").labels == (("car, red", "car, blue"),)
    with pytest.raises(DataError, match="other labels"):
        table(content)


def test_where_labels_are_split_the_note_says_how_not_to(table):
    (note,) = table('image,labels\na.jpg,"car, red"\n').notes
    assert note.startswith("labels are taken to be separated by ','")
    assert 'set DATASETS.SEPARATOR ("": a cell or line is one label)' in note


def test_a_header_that_is_one_endless_cell_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("a" * 140_000)
    with pytest.raises(DataError, match=r"a\.csv, line 1: no header of a table: field larger than field limit"):
        read_table(tmp_path / "a.csv", separator="auto", empty_is_unknown=False)
