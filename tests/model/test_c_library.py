"""Libraries from C files: kept and found again, and what is said where the machine cannot make one."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model import c_library
from model.c_library import COMPILERS, CompilerError, shared_library

pytestmark = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C compiler")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A C file, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    file = tmp_path / "answer.c"
    file.write_text("int answer(void) { return 42; }\n")
    return file


def kept(source):
    return sorted(path.name for path in (source.parent / "cache" / "ram").glob("*"))


def pretend(source, monkeypatch, script):
    """A compiler that knows its version and else does what the script says."""
    program = source.parent / "pretended"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))


def test_functions_of_the_file_can_be_called(source):
    assert shared_library(source).answer() == 42
    (name,) = kept(source)
    assert name.startswith("answer-")


def test_a_kept_library_is_not_compiled_again(source, monkeypatch):
    shared_library(source)
    run = c_library._run
    monkeypatch.setattr(c_library, "_run", lambda line: run(line) if "--version" in line else pytest.fail("compiled"))
    assert shared_library(source).answer() == 42


def test_another_source_compiler_or_processor_makes_another_library(source, monkeypatch):
    processor = source.parent / "cpuinfo"
    processor.write_text("flags\t\t: fpu more\n")
    shared_library(source)
    with monkeypatch.context() as patch:
        patch.setattr(c_library, "CPU_INFO", processor)
        shared_library(source)
    with monkeypatch.context() as patch:
        patch.setenv("CC", f"{next(filter(shutil.which, COMPILERS))} -DNDEBUG")
        shared_library(source)
    source.write_text("int answer(void) { return 43; }\n")
    assert shared_library(source).answer() == 43
    assert len(kept(source)) == 4


def test_without_a_description_of_the_processor_it_is_compiled(source, monkeypatch):
    monkeypatch.setattr(c_library, "CPU_INFO", source.parent / "missing")
    assert shared_library(source).answer() == 42


def test_a_broken_library_is_replaced(source):
    shared_library(source)
    (name,) = kept(source)
    path = source.parent / "cache" / "ram" / name
    path.unlink()  # not written over: this process has it open
    path.write_bytes(b"\x7fELF")
    assert shared_library(source).answer() == 42
    assert path.stat().st_size > 4


def test_several_may_ask_at_once(source):
    with ThreadPoolExecutor(3) as pool:
        assert [library.answer() for library in pool.map(shared_library, [source] * 3)] == [42] * 3
    assert len(kept(source)) == 1


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(source, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))  # a file: root may write into any folder
    assert shared_library(source).answer() == 42


def test_without_a_folder_to_compile_in_it_is_refused(source, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(c_library, "TemporaryDirectory", full)
    with pytest.raises(CompilerError, match="no folder to compile in: No space left"):
        shared_library(source)


def test_without_a_home_a_cache_is_asked_for(source, monkeypatch):
    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(CompilerError, match="there is no ~/.cache: set XDG_CACHE_HOME"):
        shared_library(source)


def test_without_a_compiler_it_is_refused(source, monkeypatch):
    monkeypatch.setenv("PATH", str(source.parent))
    with pytest.raises(CompilerError, match=r"there is no C compiler here \(cc, gcc, clang\)"):
        shared_library(source)
    monkeypatch.setenv("CC", "icx -O1")
    with pytest.raises(CompilerError, match=r"there is no C compiler here \(icx\)"):
        shared_library(source)


def test_the_first_line_of_what_a_compiler_complains_of_is_shown(source):
    source.write_text("int answer(void) { return }\n")
    with pytest.raises(CompilerError, match=r"ends with code 1: .*answer\.c"):
        shared_library(source)
    assert kept(source) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "pretended ends with code 3: $"),
        ('for last; do :; done; echo text > "$last"', "what .*pretended makes cannot be loaded"),
        ("exit 0", "what .*pretended makes cannot be loaded"),
        ("exec sleep 9", "pretended does not run: .*timed out"),
    ],
)
def test_broken_compilers_are_named_and_leave_nothing(source, monkeypatch, script, said):
    monkeypatch.setattr(c_library, "LONGEST", 0.1 if "sleep" in script else 60)
    pretend(source, monkeypatch, script)
    with pytest.raises(CompilerError, match=said):
        shared_library(source)
    assert kept(source) == []


def test_a_compiler_that_cannot_be_started_is_named(source, monkeypatch):
    program = source.parent / "pretended"
    program.write_bytes(b"no program")
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    with pytest.raises(CompilerError, match="pretended does not run: .*Exec format"):
        shared_library(source)
