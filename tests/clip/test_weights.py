import hashlib
import os
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clip.weights import WeightsError, canonical_name, fill_model, fingerprint, read_weights, weights_of

STATE = {
    "visual.proj": torch.arange(6.0).reshape(2, 3).half(),
    "ln_final.weight": torch.tensor([0.5, -2.0]),
    "logit_scale": torch.tensor(4.6052),
}
OPENAI_ONLY = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}


class Archive(nn.Module):
    """A parameter tree like OpenAI's; scripting it gives the real format."""

    def __init__(self):
        super().__init__()
        self.visual, self.ln_final = nn.Module(), nn.Module()
        self.visual.proj = nn.Parameter(STATE["visual.proj"])
        self.ln_final.weight = nn.Parameter(STATE["ln_final.weight"])
        self.logit_scale = nn.Parameter(STATE["logit_scale"])
        for name, value in OPENAI_ONLY.items():
            self.register_buffer(name, value)


def script_to(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Archive()).save(str(path))


WRITERS = {
    "archive.pt": script_to,
    "plain.pt": lambda path: torch.save({**STATE, **OPENAI_ONLY}, path),
    "legacy.pth": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "open_clip.bin": lambda path: torch.save(STATE, path),
    "training.pt": lambda path: torch.save(
        {"epoch": 3, "name": "run", "state_dict": {f"module.{name}": t for name, t in STATE.items()}}, path
    ),
    "custom_text.pt": lambda path: torch.save(
        {("text." if name.startswith("ln_") else "") + name: tensor for name, tensor in STATE.items()}, path
    ),
    "tensors.safetensors": lambda path: save_file(STATE, path),
    "with_buffers.pt": lambda path: torch.save({**STATE, "attn_mask": torch.zeros(2, 2)}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_tensors_under_openais_names(tmp_path, name):
    WRITERS[name](tmp_path / name)
    tensors = read_weights(tmp_path / name, {}).tensors
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[key], STATE[key]) and tensors[key].dtype == STATE[key].dtype for key in STATE)


