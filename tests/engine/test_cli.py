import errno
import subprocess
import sys
import warnings

import pytest

from configs import ConfigError
from datasets.records import DataError, MissingFileError
from engine import cli
from engine.checkpoint import CheckpointError
from engine.dashboard import LogError
from engine.signals import Terminated


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


def arguments(*line):
    made = cli.parser("What it does.\nMore.")
    cli.add_configuration(made)
    made.add_argument("--resume", nargs="?", const="auto")
    made.add_argument("--quick", action="store_true")
    cli.add_overrides(made, "SOLVER.SEED 1")
    return cli.read(made, line)


@pytest.mark.parametrize(
    "line",
    [
        ("--config_file", "a.yml", "--quick", "SOLVER.SEED", "1", "WANDB", "true"),
        ("SOLVER.SEED", "1", "WANDB", "true", "--quick", "--config_file", "a.yml"),
        ("SOLVER.SEED", "1", "--config_file", "a.yml", "WANDB", "true", "--quick"),
    ],
)
def test_options_stand_anywhere_beside_key_value_pairs(line):
    found = arguments(*line)
    assert (found.config_file, found.quick, found.resume) == (["a.yml"], True, None)
    assert found.opts == ["SOLVER.SEED", "1", "WANDB", "true"]


@pytest.mark.parametrize(
    ("line", "resume", "opts"),
    [
        (("--resume", "SOLVER.SEED", "1"), "auto", ["SOLVER.SEED", "1"]),
        (("WANDB", "1", "--resume", "WANDB", "2"), "auto", ["WANDB", "1", "WANDB", "2"]),
        (("--resume", "runs/a", "SOLVER.SEED", "1"), "runs/a", ["SOLVER.SEED", "1"]),
        (("SOLVER.SEED", "1", "--resume"), "auto", ["SOLVER.SEED", "1"]),
    ],
)
def test_an_option_does_not_take_a_key_for_its_value(line, resume, opts):
    found = arguments(*line)
    assert (found.resume, found.opts) == (resume, opts)


def test_a_value_may_be_a_negative_number():
    assert arguments("SOLVER.BASE_LR", "-1.0").opts == ["SOLVER.BASE_LR", "-1.0"]


def test_a_parser_describes_its_script_by_one_line():
    assert cli.parser("What it does.\nMore.").description == "What it does."


def test_the_leave_of_a_parser_passes():
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: sys.exit(7))
    assert caught.value.code == 7


def test_what_the_system_refuses_is_one_line_and_exit_code_2(capsys):
    def fails():
        raise OSError(errno.ENOSPC, "No space left on device", "out.json")

    assert cli.run(fails) == 2
    assert capsys.readouterr().err == "error: out.json: No space left on device\n"


def test_the_death_of_a_process_that_reads_images_is_one_line_and_exit_code_2(capsys):
    def fails():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    assert cli.run(fails) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: DataLoader worker (pid 7) is killed by signal: Killed. Perhaps the memory was full: "
    )
    assert said.count("\n") == 1


def test_a_full_disk_behind_stdout_is_one_line_and_exit_code_2():
    program = "import sys; from engine import cli; sys.exit(cli.run(lambda: print('x')))"
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (2, "error: No space left on device\n")


def test_a_script_that_is_ended_exits_with_143_and_says_how_to_go_on(capsys):
    def ended():
        raise Terminated

    assert cli.run(ended) == 143
    assert capsys.readouterr().err == "ended by SIGTERM; --resume goes on with a training\n"


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


def test_configurations_are_kept_in_their_order():
    found = arguments("--config_file", "a.yml", "WANDB", "true", "--config_file", "b.yml")
    assert (found.config_file, found.opts) == (["a.yml", "b.yml"], ["WANDB", "true"])
    assert arguments().config_file is None


def test_an_interrupt_that_torch_covers_up_exits_with_130(capsys):
    def fails():
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 28288 vs 28180")

    assert cli.run(fails) == 130
    assert capsys.readouterr().err == "interrupted\n"
