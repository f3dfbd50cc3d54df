import math

import pytest
import torch

from engine.checkpoint import CheckpointError, save_checkpoint
from engine.state import TrainingState, load_state, save_state

STATE = TrainingState(
    method="ram", model={"weight": torch.arange(3.0)}, ema=None, optimizers={"sgd": {"state": {}}}, scaler={},
    random={"torch": torch.zeros(4, dtype=torch.uint8)}, epoch=2, batch=1, step=7, best=-1.0, best_epoch=0,
    config="SOLVER: {}\n", seen=["cat", "Hütte"], unseen=[], texts={"cat": "a cat!"}, images="ab12",
    clip="ViT/sha256:0",
)  # fmt: skip


def test_a_state_comes_back(tmp_path):
    save_state(tmp_path / "a.pth", STATE)
    found = load_state(tmp_path / "a.pth")
    assert type(found) is TrainingState
    assert torch.equal(found.model["weight"], STATE.model["weight"])
    assert torch.equal(found.random["torch"], STATE.random["torch"])
    assert found._replace(model={}, random={}) == STATE._replace(model={}, random={})


@pytest.mark.parametrize("spoil", ["clip", "more"])
def test_a_checkpoint_of_other_fields_is_refused_by_name(tmp_path, spoil):
    content = STATE._asdict()
    content = {**content, "more": 1} if spoil == "more" else {k: v for k, v in content.items() if k != spoil}
    save_checkpoint(tmp_path / "a.pth", content)
    with pytest.raises(
        CheckpointError, match=f"a.pth holds no training of this version: '{spoil}' is on one side only"
    ):
        load_state(tmp_path / "a.pth")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    save_checkpoint(tmp_path / "a.pth", [1, 2])
    with pytest.raises(CheckpointError, match="holds no training of this version: no fields"):
        load_state(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("model", None, "its model is a NoneType"),
        ("epoch", "2", "its epoch is a str"),
        ("step", True, "its step is a bool"),
        ("epoch", 0, "its epoch is 0"),
        ("batch", -1, "its batch is -1"),
        ("seen", ("cat",), "its seen is a tuple"),
        ("unseen", [3], "its unseen labels are not all texts"),
        ("model", {"a": 1.0}, "its model holds a float under 'a'"),
        ("model", {3: torch.ones(1)}, "its model holds a Tensor under 3"),
        ("model", {"a": torch.ones(2, device="meta")}, "a of its model is no plain tensor"),
        ("ema", {"a": torch.tensor([1.0, math.nan])}, "a of its ema is not finite"),
        ("best", None, "its best is a NoneType"),
    ],
)
def test_a_field_that_no_training_writes_is_refused_by_name(tmp_path, field, value, said):
    save_checkpoint(tmp_path / "a.pth", {**STATE._asdict(), field: value})
    with pytest.raises(CheckpointError, match=f"a.pth holds no training: {said}"):
        load_state(tmp_path / "a.pth")
