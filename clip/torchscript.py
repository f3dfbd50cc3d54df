"""Parameters and buffers of a TorchScript archive, read without running anything that is in it.

`torch.jit.load` builds the modules of an archive, and runs their `__setstate__`, which whoever wrote the file chose.
Here the pickle in it is followed by hand: what TorchScript writes for modules and tensors is understood, and nothing
is ever called, so that an archive can hold what it likes. The source code in it is only looked through for the names
of parameters and buffers.
"""

import io
import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from errors import UserError

__all__ = ["ArchiveError", "is_torchscript", "read_torchscript"]

REBUILT = "torch._utils _rebuild_tensor_v2"
DTYPES = {
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
CLASS = re.compile(r"^class (\w+)\(Module\):\n((?: +__\w+__ = .*\n)*)", re.MULTILINE)
REGISTERED = re.compile(r"__(?:parameters|buffers)__ = \[(.*)\]")


class ArchiveError(UserError, ValueError):
    """An archive that is not as TorchScript writes them."""


class _Name(str):
    """The name of a class or a function, which stays a name."""


class _Stored(NamedTuple):
    """A tensor's memory."""

    dtype: torch.dtype
    key: str  # of the file in the archive
    size: int  # elements


class _Module:
    """An object of a class of the archive."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attributes: dict[Any, Any] = {}


MARK = object()
LARGEST = 100_000  # modules, each as often as it stands somewhere


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of TorchScript, as far as the names in it say."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by their names, as `torch.jit.load(path).state_dict()` has them, on the CPU.

    Raises:
        ArchiveError: if there is something in it that TorchScript does not write.
        zipfile.BadZipFile: if a checksum is wrong.
        KeyError: if a part of it is missing.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        little = f"{root}byteorder" not in archive.namelist() or archive.read(f"{root}byteorder") == b"little"
        if not little:
            raise ArchiveError("it was written on a machine of another byte order")
        kept: dict[_Stored, Tensor] = {}

        def storage(stored: _Stored) -> Tensor:
            if stored not in kept:
                kept[stored] = _memory(archive.read(f"{root}data/{stored.key}"), stored)
            return kept[stored]

        model = _Reader(storage).read(archive.read(f"{root}data.pkl"))
        if not isinstance(model, _Module):
            raise ArchiveError("it holds no module")
        return _registered(model, _classes(archive, f"{root}code/"))


def _memory(content: bytes, stored: _Stored) -> Tensor:
    if stored.size < 0 or len(content) != stored.size * stored.dtype.itemsize:
        raise ArchiveError(f"data/{stored.key} has {len(content)} bytes, which are not {stored.size} {stored.dtype}")
    return torch.frombuffer(bytearray(content), dtype=stored.dtype) if content else torch.empty(0, dtype=stored.dtype)


class _Reader:
    """Follows a pickle; names of functions stay names, and what calls would give is None, but for tensors.

    Args:
        storage: gives the memory of tensors.
    """

    def __init__(self, storage: Callable[[_Stored], Tensor]) -> None:
        self.storage = storage
        self.stack: list[Any] = []
        self.memo: dict[Any, Any] = {}

    def read(self, pickled: bytes) -> Any:
        """The object in the content of data.pkl."""
        for opcode, argument, _ in pickletools.genops(io.BytesIO(pickled)):
            if opcode.name == "STOP":
                break
            if opcode.name not in FOLLOWED:
                raise ArchiveError(f"its pickle holds {opcode.name}, which TorchScript does not write")
            FOLLOWED[opcode.name](self, argument)
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def name(self, value: str) -> None:
        self.stack.append(_Name(value))

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def above_mark(self) -> list[Any]:
        """What stands behind the last mark, which goes with it."""
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def tuple_above_mark(self, _: Any) -> None:
        self.stack.append(tuple(self.above_mark()))

    def tuple_of(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def items(self, _: Any) -> None:
        self.above_mark()  # of a list, in which nothing is looked for

    def entries(self, _: Any) -> None:
        items = self.above_mark()
        _as(dict, self.stack[-1]).update(zip(items[::2], items[1::2], strict=True))

    def module(self, _: Any) -> None:
        self.stack.pop()  # no arguments
        self.stack.append(_Module(_as(_Name, self.stack.pop())))

    def state(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(state, dict):  # whatever else, a __setstate__ would have to make sense of
            _as(_Module, self.stack[-1]).attributes = state

    def stored(self, _: Any) -> None:
        self.stack.append(_stored(self.stack.pop()))

    def call(self, _: Any) -> None:
        arguments, function = _as(tuple, self.stack.pop()), _as(_Name, self.stack.pop())
        self.stack.append(_tensor(arguments, self.storage) if function == REBUILT else None)


Step = Callable[[_Reader, Any], None]
FOLLOWED: dict[str, Step] = {  # what TorchScript writes; everything else is refused
    "PROTO": lambda reader, _: None,  # noqa: ARG005
    "NONE": lambda reader, _: reader.push(None),
    "NEWTRUE": lambda reader, _: reader.push(True),
    "NEWFALSE": lambda reader, _: reader.push(False),
    "EMPTY_DICT": lambda reader, _: reader.push({}),
    "EMPTY_LIST": lambda reader, _: reader.push([]),
    "EMPTY_TUPLE": lambda reader, _: reader.push(()),
    "MARK": lambda reader, _: reader.push(MARK),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Reader.push),
    "GLOBAL": _Reader.name,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Reader.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Reader.get),
    "TUPLE": _Reader.tuple_above_mark,
    "TUPLE1": lambda reader, _: reader.tuple_of(1),
    "TUPLE2": lambda reader, _: reader.tuple_of(2),
    "TUPLE3": lambda reader, _: reader.tuple_of(3),
    "APPENDS": _Reader.items,
    "SETITEMS": _Reader.entries,
    "NEWOBJ": _Reader.module,
    "BUILD": _Reader.state,
    "BINPERSID": _Reader.stored,
    "REDUCE": _Reader.call,
}


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ArchiveError(f"its pickle has a {type(value).__name__} in the place of a {kind.__name__}")
    return value


def _stored(named: Any) -> _Stored:
    """The memory that a persistent name tells of: ("storage", class, key, device, count)."""
    kind, name, key, _, count = _as(tuple, named)
    if kind != "storage" or name not in DTYPES:
        raise ArchiveError(f"it holds a {name}, which is no memory of a tensor")
    if not isinstance(key, str) or not key.isalnum() or not isinstance(count, int):
        raise ArchiveError(f"it names its memory {key!r}")
    return _Stored(DTYPES[name], key, count)


def _tensor(arguments: tuple[Any, ...], storage: Callable[[_Stored], Tensor]) -> Tensor:
    """A tensor of its own memory."""
    stored, offset, size, stride = arguments[:4]
    numbers = (offset, *_as(tuple, size), *_as(tuple, stride))
    if len(size) != len(stride) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ArchiveError(f"it holds a tensor of shape {size!r} with strides {stride!r}")
    memory = storage(_as(_Stored, stored))
    if math.prod(size) > memory.numel():  # strides of 0 could make it as large as it likes
        raise ArchiveError(f"it holds a tensor of shape {size} in memory of {memory.numel()} elements")
    return memory.as_strided(size, stride, offset)  # no copy: a small pickle can name large memory often


def _classes(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """The names of parameters and buffers by class, such as "__torch__.torch.nn.modules.linear Linear"."""
    found = {}
    for path in archive.namelist():
        if path.startswith(root) and path.endswith(".py"):
            module = path.removeprefix(root).removesuffix(".py").replace("/", ".")
            for match in CLASS.finditer(archive.read(path).decode(errors="replace")):
                lists = REGISTERED.findall(match[2])
                found[f"{module} {match[1]}"] = {name for names in lists for name in re.findall(r'"([^"]+)"', names)}
    return found


def _registered(model: _Module, classes: Mapping[str, set[str]]) -> dict[str, Tensor]:
    """Parameters and buffers of a module and those below it."""
    found: dict[str, Tensor] = {}
    waiting, seen = [("", model)], 0
    while waiting:
        prefix, module = waiting.pop()
        seen += 1
        if seen > LARGEST:  # some stand in each other
            raise ArchiveError("its modules do not end")
        if module.name not in classes:
            raise ArchiveError(f"it has no source of {module.name}")
        for name, value in module.attributes.items():
            if isinstance(value, Tensor) and name in classes[module.name]:
                found[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
    return found
