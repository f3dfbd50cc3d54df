"""The decoder against numbers of its authors' earlier code, and regions against plain formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.trm.regions import Asked, RegionDecoder, grid_of, region_features, sine_positions

RELEASE = np.load(Path(__file__).parents[2] / "data" / "release_sadcl_decoder.npz")
LIMIT = 1e-5  # of ||ours - theirs|| / ||theirs||
MAPS = {"sa_qcontent_proj": "own.query_content", "sa_qpos_proj": "own.query_position",
        "sa_kcontent_proj": "own.key_content", "sa_kpos_proj": "own.key_position", "sa_v_proj": "own.value",
        "self_attn.out_proj": "own.output", "ca_qcontent_proj": "cross.query_content",
        "ca_qpos_proj": "cross.query_position", "ca_kcontent_proj": "cross.key_content",
        "ca_kpos_proj": "cross.key_position", "ca_v_proj": "cross.value", "multihead_attn.out_proj": "cross.output",
        "norm": "norm4"}  # fmt: skip  # others are named alike


def released(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def error(found, key):
    expected = released(key)
    return ((found.detach() - expected).norm() / expected.norm()).item()


def ours(name):
    """Our name of a parameter."""
    layer, _, kind = name.rpartition(".")
    return f"{MAPS.get(layer, layer)}.{kind}"


def decoder(labels=7, width=16, hidden=32, attention="softmax", self_attention=True, dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RegionDecoder(labels=labels, width=width, hidden=hidden, dropout=dropout, attention=attention,
                             self_attention=self_attention)  # fmt: skip


@pytest.fixture
def released_decoder():
    def make(attention):
        made = decoder(attention=attention)
        state = {ours(key[6:]): released(key) for key in RELEASE if key.startswith("param/")}
        made.load_state_dict(state | {"queries": released("query")})
        return made

    return make


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", ["softmax", "content", "sigmoid"])
def test_the_decoder_and_its_gradients_are_those_of_the_authors_earlier_code(released_decoder, case):
    model = released_decoder("sigmoid" if case == "sigmoid" else "softmax")
    memory, positions = released("memory"), released("pos")
    content = released("content") if case == "content" else torch.zeros(7, 16)
    content = content.expand(3, -1, -1)
    weights = model.own.scores(content, model.queries, content, model.queries).softmax(-1)
    situated = model.situated(content, model.queries)
    asked = Asked(situated, model.energies(situated, model.queries, memory, positions))
    attention = asked.energies.sigmoid() if case == "sigmoid" else asked.energies.softmax(-1)
    loss = (model.features(asked, memory) * released("weight_of_output")).sum()
    loss.backward()
    found = {"self_attention": weights, "scores": asked.energies, "attention": attention, "loss": loss,
             "layer_output": model.read(asked, memory), "output": model.features(asked, memory)}  # fmt: skip
    grads = {"grad/query": model.queries.grad} | {
        key.partition("/")[2]: model.get_parameter(ours(key.split("/", 2)[2])).grad
        for key in RELEASE if key.startswith(f"{case}/grad/") and not key.endswith("/query")
    }  # fmt: skip
    assert {key for key in RELEASE if key.startswith(f"{case}/")} == {f"{case}/{name}" for name in found | grads}
    for name, value in (found | grads).items():
        assert error(value, f"{case}/{name}") < LIMIT, name


def test_the_forward_pass_begins_with_no_content(released_decoder):
    model = released_decoder("softmax")
    asked = model(released("memory"), released("pos"), torch.arange(7))
    assert error(asked.energies, "softmax/scores") < LIMIT
    assert error(model.features(asked, released("memory")), "softmax/output") < LIMIT


def test_positions_are_the_official_sine_table():
    rows, columns = RELEASE["grid"].tolist()
    torch.testing.assert_close(sine_positions(rows, columns, 16), released("pos_exact"), rtol=1e-6, atol=1e-6)


def test_an_entry_of_the_positions_is_that_of_the_formula():
    found, (rows, columns, width) = sine_positions(3, 5, 24), (3, 5, 24)
    for row, column, j in ((0, 0, 0), (2, 1, 3), (1, 4, 5)):
        angles = [2 * np.pi * (i + 1) / (n + 1e-6) / 10000 ** (4 * j / width)
                  for i, n in ((row, rows), (column, columns))]  # fmt: skip
        expected = [np.sin(angles[0]), np.cos(angles[0]), np.sin(angles[1]), np.cos(angles[1])]
        place = found[row * columns + column]
        np.testing.assert_allclose(place[[2 * j, 2 * j + 1, 12 + 2 * j, 13 + 2 * j]], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("count", "height", "width", "grid"), [
    (196, 448, 448, (14, 14)), (64, 64, 64, (8, 8)), (98, 112, 224, (7, 14)), (6, 64, 96, (2, 3)), (1, 32, 32, (1, 1)),
])  # fmt: skip
def test_the_grid_is_that_of_the_patches(count, height, width, grid):
    assert grid_of(count, height, width) == grid


def test_features_of_a_region_are_sums_weighted_by_the_sigmoid_of_energies():
    energies, features = drawn(2, 3, 5), drawn(2, 5, 4, seed=1)
    found = region_features(energies, features)
    for image in range(2):
        for label in range(3):
            weights = 1 / (1 + np.exp(-energies[image, label].double().numpy()))
            expected = sum(w * f for w, f in zip(weights, features[image].double().numpy(), strict=True))
            np.testing.assert_allclose(found[image, label], expected, rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_queries_through_regions():
    model, features = decoder(), drawn(2, 6, 16)
    asked = model(features, sine_positions(2, 3, 16), torch.arange(7))
    region_features(asked.energies, features).square().sum().backward()
    assert model.queries.grad.abs().sum() > 0


def test_labels_look_at_the_same_places_whichever_others_ask():
    model, features, positions = decoder(), drawn(2, 6, 16), sine_positions(2, 3, 16)
    whole, few = (model(features, positions, torch.tensor(rows)) for rows in (list(range(7)), [5, 2]))
    torch.testing.assert_close(few.energies, whole.energies[:, [5, 2]])
    torch.testing.assert_close(model.features(few, features), model.features(whole, features)[:, [5, 2]])


def test_without_self_attention_its_parameters_are_gone_and_content_stays_as_it_was():
    width, own = 16, decoder(self_attention=False)
    gone = sum(p.numel() for p in decoder().parameters()) - sum(p.numel() for p in own.parameters())
    assert gone == 6 * (width * width + width) + 2 * width
    assert torch.equal(own.situated(drawn(2, 7, 16), own.queries), drawn(2, 7, 16))


def test_dropout_acts_in_training_alone():
    model, features, positions = decoder(dropout=0.5), drawn(2, 6, 16), sine_positions(2, 3, 16)

    def outputs():
        asked = model(features, positions, torch.arange(7))
        return asked.content, model.features(asked, features)

    with torch.random.fork_rng(devices=[]):
        assert all(not torch.equal(*pair) for pair in zip(outputs(), outputs(), strict=True))
        model.eval()
        assert all(torch.equal(*pair) for pair in zip(outputs(), outputs(), strict=True))


def test_weights_begin_as_in_the_authors_earlier_code():
    model = decoder(width=256, labels=50)
    bound = (6 / 512) ** 0.5
    for linear in (model.own.query_content, model.cross.value):
        assert 0.99 * bound < linear.weight.abs().max() <= bound
    assert not model.own.output.bias.any()
    assert not model.cross.output.bias.any()
    assert model.queries.std().item() == pytest.approx(1, abs=0.02)
