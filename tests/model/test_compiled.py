"""torch.compile of a method's parts: same numbers, same weights, errors in a line.

Traced and run without generating code, which takes no compiler; the code that inductor generates is torch's matter.
"""

import pytest
import torch

from clip.load import load_clip
from configs import load_config
from errors import UserError
from model import build_method, compiled
from model.compiled import compile_parts

# Warnings of torch about its compiler's own ways.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]

NAMES = ("dog", "traffic light", "person")
TARGETS = torch.tensor([[1.0, 0, 0], [0, 1, 1]])


@pytest.fixture(autouse=True)
def _traced(monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    yield
    torch._dynamo.reset()


def build(*paths):
    cfg = load_config(["configs/tiny.yml", *paths])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(cfg, load_clip("ViT-tiny-8", "random", seed=1), seen=len(NAMES), labels=NAMES)


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def trained(method):
    """The loss of a training step and the gradients of all parameters."""
    method.train()
    losses = method.losses(method(images(), method.encode_labels(NAMES), TARGETS), TARGETS)
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()
    return [loss.detach()] + [one.grad for group in method.groups() for one in group.parameters if one.grad is not None]


@pytest.mark.parametrize("how", ["on", "graphs"])
def test_a_compiled_step_has_the_loss_and_gradients_of_an_eager_one(how):
    eager, quick = build(), build()
    compile_parts(quick, how)
    for mine, theirs in zip(trained(quick), trained(eager), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_all_named_parts_are_traced_in_a_step(monkeypatch):
    called = []

    def watched(function, **_):
        def run(*args, **options):
            called.append(function.__qualname__)
            return function(*args, **options)

        return run

    monkeypatch.setattr(torch, "compile", watched)
    method = build()
    compile_parts(method, "on")
    trained(method)
    assert sorted(called) == [
        "ImageTrunk.finish", "ImageTrunk.stem", "ImageTrunk.teacher_regions", "LadderLocalAdapter.forward"
    ]  # fmt: skip


def test_graphs_ask_torch_for_cuda_graphs_and_each_batch_begins_anew(monkeypatch):
    modes, begun = [], []
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    monkeypatch.setattr(torch, "compile", lambda function, mode, **_: modes.append(mode) or function)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    method = build().eval()
    compile_parts(method, "graphs")
    assert set(modes) == {"reduce-overhead"}
    with torch.no_grad():
        labels = method.encode_labels(NAMES)
        for _ in range(3):
            method(images(), labels)
    assert len(begun) == 3


def test_weights_keep_their_names():
    eager, quick = build(), build()
    compile_parts(quick, "on")
    assert list(quick.state_dict()) == list(eager.state_dict())
    assert list(quick.trained_state()) == list(eager.trained_state())


def test_off_leaves_a_method_as_it_is():
    method = build()
    compile_parts(method, "off")
    assert "stem" not in vars(method.trunk)


def test_a_method_without_parts_to_compile_is_refused():
    with pytest.raises(UserError, match="COMPILE on: of ML-Decoder nothing can be compiled; set COMPILE off"):
        compile_parts(build("configs/methods/ml-decoder.yml"), "on")


def test_a_machine_that_cannot_compile_is_one_line(monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    method = build().eval()
    compile_parts(method, "on")
    with pytest.raises(UserError, match=r"^COMPILE on: torch.compile fails here, no compiler; set COMPILE off$"):
        method.trunk.stem(images())
