import math

import pytest
import torch

from engine.fetch import fetched


@pytest.mark.parametrize("value", [1.5, math.inf])
def test_a_number_arrives_as_it_is_also_of_what_has_gradients(value):
    assert fetched(torch.tensor(value, requires_grad=True))() == value
