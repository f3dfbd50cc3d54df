import sys
import warnings

import pytest

from configs import ConfigError
from datasets.records import DataError, MissingFileError
from engine import cli
from engine.checkpoint import CheckpointError
from engine.log import LogError


def raising(error):
    def main():
        raise error

    return main


def test_a_script_that_ends_well_exits_with_0():
    assert cli.run(lambda: None) == 0


def test_the_exit_code_of_a_script_is_kept():
    assert cli.run(lambda: 3) == 3


@pytest.mark.parametrize("kind", [ConfigError, DataError, MissingFileError, CheckpointError, LogError])
def test_an_error_of_ours_is_one_line_and_exit_code_2(capsys, kind):
    assert cli.run(raising(kind("a file\n  is not   there"))) == 2
    assert capsys.readouterr() == ("", "error: a file is not there\n")


@pytest.mark.parametrize(
    "error", [ValueError("a"), OSError("a"), KeyError("a"), UnicodeDecodeError("a", b"", 0, 1, "")]
)
def test_another_error_keeps_its_traceback(capsys, error):
    with pytest.raises(type(error)):
        cli.run(raising(error))
    assert capsys.readouterr() == ("", "")


def test_a_class_of_ours_that_is_no_user_error_keeps_its_traceback():
    error = type("Bug", (RuntimeError,), {"__module__": "engine.train"})("a")
    with pytest.raises(RuntimeError):
        cli.run(raising(error))


def test_a_module_whose_name_begins_like_ours_is_not_ours():
    error = type("Other", (ValueError,), {"__module__": "datasets_of_others.load"})("a")
    with pytest.raises(ValueError, match="a"):
        cli.run(raising(error))


def test_the_leave_of_a_parser_passes():
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: sys.exit(7))
    assert caught.value.code == 7


def test_an_interrupted_script_exits_with_130_and_without_a_traceback(capsys):
    assert cli.run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.filterwarnings("always")
def test_a_warning_is_one_line(capsys):
    assert cli.run(lambda: warnings.warn("images\n are   missing", stacklevel=1)) == 0
    assert capsys.readouterr().err == "warning: images are missing\n"


@pytest.mark.parametrize("main", [lambda: None, raising(ConfigError("a"))])
def test_warnings_are_shown_as_before_once_the_script_has_ended(main):
    before = warnings.showwarning
    cli.run(main)
    assert warnings.showwarning is before
