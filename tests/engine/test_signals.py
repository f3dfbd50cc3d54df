"""What schedulers ask of a training."""

import os
import signal
import threading

import pytest

from engine.signals import Terminated, requests


def send(number):
    os.kill(os.getpid(), number)


def test_sigterm_ends_at_once():
    with pytest.raises(Terminated), requests():
        send(signal.SIGTERM)


def ended(block):
    """Whether SIGTERM ended a deferred block, and what it saw."""
    seen = []
    with pytest.raises(Terminated), requests() as asked, asked.deferred():
        block(asked, seen)
    return seen


def test_sigterm_waits_where_it_is_deferred():
    def block(asked, seen):
        send(signal.SIGTERM)
        seen.append(asked.end)

    assert ended(block) == [True]


def test_whoever_sees_it_may_obey_earlier():
    def block(asked, seen):
        asked.obey()
        send(signal.SIGTERM)
        seen.append("here")
        asked.obey()
        seen.append("never")

    assert ended(block) == ["here"]


def test_errors_of_processes_that_died_of_it_are_not_told():
    def block(asked, seen):  # noqa: ARG001
        send(signal.SIGTERM)
        raise RuntimeError("DataLoader worker is killed")

    ended(block)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), KeyError("x")])
def test_other_errors_pass(error):
    def fails():
        with requests() as asked, asked.deferred():
            asked.end = True
            raise error

    with pytest.raises(type(error)):
        fails()


def test_the_second_sigterm_ends_at_once():
    def block(asked, seen):  # noqa: ARG001
        send(signal.SIGTERM)
        seen.append("here")
        send(signal.SIGTERM)
        seen.append("never")

    assert ended(block) == ["here"]


def test_sigusr1_asks_to_save():
    with requests() as asked:
        send(signal.SIGUSR1)
        assert asked.save
        assert not asked.end


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with requests():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_outside_the_main_thread_nothing_is_listened_to():
    found = []

    def work():
        with requests() as asked:
            found.append(asked.save)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
