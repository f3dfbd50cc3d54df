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
from collections.abc import Callable, Mapping, Sequence
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
REGISTERED = re.compile(r" +__(?:parameters|buffers)__ = \[(.*)\]")
MARK = object()
MOST_BYTES = 2**24  # of the pickle, and of all source code
MOST_MODULES, LONGEST_NAME, MOST_DIMENSIONS = 20_000, 1000, 64


class ArchiveError(UserError, ValueError):
    """An archive that is not as TorchScript writes them."""


class _Name(str):
    """The name of a class or a function, which stays a name."""


class _Memory(NamedTuple):
    """A tensor's memory."""

    dtype: torch.dtype
    key: str  # of the file in the archive
    size: int  # elements


class _Module:
    """An object of a class of the archive."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attributes: dict[Any, Any] = {}


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of TorchScript, as far as the names in it say."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by their names, as `torch.jit.load(path).state_dict()` has them, on the CPU.

    Of modules that set themselves up by code of their own there is nothing.

    Raises:
        ArchiveError: if there is something in it that no CLIP has, or far more of it.
        zipfile.BadZipFile: if a checksum is wrong.
        KeyError: if a part of it is missing.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ArchiveError("it was written on a machine of another byte order")
        kept: dict[_Memory, Tensor] = {}

        def storage(stored: _Memory) -> Tensor:
            if stored not in kept:
                part = archive.getinfo(f"{root}data/{stored.key}")
                if part.compress_type != zipfile.ZIP_STORED or part.file_size != stored.size * stored.dtype.itemsize:
                    raise ArchiveError(f"data/{stored.key} is not what its {stored.size} elements take")
                kept[stored] = _elements(archive.read(part), stored.dtype)
            return kept[stored]

        code = [part for part in archive.infolist() if part.filename.startswith(f"{root}code/")]
        pickled = archive.getinfo(f"{root}data.pkl")
        if pickled.file_size > MOST_BYTES or sum(part.file_size for part in code) > MOST_BYTES:
            raise ArchiveError(f"its pickle or its source code has more than {MOST_BYTES} bytes")
        model = _Reader(storage).read(archive.read(pickled))
        if not isinstance(model, _Module):
            raise ArchiveError("it holds no module")
        return _registered(model, _classes(archive, code, f"{root}code/"))


def _elements(content: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)


class _Reader:
    """Follows a pickle; names of functions stay names, and what calls would give is None, but for tensors.

    Args:
        storage: gives the memory of tensors.
    """

    def __init__(self, storage: Callable[[_Memory], Tensor]) -> None:
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
        keys = [_as(str, key) for key in items[::2]]  # others may take for ever to be looked up
        _as(dict, self.stack[-1]).update(zip(keys, items[1::2], strict=True))

    def module(self, _: Any) -> None:
        self.stack.pop()  # no arguments
        self.stack.append(_Module(_as(_Name, self.stack.pop())))

    def state(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(state, dict):  # whatever else, a __setstate__ would have to make sense of
            _as(_Module, self.stack[-1]).attributes = state

    def memory(self, _: Any) -> None:
        self.stack.append(_memory(self.stack.pop()))

    def call(self, _: Any) -> None:
        arguments, function = _as(tuple, self.stack.pop()), _as(_Name, self.stack.pop())
        self.stack.append(_tensor(arguments, self.storage) if function == REBUILT else None)


FOLLOWED: dict[str, Callable[[_Reader, Any], None]] = {  # what TorchScript writes; everything else is refused
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
    "BINPERSID": _Reader.memory,
    "REDUCE": _Reader.call,
}


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ArchiveError(f"its pickle has a {type(value).__name__} in the place of a {kind.__name__}")
    return value


def _memory(named: Any) -> _Memory:
    """The memory that a persistent name tells of: ("storage", class, key, device, count)."""
    kind, name, key, _, count = _as(tuple, named)
    if _as(str, kind) != "storage" or _as(_Name, name) not in DTYPES:
        raise ArchiveError("it holds something else than memory of tensors")
    if not _as(str, key).isalnum() or not 0 <= _as(int, count) < 2**63:
        raise ArchiveError("it names memory that there is not")
    return _Memory(DTYPES[name], key, count)


def _tensor(arguments: tuple[Any, ...], storage: Callable[[_Memory], Tensor]) -> Tensor:
    """A tensor of its own memory."""
    stored, offset, size, stride = arguments[:4]
    fits = len(_as(tuple, size)) == len(_as(tuple, stride)) <= MOST_DIMENSIONS
    if not fits or not all(0 <= _as(int, number) < 2**63 for number in (offset, *size, *stride)):
        raise ArchiveError("it holds a tensor of an impossible shape")
    memory = storage(_as(_Memory, stored))
    if math.prod(size) > memory.numel():  # strides of 0 could make it as large as it likes
        raise ArchiveError(f"it holds a tensor that is larger than its {memory.numel()} elements of memory")
    return memory.as_strided(size, stride, offset)  # no copy: a small pickle can name large memory often


def _classes(archive: zipfile.ZipFile, code: Sequence[zipfile.ZipInfo], root: str) -> dict[str, set[str]]:
    """The names of parameters and buffers by class, such as "__torch__.torch.nn.modules.linear Linear"."""
    found = {}
    for part in (part for part in code if part.filename.endswith(".py")):
        module = part.filename.removeprefix(root).removesuffix(".py").replace("/", ".")
        for match in CLASS.finditer(archive.read(part).decode(errors="replace")):
            lists = [names for line in match[2].splitlines() if (names := REGISTERED.fullmatch(line))]
            found[f"{module} {match[1]}"] = {name for one in lists for name in re.findall(r'"([^"]+)"', one[1])}
    return found


def _registered(model: _Module, classes: Mapping[str, set[str]]) -> dict[str, Tensor]:
    """Parameters and buffers of a module and those below it."""
    found: dict[str, Tensor] = {}
    if model.name not in classes:
        raise ArchiveError("it has no source of its module")
    waiting, met = [("", model)], 1
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            path = f"{prefix}{name}"
            if isinstance(value, Tensor) and name in classes[module.name]:
                found[path] = value
            elif isinstance(value, _Module) and value.name in classes:  # other objects hold settings
                waiting.append((f"{path}.", value))
                met += 1
                if met > MOST_MODULES or len(path) > LONGEST_NAME:  # some stand in each other
                    raise ArchiveError("its modules do not end")
    return found
