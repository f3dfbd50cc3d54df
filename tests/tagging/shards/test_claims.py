"""Claims of shards, between processes."""

import errno
import fcntl
import os
import signal
import time
import warnings

import pytest

from engine.atomic import WriteError
from tagging.shards import claims as module
from tagging.shards.claims import Claims


@pytest.fixture
def holder(tmp_path):
    """A process that has claimed "a" in a folder; gives the folder and its number."""
    said, say = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            with Claims(tmp_path).claimed("a") as mine:
                os.write(say, b"mine" if mine else b"not!")
                time.sleep(60)
        finally:
            os._exit(1)
    assert os.read(said, 4) == b"mine"
    yield tmp_path, process
    try:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_what_another_process_has_claimed_is_not_to_be_had_and_all_else_is(holder):
    claims = Claims(holder[0])
    with claims.claimed("a") as a, claims.claimed("b") as b:
        assert (a, b) == (False, True)


def test_a_claim_ends_with_its_process(holder):
    folder, process = holder
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with Claims(folder).claimed("a") as mine:
        assert mine


def test_a_claim_ends_with_its_block(tmp_path):
    claims = Claims(tmp_path)
    with claims.claimed("a"):
        assert not _to_be_had(tmp_path)
    assert _to_be_had(tmp_path)


def _to_be_had(folder):
    """Whether another process can claim "a"."""
    process = os.fork()
    if process == 0:
        try:
            with Claims(folder).claimed("a") as mine:
                os._exit(0 if mine else 3)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, 3)
    return status == 0


@pytest.mark.parametrize("remove", [True, False])
def test_the_file_of_claims_stays_as_long_as_it_is_needed(tmp_path, remove):
    Claims(tmp_path).close(remove=remove)
    assert [path.name for path in tmp_path.iterdir()] == ([] if remove else [".claims"])


def test_where_nothing_can_be_locked_all_is_claimed_and_said_once(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    claims = Claims(tmp_path)
    caught = warnings.catch_warnings(record=True, action="always")
    with caught as said, claims.claimed("a") as a, claims.claimed("b") as b:
        assert (a, b) == (True, True)
    (only,) = said
    assert f"{tmp_path / '.claims'} cannot be locked, No locks available: " in str(only.message)


def test_without_locks_of_the_system_all_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    with Claims(tmp_path).claimed("a") as mine:
        assert mine


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / ".claims").mkdir()
    with pytest.raises(WriteError, match=r"\.claims: cannot write, Is a directory"):
        Claims(tmp_path)
