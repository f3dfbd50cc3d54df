"""The campaign against tagged shards: a short one, and that it finds what is wrong."""

import re
import shutil
import signal

import pytest

from tools.chaos_tagging import compared, main, overlaps
from tools.forked_ranks import End, Event

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def test_a_kill_a_damaged_shard_and_a_full_disk_lose_and_repeat_nothing(capsys):
    assert main(["--shards", "3", "--pictures", "8", "--kills", "1"]) == 0
    done, wrong = (
        [int(number) for number in re.findall(r"\d+", line)] for line in capsys.readouterr().out.splitlines()
    )
    rounds = done[0]  # a second one if all was done before the signal came
    assert done == [rounds, 1, rounds, rounds, 3 * rounds, 24 * rounds]
    assert wrong == [0] * 7


@pytest.fixture
def place(tmp_path):
    """Outputs of two shards as they have to be."""
    for folder in ("out", "expected"):
        (tmp_path / folder).mkdir()
        for name in ("000", "001"):
            table = pyarrow.table({"image": [f"{name}-{k}" for k in range(3)], "labels": [["dog"], ["cat"], []]})
            parquet.write_table(table, tmp_path / folder / f"{name}.parquet")
    return tmp_path


EXPECTED = {name: [f"{name}-{k}" for k in range(3)] for name in ("000", "001")}


def changed(place, change):
    path = place / "out" / "000.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(change(parquet.read_table(path).to_pylist())), path)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda place: place, {}),
        (lambda place: changed(place, lambda rows: rows[:2]), {"rows lost": 1}),
        (lambda place: changed(place, lambda rows: [*rows, rows[0]]), {"rows repeated": 1}),
        (lambda place: changed(place, lambda rows: [rows[0] | {"labels": []}, *rows[1:]]), {"rows that differ": 1}),
        (lambda place: (place / "out" / "000.parquet").unlink(), {"rows lost": 3}),
        (lambda place: (place / "out" / "000.parquet").write_bytes(b"half"), {"rows lost": 3}),
        (lambda place: (place / "out" / ".000.parquet.ab.part").touch(), {"files left over": 1}),
        (lambda place: shutil.copy(place / "out" / "000.parquet", place / "out" / "x.parquet"), {"files left over": 1}),
    ],
)
def test_what_is_wrong_with_outputs_is_found(place, spoil, found):
    spoil(place)
    counts = compared(place, EXPECTED)
    assert {name: count for name, count in counts.items() if count and name not in ("shards", "rows")} == found


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([(1, "begun"), (1, "done"), (2, "begun"), (2, "done")], {"shards tagged again": 1}),
        ([(1, "begun"), (1, "failed"), (2, "begun"), (2, "done")], {}),
        ([(1, "begun"), (1, "killed"), (2, "begun"), (2, "done")], {}),
        ([(1, "begun"), (3, "killed"), (2, "begun"), (2, "done")], {"shards tagged by two at once": 1}),
    ],
)
def test_what_was_done_twice_is_found(events, found):
    timed = [Event(float(k), process, what, "" if what == "killed" else "000")
             for k, (process, what) in enumerate(events)]  # fmt: skip
    assert {name: count for name, count in overlaps(timed).items() if count} == found


@pytest.mark.parametrize(
    ("end", "explained"),
    [
        (End(-9, signal.SIGKILL, full=False, said=""), True),
        (End(143, signal.SIGTERM, full=False, said="ended"), True),
        (End(143, signal.SIGINT, full=False, said="ended"), False),
        (End(1, signal.SIGINT, full=False, said="Traceback"), False),
        (End(0, signal.SIGKILL, full=False, said=""), False),  # through before the signal came
        (End(2, None, full=True, said="error: a.parquet: cannot write, File too large\n"), True),
        (End(2, None, full=True, said="error: no shard\n"), False),
        (End(2, None, full=False, said="error: a.parquet: cannot write, File too large\n"), False),
    ],
)
def test_ends_are_explained_by_what_was_done_to_the_process(end, explained):
    assert end.explained is explained
