import os
import resource
import signal
from contextlib import contextmanager

import pytest
import torch

from engine.atomic import WriteError, atomic_write, make_folder

LIMIT = 4096  # bytes


@contextmanager
def small_files():
    """The system refuses to let a file grow beyond LIMIT bytes, as a full disk would.

    No fixture: pytest writes its progress, perhaps to a file, before fixtures are torn down.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[0][1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "results.bin"
    path.write_bytes(b"old")
    return path


def untouched(path):
    return path.read_bytes() == b"old" and os.listdir(path.parent) == [path.name]


def test_bytes_replace_the_old_content_and_nothing_else_stays_in_the_folder(old):
    with atomic_write(old) as file:
        file.write(b"new")
    assert old.read_bytes() == b"new"
    assert os.listdir(old.parent) == [old.name]


def test_readers_see_the_old_content_until_the_block_ends(old):
    with atomic_write(old) as file:
        file.write(b"new" * LIMIT)
        file.flush()
        assert old.read_bytes() == b"old"


def test_all_bytes_are_synced_before_the_file_takes_its_place(old, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, old.read_bytes())))
    with atomic_write(old) as file:
        file.write(b"newer")
    assert synced == [(5, b"old")]


def test_text_is_utf8_and_line_ends_are_kept(tmp_path):
    with atomic_write(str(tmp_path / "a.csv"), "w") as file:
        file.write("café\r\nthé\n")
    assert (tmp_path / "a.csv").read_bytes() == "café\r\nthé\n".encode()


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    with atomic_write(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), FileNotFoundError(2, "No such", "other")])
def test_an_exception_of_the_block_passes_and_leaves_the_old_file_alone(old, error):
    def write_half():
        with atomic_write(old) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        write_half()
    assert caught.value is error
    assert untouched(old)


def test_an_exception_that_came_of_another_file_is_not_blamed_on_this_one(old):
    def read_missing():
        try:
            old.with_name("missing").read_bytes()
        except OSError as error:
            raise LookupError("no input") from error

    with pytest.raises(LookupError, match="no input"), atomic_write(old):
        read_missing()


def test_a_full_disk_is_one_line_with_the_path_and_leaves_the_old_file_alone(old):
    with pytest.raises(WriteError) as caught, small_files(), atomic_write(old) as file:
        file.write(b"x" * 2 * LIMIT)
    assert str(caught.value) == f"{old}: cannot write, File too large"
    assert untouched(old)


def test_a_full_disk_that_shows_only_when_the_buffer_is_flushed_is_caught(old):
    with pytest.raises(WriteError, match="File too large"), small_files(), atomic_write(old, "w") as file:
        file.write("x" * (LIMIT + 1))  # fits the buffer of the file
    assert untouched(old)


def test_a_full_disk_under_torch_save_is_a_write_error_too(old):
    refused = pytest.raises(WriteError, match=r"results\.bin: cannot write, File too large")
    with refused, small_files(), atomic_write(old) as file:
        torch.save({"weights": torch.zeros(10_000)}, file)
    assert untouched(old)


def test_a_missing_folder_is_one_line_with_the_path(tmp_path):
    path = tmp_path / "nowhere" / "a"
    with pytest.raises(WriteError) as caught, atomic_write(path):
        pytest.fail("the block must not run")
    assert str(caught.value) == f"{path}: cannot write, No such file or directory"


def test_a_name_that_the_system_refuses_is_a_write_error(tmp_path):
    with pytest.raises(WriteError, match="File name too long"), atomic_write(tmp_path / ("a" * 300)):
        pytest.fail("the block must not run")


def test_a_target_that_became_a_folder_meanwhile_is_a_write_error(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(WriteError, match="cannot write, Is a directory"), atomic_write(path):
        path.mkdir()
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_only_regular_files_are_replaced(tmp_path, make):
    path = tmp_path / "a"
    make(path)
    kind = path.stat().st_mode
    with pytest.raises(WriteError, match="a: cannot write, it is not a regular file"), atomic_write(path):
        pytest.fail("the block must not run")
    assert path.stat().st_mode == kind


def test_a_symbolic_link_stays_and_its_target_is_replaced(old):
    link = old.with_name("latest")
    link.symlink_to(old.name)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert old.read_bytes() == b"new"


def test_two_writers_of_one_file_do_not_mix(old):
    with atomic_write(old) as first, atomic_write(old) as second:
        first.write(b"first")
        second.write(b"2")
    assert old.read_bytes() == b"first"  # its block ends last


@pytest.mark.parametrize("mode", ["a", "rb", "xb"])
def test_other_modes_are_refused(old, mode):
    with pytest.raises(ValueError, match=f"mode is '{mode}'"), atomic_write(old, mode):
        pytest.fail("the block must not run")
    assert untouched(old)


def test_a_folder_is_made_with_those_above_it_and_a_refusal_is_one_line(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file/c: cannot make the folder, Not a directory"):
        make_folder(tmp_path / "file" / "c")
