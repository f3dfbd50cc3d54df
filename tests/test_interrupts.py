import ast
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPTS = [ROOT / f"{name}.py" for name in ("train", "test", "predict")]
TOOLS = [path for path in sorted((ROOT / "tools").glob("*.py")) if "__main__" in path.read_text()]


def ended(error):
    """A fresh process that imports the module and ends with an error."""
    command = [sys.executable, "-c", f"import interrupts; raise {error}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_an_interrupt_is_told_in_one_line():
    done = ended("KeyboardInterrupt")
    assert (done.stderr, done.returncode) == ("interrupted\n", -signal.SIGINT)


def test_other_errors_are_told_as_ever():
    done = ended("ValueError('odd')")
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.endswith("ValueError: odd\n")


@pytest.mark.parametrize("path", SCRIPTS + TOOLS, ids=lambda path: path.name)
def test_scripts_import_it_before_all_that_takes_long(path):
    imported = [
        name for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    ]  # fmt: skip
    before = imported[: imported.index("interrupts")]
    assert all(name.split(".")[0] in sys.stdlib_module_names for name in before)
