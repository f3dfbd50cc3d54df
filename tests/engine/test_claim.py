"""One process for each run folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import claim
from engine.claim import ClaimError, claimed

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys, time
from pathlib import Path
from engine.claim import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    """A folder that another process has claimed, and that process."""
    with subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield tmp_path, process
        process.kill()


def test_a_second_process_is_refused_in_one_line(held):
    folder, _ = held
    with pytest.raises(ClaimError, match=f"^another process is at work in {folder}: wait for it, or end it$"):
        claimed(folder).__enter__()


def test_a_claim_ends_with_its_process(held):
    folder, process = held
    process.kill()
    process.wait()
    with claimed(folder):
        assert (folder / ".lock").is_file()
    assert list(folder.iterdir()) == []


def test_a_claim_ends_with_its_block_and_leaves_nothing(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), claimed(tmp_path):
            raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_what_was_half_written_is_removed_and_nothing_else(tmp_path):
    gone, stays = (".checkpoint.pth.ab12.part", "val/epoch-1/.results.json.cd34.part"), ("a.part", "test/x/.a.part")
    for name in (*gone, *stays):  # the last is of a test, which may be under way
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with claimed(tmp_path):
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*stays, ".lock"}


def test_a_process_does_not_claim_a_folder_twice(tmp_path):
    with claimed(tmp_path):
        with pytest.raises(ClaimError, match="this process is at work in .* already"):
            claimed(tmp_path / "." / "x" / "..").__enter__()
        assert (tmp_path / ".lock").is_file()
    with claimed(tmp_path):
        pass


def test_a_lock_that_was_just_removed_is_not_relied_on(tmp_path, monkeypatch):
    original, tries = os.fstat, []

    def first_time_another(file):
        tries.append(file)
        if len(tries) == 1:
            (tmp_path / ".lock").unlink()
        return original(file)

    monkeypatch.setattr(claim.os, "fstat", first_time_another)
    with claimed(tmp_path):
        assert (tmp_path / ".lock").is_file()
    assert len(tries) == 2


def test_where_locks_are_not_known_it_is_said(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(claim.fcntl, "lockf", unknown)
    with (
        pytest.warns(UserWarning, match="cannot be locked, No locks available: do not resume it twice"),
        claimed(tmp_path),
    ):
        pass


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ClaimError, match="cannot write, No such file or directory"), claimed(tmp_path / "absent"):
        pass
