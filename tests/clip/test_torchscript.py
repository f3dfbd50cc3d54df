"""Archives of TorchScript, read without TorchScript: against `torch.jit.load`, and hand-made ones."""

import pickle
import time
import warnings
import zipfile

import pytest
import torch
from torch import nn

from clip.torchscript import ArchiveError, is_torchscript, read_torchscript
from clip.weights import WeightsError, read_weights


class Part(nn.Module):
    """Something of everything that a module of an archive can hold."""

    def __init__(self):
        super().__init__()
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).half().T)  # with strides
        self.tied = nn.Parameter(self.turned.detach()[1:])
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("mask", torch.ones(2, dtype=torch.bool), persistent=False)
        self.constant, self.numbers, self.words, self.rate = torch.ones(3), [1, 2], {"a": torch.ones(1)}, 0.5
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))

    def forward(self, x):
        return self.layers(x * self.rate + self.numbers[0]) + self.constant + self.words["a"]


def scripted(path, module=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module or Part()).save(str(path))
    return path


def traced(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Part(), torch.ones(1, 2)).save(str(path))
    return path


def by_torch(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path)).state_dict()


def changed(path, change, compression=zipfile.ZIP_STORED):
    """The archive with other contents of some of its files; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            new = change(name, content)
            if new is not None:
                archive.writestr(name, new)
    return path


@pytest.mark.parametrize("write", [scripted, traced])
def test_it_gives_what_torch_gives(tmp_path, write):
    path = write(tmp_path / "a.pt")
    found, expected = read_torchscript(path), by_torch(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_code_of_an_archive_does_not_run(tmp_path):
    class Loops(nn.Module):
        def forward(self, x):
            return x

        @torch.jit.export
        def __getstate__(self):
            return (1, self.training)

        @torch.jit.export
        def __setstate__(self, state: tuple[int, bool]):
            assert state[0] != 1, "it ran"
            self.training = state[1]

    path = scripted(tmp_path / "a.pt", Loops())
    with pytest.raises(torch.jit.Error, match="it ran"):
        by_torch(path)
    assert read_torchscript(path) == {}
    with pytest.raises(WeightsError, match="holds no state dict of a CLIP"):
        read_weights(path, {})


def with_pickle(path, content):
    """An archive by hand, with memory for one number."""
    source = b'class Part(Module):\n  __parameters__ = ["turned", ]\n  __buffers__ = []\n'
    parts = {"data.pkl": content, "data/0": b"\x00\x00\x80?", "constants.pkl": b"", "code/__torch__.py": source}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(f"a/{name}", part)
    return path


STRANGE = {
    "empty": b"",
    "no end": b"\x80\x02",
    "nothing": b"\x80\x02.",
    "a list": pickle.dumps([1, 2], 2),
    "a dictionary": pickle.dumps({"a": 1}, 2),
    "a set": pickle.dumps({1, 2}, 4),
    "a call": b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.",
    "an object of a module": b"\x80\x02cos\nsystem\n)\x81}b.",
    "entries without a dictionary": b"\x80\x02}(K\x01u.",
    "an empty place": b"\x80\x02h\x05.",
    "a number for memory": b"\x80\x02K\x01Q.",
    "memory without facts": b"\x80\x02(X\x07\x00\x00\x00storagetQ.",
    "an odd state": b"\x80\x02ccodecs\nencode\n)\x81K\x01b.",
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_other_pickles_are_refused_in_one_line(tmp_path, content):
    path = with_pickle(tmp_path / "a.pt", content)
    with pytest.raises(WeightsError, match=r"a\.pt") as caught:
        read_weights(path, {})
    assert "\n" not in str(caught.value)


def named_tensor(*, key="0", numel=1, size=(1,), stride=(1,), offset=0, kind="FloatStorage"):
    """A pickle of a module `Part` with one parameter, by hand."""

    def word(text):
        return b"X" + len(text).to_bytes(4, "little") + text.encode()

    def number(value):
        return b"J" + value.to_bytes(4, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    memory = b"(" + word("storage") + f"ctorch\n{kind}\n".encode() + word(key) + word("cpu") + number(numel) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + memory + number(offset) + numbers(size) + numbers(stride)
    return b"\x80\x02c__torch__\nPart\n)\x81}(" + word("turned") + tensor + b"\x89NtRub."


def test_a_tensor_by_hand_is_read(tmp_path):
    assert read_torchscript(with_pickle(tmp_path / "a.pt", named_tensor()))["turned"].tolist() == [1.0]


@pytest.mark.parametrize("facts", [
    {"key": "../0"}, {"key": "99"}, {"numel": 5}, {"numel": -1}, {"size": (1 << 30,), "stride": (0,)}, {"size": (-1,)},
    {"stride": (-1,)}, {"size": (1, 1)}, {"offset": 7}, {"offset": -1}, {"kind": "QInt8Storage"},
])  # fmt: skip
def test_impossible_tensors_are_refused(tmp_path, facts):
    path = with_pickle(tmp_path / "a.pt", named_tensor(**facts))
    with pytest.raises((ArchiveError, KeyError, RuntimeError)):
        read_torchscript(path)
    with pytest.raises(WeightsError, match=r"a\.pt: broken, truncated, or not a file of weights"):
        read_weights(path, {})


def test_modules_that_stand_in_each_other_end(tmp_path):
    # m.a = m: the memo gives the module to itself.
    loop = b"\x80\x02c__torch__\nPart\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub."
    path = with_pickle(tmp_path / "a.pt", loop)
    with pytest.raises(ArchiveError, match="do not end"):
        read_torchscript(path)


@pytest.mark.parametrize("missing", ["data.pkl", "test_torchscript.py", "data/0"])
def test_an_archive_without_one_of_its_parts_is_refused(tmp_path, missing):
    path = changed(scripted(tmp_path / "a.pt"), lambda name, old: None if name.endswith(missing) else old)
    with pytest.raises(WeightsError, match="broken, truncated"):
        read_weights(path, {})


def test_another_byte_order_is_refused(tmp_path):
    path = changed(scripted(tmp_path / "a.pt"), lambda name, old: b"big" if name.endswith("byteorder") else old)
    with pytest.raises(ArchiveError, match="byte order"):
        read_torchscript(path)


def test_only_archives_with_constants_are_torchscript(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("x")
    assert is_torchscript(scripted(tmp_path / "a.pt"))
    assert not is_torchscript(tmp_path / "plain.pt")
    assert not is_torchscript(tmp_path / "text.pt")


@pytest.mark.parametrize("write", [scripted, lambda path: torch.save({"a": torch.arange(99.0)}, path)])
def test_a_changed_byte_of_a_tensor_is_found_by_its_checksum(tmp_path, write):
    write(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/0"))
        content = archive.read(name)
    whole = (tmp_path / "a.pt").read_bytes()
    place = whole.index(content) + len(content) - 1
    (tmp_path / "a.pt").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(WeightsError, match=r"a\.pt is damaged: the checksum of .*data/0 is wrong"):
        read_weights(tmp_path / "a.pt", {})


def loop(name):
    """A module that stands in itself under a name."""
    word = b"X" + len(name).to_bytes(4, "little") + name
    return b"\x80\x02c__torch__\nPart\n)\x81q\x00}(" + word + b"h\x00ub."


DOUBLED = b"K\x01\x85" + b"q\x01h\x01\x86" * 45
ATTACKS = {
    "a key that is nested a million deep": b"\x80\x02}()" + b"\x85" * 1_000_000 + b"Nu.",
    "a key that doubles itself": b"\x80\x02}(" + DOUBLED + b"Nu.",
    "memory whose class doubles itself": b"\x80\x02(X\x07\x00\x00\x00storage" + DOUBLED + b"NNK\x01tQ.",
    "a shape that doubles itself": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00" + DOUBLED + b")tR.",
    "a shape of many dimensions": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00(" + b"K\x02" * 10**5 + b"t)tR.",
    "a module in itself under a long name": loop(b"a" * 50_000),
    "a module in itself under many names": b"\x80\x02c__torch__\nPart\n)\x81q\x00}("
    + b"".join(b"X\x05\x00\x00\x00%05dh\x00" % k for k in range(20_000)) + b"ub.",
}  # fmt: skip


@pytest.mark.parametrize("pickled", ATTACKS.values(), ids=ATTACKS)
def test_attacks_are_refused_in_seconds(tmp_path, pickled):
    path, begun = with_pickle(tmp_path / "a.pt", pickled), time.process_time()
    with pytest.raises(WeightsError, match=r"a\.pt") as caught:
        read_weights(path, {})
    assert time.process_time() - begun < 20
    assert len(str(caught.value)) < 1000


def test_source_code_is_looked_through_in_seconds(tmp_path):
    source = b"class Part(Module):\n  __x__ = " + b"__buffers__ = [" * 100_000 + b"\n"
    path = changed(with_pickle(tmp_path / "a.pt", named_tensor()), lambda n, old: source if n.endswith(".py") else old)
    begun = time.process_time()
    assert read_torchscript(path) == {}
    assert time.process_time() - begun < 10


def test_what_unpacks_to_far_more_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    with pytest.raises(WeightsError, match=r"a\.pt unpacks to more than 20 times its size"):
        read_weights(tmp_path / "a.pt", {})


def test_packed_tensors_are_refused(tmp_path):
    path = changed(with_pickle(tmp_path / "a.pt", named_tensor()), lambda _, old: old, zipfile.ZIP_DEFLATED)
    with pytest.raises(ArchiveError, match="data/0 is not what its 1 elements take"):
        read_torchscript(path)


class Settings:
    def __init__(self, size: int):
        self.size = size


def test_objects_that_are_no_modules_are_passed_over(tmp_path):
    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self.settings = torch.jit.script(Settings)(3)
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return x * self.settings.size * self.weight

    assert read_torchscript(scripted(tmp_path / "a.pt", Holds())).keys() == {"weight"}
