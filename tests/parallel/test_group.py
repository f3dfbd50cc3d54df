import os
import time
from contextlib import redirect_stdout

import pytest
import torch

import parallel
from errors import UserError
from tests.processes import launched

CPU = torch.device("cpu")


def as_group(work):
    """`work(rank)` within a group."""

    def run(rank):
        with parallel.joined():
            parallel.connect(CPU)
            return work(rank)

    return run


@pytest.fixture(scope="module")
def told():
    """What each of three processes sees and hears."""

    def work(rank):
        made = []
        answer = parallel.from_first(lambda: made.append(rank) or {"from": rank})
        return {
            "size": parallel.world_size(), "rank": parallel.rank(), "local": parallel.local_rank(),
            "first": parallel.is_first(), "gathered": parallel.gathered(f"of {rank}"), "answer": answer, "made": made,
            "any": parallel.any_of_all([rank == 2, False, True]), "tells": parallel.tells_of_failure(),
        }  # fmt: skip

    return launched(3, as_group(work))


def test_each_process_knows_its_place(told):
    assert [(one["size"], one["rank"], one["local"]) for one in told] == [(3, 0, 0), (3, 1, 1), (3, 2, 2)]


def test_one_of_them_is_the_first(told):
    assert [one["first"] for one in told] == [True, False, False]


def test_the_first_is_handed_what_all_have_in_their_order(told):
    assert [one["gathered"] for one in told] == [["of 0", "of 1", "of 2"], None, None]


def test_all_get_what_the_first_alone_makes(told):
    assert [(one["answer"], one["made"]) for one in told] == [({"from": 0}, [0]), ({"from": 0}, []), ({"from": 0}, [])]


def test_a_flag_of_one_process_reaches_all(told):
    assert [one["any"] for one in told] == [[True, False, True]] * 3


def test_one_of_those_that_fail_says_so(told):
    assert sorted(one["tells"] for one in told) == [False, False, True]


def test_without_torchrun_there_is_one_process():
    with parallel.joined():
        parallel.connect(CPU)
        seen = parallel.world_size(), parallel.rank(), parallel.local_rank(), parallel.is_first()
    assert seen == (1, 0, None, True)


def test_one_process_hands_everything_to_itself():
    assert parallel.gathered("x") == ["x"]
    assert parallel.from_first(lambda: "y") == "y"
    assert parallel.any_of_all([True, False]) == [True, False]


def test_one_process_says_why_it_fails():
    with parallel.joined():
        assert parallel.tells_of_failure()


def test_torchrun_with_one_process_is_like_none(monkeypatch):
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    with parallel.joined():
        parallel.connect(CPU)
        assert parallel.world_size() == 1


def test_half_of_the_variables_are_not_enough(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(UserError, match="WORLD_SIZE is set, but LOCAL_RANK is not: start several processes by torchrun"),
        parallel.joined(),
    ):
        pass


def test_one_is_the_first_before_they_are_a_group():
    def work(_):
        with parallel.joined():
            return parallel.rank(), parallel.is_first(), parallel.world_size()

    assert launched(2, work) == [(0, True, 1), (1, False, 1)]


def test_only_the_first_prints(tmp_path):
    def work(rank):
        with (tmp_path / str(rank)).open("w") as file, redirect_stdout(file), parallel.joined():
            print("here")  # noqa: T201

    assert launched(2, work) == [None, None]
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["here\n", ""]


def test_a_process_that_dies_takes_the_others_along():
    def work(rank):
        if rank == 1:
            os._exit(9)
        parallel.gathered(rank)
        return parallel.from_first(lambda: rank)

    first, dead, last = launched(3, as_group(work), errors=True)
    assert dead is None
    for error in (first, last):
        assert isinstance(error, parallel.LostProcessError)
        assert str(error) == "another process of this run has ended; --resume goes on with a training"


def test_processes_meet_as_torchrun_lets_them():
    assert launched(2, as_group(parallel.gathered), store="tcp") == [[0, 1], None]


@pytest.mark.parametrize(
    ("device", "gpus", "said"),
    [("cuda:9", 1, "2 processes and 1 GPUs on this machine: start one for each GPU"),
     ("cuda:9", 2, "cuda:9 is one GPU, and each of 2 processes needs its own: DEVICE auto gives it"),
     ("mps", 0, "several processes cannot train on mps")],
)  # fmt: skip
def test_processes_that_cannot_have_a_gpu_each_are_refused_alike(monkeypatch, device, gpus, said):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    def work(_):
        with parallel.joined():
            parallel.connect(torch.device(device))

    assert all(str(error).startswith(said) for error in launched(2, work, errors=True))


def test_who_waits_for_all_waits():
    def work(rank):
        begun = time.monotonic()
        time.sleep(0.5 * rank)
        parallel.wait_for_all()
        return time.monotonic() - begun

    assert min(launched(2, as_group(work))) > 0.4


def test_processes_that_are_started_again_begin_anew(tmp_path):
    def dies(rank):
        if rank == 1:
            os._exit(9)
        parallel.gathered(rank)

    store = str(tmp_path / "store")
    launched(2, as_group(dies), errors=True, store=store)
    again = launched(2, as_group(parallel.gathered), store=store, restarts=1)
    assert again == [[0, 1], None]


def test_errors_of_ones_own_stay_what_they_are():
    def work(rank):
        raise RuntimeError(f"of {rank}")

    assert [str(error) for error in launched(2, as_group(work), errors=True)] == ["of 0", "of 1"]
