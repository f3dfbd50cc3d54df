import pytest

from datasets.benchmarks import binary_csv
from datasets.records import DataError, Entry

NAMES = {"Cat": "cat", "SeaLion": "sea lion"}


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return binary_csv.read(tmp_path / "a.csv")

    return read


def entries(table):
    return list(binary_csv.entries(table, binary_csv.columns_by_name(table, NAMES), lambda name: f"x/{name}"))


def test_labels_are_read_by_the_names_of_their_columns(read):
    table = read("image,SeaLion,Cat\n1,1,0\n2,1,1\n3,0,0\n")
    assert [(entry.image, list(entry.labels)) for entry in entries(table)] == [
        ("x/1", ["sea lion"]),
        ("x/2", ["cat", "sea lion"]),
        ("x/3", []),
    ]


def test_entries_name_the_line_of_the_file(read):
    table = read("image,Cat,SeaLion\n\n1,1,0\n")
    assert entries(table) == [Entry(f"{table.path}, line 3", "x/1", ["cat"])]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffimage,Cat,SeaLion\r\n1,1,0\r\n",
        "image, Cat , SeaLion\n1, 1 ,0\n",
        "image,Cat,SeaLion\n1,1.0,0.0\n",
        "image,Cat,SeaLion\n1,1.,0.000000e+00\n",
        '"image","Cat","SeaLion"\n"1","1","0"\n,,\n',
        ",Cat,SeaLion,Fox\n1,1,0,many\n",
    ],
    ids=["windows", "blanks", "decimals", "exponents", "quotes", "further column"],
)
def test_spellings_of_the_same_table_read_the_same(read, text):
    assert [(entry.image, list(entry.labels)) for entry in entries(read(text))] == [("x/1", ["cat"])]


@pytest.mark.parametrize("value", ["2", "-1", "nan", "yes", "", "0.5"])
def test_another_value_is_named_with_line_and_label(read, value):
    with pytest.raises(DataError, match=rf"a\.csv, line 3, label 'sea lion': '{value}' is not 0 or 1$"):
        entries(read(f"image,Cat,SeaLion\n1,1,0\n2,1,{value}\n"))


def test_a_row_without_an_image_is_named(read):
    with pytest.raises(DataError, match=r"a\.csv, line 2: the first column, the name of the image, is empty$"):
        entries(read("image,Cat,SeaLion\n,1,0\n"))


def test_a_row_of_another_width_is_named(read):
    with pytest.raises(DataError, match=r"a\.csv, line 3: 2 cells where the header has 3$"):
        read("image,Cat,SeaLion\n1,1,0\n2,1\n")


def test_a_file_that_is_not_utf_8_is_named_with_the_line(read):
    with pytest.raises(DataError, match=r"a\.csv, line 2: not UTF-8"):
        read(b"image,Cat\n\xff,1\n")


def test_broken_quotes_are_named_with_the_line(read):
    with pytest.raises(DataError, match=r"a\.csv, line 2: broken CSV: "):
        read('image,Cat\n"1"x,1\n')


@pytest.mark.parametrize("text", ["", "image,Cat\n", "image,Cat\n\n,\n"])
def test_a_file_without_images_is_refused(read, text):
    with pytest.raises(DataError, match=r"a\.csv: there are no images below the header$"):
        read(text)


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("image,Cat,Fox", r"the header has no column 'SeaLion'; of no label: 'Fox'"),
        ("image,Cat", r"the header has no column 'SeaLion'"),
        ("image,Cat,SeaLion,Cat", r"two columns are called 'Cat'"),
        ("Cat,SeaLion", r"the header has no column 'Cat'"),
    ],
)
def test_a_wrong_header_is_named(read, header, shown):
    table = read(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    with pytest.raises(DataError, match=rf"a\.csv, line 1: {shown}$"):
        binary_csv.columns_by_name(table, NAMES)
