"""Several programs at once."""

import os
import signal
import sys
import threading
import time

import pytest

from errors import UserError
from tools.reproduction.runner import Failure, Task, environments, run_all


@pytest.fixture
def task(tmp_path):
    """A task of programs in Python."""

    def make(name, *programs, done=lambda used: None, **more):  # noqa: ARG005
        steps = [[sys.executable, "-c", text] for text in programs or ("pass",)]
        return Task(name, lambda: steps, tmp_path / f"{name}.txt", done, **more)

    return make


def run(tasks, slots=1):
    said = []
    failures = run_all(tasks, [dict(os.environ)] * slots, lambda what, name, detail: said.append((what, name)))  # noqa: ARG005
    return failures, said


def test_programs_run_one_after_another_with_their_output_in_the_log(task, tmp_path):
    used = []
    failures, said = run([task("a", "print('one')", "print('two')", done=used.append)])
    assert (failures, said) == ([], [("begins", "a"), ("done", "a")])
    text = (tmp_path / "a.txt").read_text()
    assert text.index("\none\n") < text.index("\ntwo\n")
    assert text.count("\n$ ") == 2
    assert used[0].seconds > 0
    assert used[0].peak > 0


def test_a_failed_task_is_named_and_the_others_go_on(task, tmp_path):
    bad = task("bad", "print('error: long ago'); print('error: no images'); raise SystemExit(2)", "print('never')")
    failures, said = run([bad, task("good")])
    assert failures == [Failure("bad", tmp_path / "bad.txt", "no images (exit code 2)")]
    assert said[-1] == ("done", "good")
    assert "never" not in (tmp_path / "bad.txt").read_text()


@pytest.mark.parametrize(("program", "why"), [("raise SystemExit(3)", "it said nothing (exit code 3)"),
                                              ("raise KeyError('x')", "KeyError: 'x' (exit code 1)")])  # fmt: skip
def test_the_reason_is_the_last_line_of_the_last_program(task, tmp_path, program, why):
    (tmp_path / "bad.txt").write_text("error: of another day\n")
    assert run([task("bad", program)])[0][0].why == why


def test_a_result_that_cannot_be_taken_is_a_failure(task):
    def refuse(_):
        raise UserError("no results")

    assert run([task("a", done=refuse)])[0][0].why == "no results"


def test_as_many_run_at_once_as_there_are_slots(task, tmp_path):
    meet = (f"import time, pathlib\nhere = pathlib.Path({str(tmp_path)!r})\n(here / '%s').touch()\n"
            "while len(list(here.glob('?'))) < 2: time.sleep(0.01)")  # fmt: skip
    assert run([task("a-task", meet % "a"), task("b-task", meet % "b")], slots=2)[0] == []


def test_what_runs_alone_waits_and_lets_others_wait(task):
    tasks = [task("a"), task("b", alone=True), task("c")]
    assert run(tasks, slots=3)[1] == [(w, n) for n in "abc" for w in ("begins", "done")]


def test_a_task_waits_for_the_one_that_it_begins_with(task):
    assert run([task("b", after="a"), task("a")], slots=2)[1] == [(w, n) for n in "ab" for w in ("begins", "done")]


def test_what_begins_with_a_failed_task_is_not_run(task):
    failures, said = run([task("b", after="a"), task("a", "raise SystemExit(1)"), task("c")])
    assert [failure.name for failure in failures] == ["a", "b"]
    assert failures[1].why == "a failed, which it begins with"
    assert ("begins", "b") not in said


def test_a_log_that_cannot_be_written_is_a_failure_of_its_task_alone(task, tmp_path):
    (tmp_path / "file").write_text("x")
    bad = task("bad")._replace(log=tmp_path / "file" / "log.txt")
    lost = task("lost", f"import shutil; shutil.rmtree({str(tmp_path / 'folder')!r})", "pass")
    failures, said = run([bad, lost._replace(log=tmp_path / "folder" / "log.txt"), task("good")])
    assert [failure.name for failure in failures] == ["bad", "lost"]
    assert said[-1] == ("done", "good")


def test_programs_inherit_what_is_kept_open(task, tmp_path):
    with open(tmp_path / "lock", "w") as file:
        inherits = task("a", f"import os; os.fstat({file.fileno()})")
        assert run_all([inherits], [dict(os.environ)], lambda *_: None, kept_open=[file.fileno()]) == []
        assert run([inherits])[0] != []


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_programs_and_theirs(task, tmp_path, kind):
    child = f"import time, os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"

    def interrupt():
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), kind)

    before = signal.getsignal(kind)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run([task("a", parent), task("b")])
    assert signal.getsignal(kind) is before
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_that_is_ignored_ends_nothing(task):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    hang_up = f"import os, signal; os.kill({os.getpid()}, signal.SIGHUP)"
    assert run([task("a", hang_up), task("b")])[0] == []


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"  # nobody may be there to collect it
    except OSError:
        return False


def test_jobs_share_the_cores_and_the_gpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [env["OMP_NUM_THREADS"] for env in environments(3, cores=8, gpus=[])] == ["2"] * 3
    assert environments(9, cores=8, gpus=[])[0]["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environments(1, cores=8, gpus=[])[0]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in environments(3, cores=8, gpus=["2", "5"])] == ["2", "5", "2"]
    for text, threads in (("1", "1"), ("3,1", "3"), ("", "8"), ("many", "8")):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert environments(1, cores=8, gpus=[])[0]["OMP_NUM_THREADS"] == threads