@pytest.mark.parametrize("name", WRITERS)
def test_openais_weights_are_known_by_the_buffers_of_their_archives(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert read_weights(tmp_path / name, {}).openai == (name in {"archive.pt", "plain.pt"})


def test_module_is_kept_where_only_some_names_begin_with_it(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "mixed.pt")
    assert read_weights(tmp_path / "mixed.pt", {}).tensors.keys() == {"module.a", "b"}


class Malicious:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path, zipped):
    trace, path = tmp_path / "it_ran", tmp_path / "evil.pt"
    torch.save({"visual.proj": Malicious(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"evil.pt: it asks for \S+mkdir, and no code of a file is run"):
        read_weights(path, {})
    assert not trace.exists()


def test_the_malicious_pickle_of_these_tests_does_run_when_trusted(tmp_path):
    torch.save({"visual.proj": Malicious(tmp_path / "it_ran")}, tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "it_ran").exists()


def test_a_whole_module_is_refused_because_its_class_would_be_run(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match="save its state dict instead"):
        read_weights(tmp_path / "module.pt", {})


def no_version(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/constants.pkl", b"abc")


def truncated(path):
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-100])


BROKEN = {
    "empty.pt": lambda path: path.write_bytes(b""),
    "text.pt": lambda path: path.write_bytes(b"hello world" * 50),
    "page.pt": lambda path: path.write_bytes(b"<html>404 not found</html>"),
    "truncated.pt": truncated,
    "archive.pt": no_version,
    "short.safetensors": lambda path: path.write_bytes(b"abc"),
    "zip.safetensors": lambda path: torch.save(STATE, path),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_in_one_line(tmp_path, name):
    BROKEN[name](tmp_path / name)
    with pytest.raises(WeightsError, match=f"{name}: broken, truncated, or not a file of weights") as caught:
        read_weights(tmp_path / name, {})
    assert "\n" not in str(caught.value)


def test_the_reason_of_the_operating_system_is_passed_on(tmp_path):
    with pytest.raises(WeightsError, match="Is a directory"):
        read_weights(tmp_path, {})


@pytest.mark.parametrize(
    "content",
    [torch.ones(3), [1, 2], {}, {"model": STATE}, {1: torch.ones(1)}, {"lr": 0.1}],
    ids=["tensor", "list", "empty", "nested", "numbers", "float"],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other.pt holds no state dict .* MODEL.CLIP_WEIGHTS"):
        read_weights(tmp_path / "other.pt", {})


def url_of(sha):
    return f"https://example.org/models/{sha}/ViT-B-16.pt"


def test_an_archive_under_a_published_name_needs_the_published_sha(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    script_to(path)
    with pytest.raises(WeightsError, match="truncated or altered; download https://example.org/models/00"):
        read_weights(path, {path.name: url_of("0" * 64)})


def test_the_published_archive_itself_is_accepted(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    script_to(path)
    url = url_of(hashlib.sha256(path.read_bytes()).hexdigest())
    assert read_weights(path, {path.name: url}).tensors.keys() == STATE.keys()


def test_a_truncated_download_names_its_url(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    script_to(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="truncated.*download https://example.org/models/00"):
        read_weights(path, {path.name: url_of("0" * 64)})


def test_a_state_dict_may_bear_a_published_name(tmp_path):
    torch.save(STATE, tmp_path / "ViT-B-16.pt")
    assert read_weights(tmp_path / "ViT-B-16.pt", {"ViT-B-16.pt": url_of("0" * 64)}).tensors.keys() == STATE.keys()


def test_the_name_below_a_text_tower_is_openais_again():
    assert canonical_name("text.ln_final.weight") == "ln_final.weight"
    assert canonical_name("visual.proj") == "visual.proj"


def test_a_fingerprint_is_the_sha_of_names_shapes_and_float32_values():
    digest = hashlib.sha256(b"a(2,)" + np.array([1, 2], "<f4").tobytes() + b"b()" + np.array(3, "<f4").tobytes())
    assert fingerprint({"b": torch.tensor(3.0), "a": torch.tensor([1.0, 2.0]).half()}) == digest.hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([[1.0, 2.0], [3.0, 4.5]])},
        {"a": torch.tensor([1.0, 2.0, 3.0, 4.0])},
        {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]])},
    ],
    ids=["value", "shape", "name"],
)
def test_a_fingerprint_changes_with(other):
    assert fingerprint(other) != fingerprint({"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})


def test_a_fingerprint_does_not_depend_on_the_memory_layout():
    square = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert fingerprint({"a": square.T.contiguous().T}) == fingerprint({"a": square})


def archive_tensors(**changes):
    tensors = {name: tensor for name, tensor in STATE.items() if changes.get(name, "") is not None}
    return {**tensors, **{name: tensor for name, tensor in changes.items() if tensor is not None}}


def plain_module():
    module = Archive()
    for name in OPENAI_ONLY:
        delattr(module, name)
    return module.float().requires_grad_(False)


def test_a_model_is_filled_in_its_own_precision():
    model = plain_module()
    fill_model(model, {name: tensor + 1 for name, tensor in STATE.items()}, "")
    assert torch.equal(model.visual.proj, STATE["visual.proj"].float() + 1)


def test_a_scale_saved_as_a_vector_is_accepted():
    model = plain_module()
    fill_model(model, archive_tensors(logit_scale=torch.tensor([2.0])), "")
    assert model.logit_scale.item() == 2.0


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (archive_tensors(**{"visual.proj": torch.ones(2, 4)}), r"visual.proj is \(2, 4\) instead of \(2, 3\)"),
        (archive_tensors(**{"visual.proj": None}), "visual.proj is missing"),
        (archive_tensors(logit_bias=torch.ones(())), "logit_bias is not part of it"),
        (archive_tensors(logit_scale=None), "logit_scale is missing"),
        (archive_tensors(logit_scale=torch.ones(2)), r"logit_scale is \(2,\) instead of \(\)"),
    ],
    ids=["shape", "missing", "unexpected", "no scale", "many scales"],
)
def test_weights_of_another_architecture_are_refused_with_the_first_difference(tensors, words):
    with pytest.raises(WeightsError, match=f"^x.pt does not fit: {words}; set MODEL.BACKBONE"):
        fill_model(plain_module(), tensors, "x.pt does not fit")


def norm():
    module = nn.Module()
    module.bn = nn.BatchNorm2d(2)
    return module


def test_running_statistics_are_weights_and_the_number_of_batches_they_are_of_is_none():
    assert weights_of(norm()).keys() == {"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"}


@pytest.mark.parametrize("counted", [True, False])
def test_running_statistics_are_filled_in_whether_or_not_batches_were_counted(tmp_path, counted):
    model, given = norm(), norm().state_dict()
    given["bn.running_mean"] += 3
    given["bn.num_batches_tracked"] += 7
    torch.save({name: t for name, t in given.items() if counted or not name.endswith("tracked")}, tmp_path / "w.pt")
    fill_model(model, read_weights(tmp_path / "w.pt", {}).tensors, "")
    assert model.bn.running_mean.tolist() == [3, 3]
    assert model.bn.num_batches_tracked == 0


def test_weights_without_running_statistics_are_refused():
    with pytest.raises(WeightsError, match="^x: bn.running_mean is missing"):
        fill_model(norm(), {"bn.weight": torch.ones(2), "bn.bias": torch.ones(2)}, "x")


def test_refused_weights_leave_the_model_as_it_was():
    model = plain_module()
    before = fingerprint(model.state_dict())
    with pytest.raises(WeightsError):
        fill_model(model, {name: tensor + 1 for name, tensor in archive_tensors(extra=torch.ones(1)).items()}, "")
    assert fingerprint(model.state_dict()) == before
