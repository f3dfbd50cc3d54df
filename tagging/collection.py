"""A collection of pictures, looked at once and asked about any label later.

    extend("index", tagger, ["a.jpg", "b.jpg"])
    Collection.open("index").search(tagger, "red house", top=20)

An index is a folder: `index.json` says which tagger made it and counts its parts, `part-00000.safetensors` and so on.
Each holds the galleries of up to 256 pictures (`tagging.evidence.Gallery`) and their paths. Features of regions and
pictures are in half precision; what follows from them is small beside them, so it is computed once, of the rounded
features, and stored too. A part is either complete or not there, so indexing goes on where it was stopped.

I pictures, N regions, D joint width, C labels.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from clip.weights import fingerprint
from datasets.records import DataError
from engine.atomic import atomic_write, make_folder
from errors import UserError
from files import read_text
from tagging.build import portable
from tagging.evidence import Asked, Gallery, joined
from tagging.inputs import require_readable_name
from tagging.ranking import Best, blocks
from tagging.tagger import Tagger

__all__ = ["MANIFEST", "Collection", "CollectionError", "Hit", "extend"]

FORMAT, VERSION, MANIFEST = "picture index", 1, "index.json"
PART, TOGETHER = 256, 32  # pictures of a part; pictures that are read at once
OF_PICTURES = ("SIZE_TEST", "PIXEL_MEAN", "PIXEL_STD", "EXIF_ROTATION")  # keys of INPUT that decide what a tagger sees


class CollectionError(UserError, ValueError):
    """An index that is not there, broken, or of another tagger."""


class Hit(NamedTuple):
    """A picture that may show what was looked for."""

    path: str
    probability: float


class Collection:
    """Indexed pictures.

    Args:
        folder: of the index.
        made_by: what `_identity` gives of the tagger.
        run: where the tagger was, for `Tagger.load`; "" if nobody said.
        grid: rows and columns of the regions.
        parts: the paths of each part's pictures.

    Attributes:
        paths: of the I pictures, as they were named when they were indexed.
    """

    def __init__(
        self, folder: Path, made_by: Mapping[str, Any], run: str, grid: tuple[int, int], parts: Sequence[Sequence[str]]
    ) -> None:
        self.folder, self.made_by, self.run, self.grid = folder, made_by, run, grid
        self._parts = [list(part) for part in parts]

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The index in a folder.

        Raises:
            CollectionError: if there is none, or it is broken.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            raise CollectionError(f"{folder} holds no index of pictures: make one with tools/index_images.py")
        try:
            content = json.loads(read_text(folder / MANIFEST))
            if content["format"] != FORMAT or content["version"] != VERSION:
                raise CollectionError(f"{folder / MANIFEST} is no index of this version ({VERSION}): index again")
            rows, columns = map(int, content["grid"])
            _differing(content["made_by"], content["made_by"])  # has what is compared
            parts = [_paths(_file(folder, number), pictures) for number, pictures in enumerate(content["parts"])]
            return cls(folder, dict(content["made_by"]), str(content["run"]), (rows, columns), parts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            if isinstance(error, CollectionError):
                raise
            raise CollectionError(f"{folder} holds a broken index, index again: {_one_line(error)}") from error

    @property
    def paths(self) -> tuple[str, ...]:
        """I."""
        return tuple(path for part in self._parts for path in part)

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(_file(self.folder, number).stat().st_size for number in range(len(self._parts)))

    def require(self, tagger: Tagger) -> None:
        """Refuses a tagger that the index was not made by.

        Raises:
            CollectionError: naming what differs.
        """
        mine = self._of_the_same(tagger)
        if self.made_by["calibration"] != mine["calibration"]:
            raise CollectionError(
                f"the index {self.folder} was made with another calibration: run tools/index_images.py on it again "
                "with this one, which computes nothing anew"
            )

    def adopt(self, tagger: Tagger, run: str) -> None:
        """Takes over a tagger's calibration, which nothing that is stored depends on; else as `require`."""
        mine = self._of_the_same(tagger)
        if self.made_by["calibration"] != mine["calibration"]:
            self.made_by, self.run = mine, run
            self._write_manifest()

    def _of_the_same(self, tagger: Tagger) -> dict[str, Any]:
        """What the tagger is; refuses one that differs in more than its calibration."""
        mine = _identity(tagger)
        differing = _differing(self.made_by, mine)
        if differing is not None:
            raise CollectionError(
                f"the index {self.folder} was made by a tagger with {differing}: name that one, or index again"
            )
        return mine

    def galleries(self) -> Iterator[tuple[int, Gallery]]:
        """What is stored, a part at a time, on the CPU, with the number of pictures before it."""
        first = 0
        for number, paths in enumerate(self._parts):
            yield first, _read(_file(self.folder, number), self.grid, len(paths))
            first += len(paths)

    def answers(self, tagger: Tagger, asked: Asked) -> Iterator[tuple[Sequence[str], Tensor]]:
        """The paths and probabilities (B, C) of the pictures of each part, in order.

        Raises:
            CollectionError: if the tagger is another one than indexed the pictures.
            CalibrationError: if it is not calibrated.
        """
        self.require(tagger)
        for paths, (_, gallery) in zip(self._parts, self.galleries(), strict=True):
            answer = torch.empty(len(paths), len(asked.names))
            for block in blocks(tagger, gallery, asked):
                answer[block.pictures, block.labels] = block.probabilities
            yield paths, answer

    def probabilities(self, tagger: Tagger, asked: Asked) -> Tensor:
        """Probabilities (I, C) of labels, which `tagger.labels` gives, on all pictures; raises as `answers`."""
        return torch.cat([torch.empty(0, len(asked.names)), *(answer for _, answer in self.answers(tagger, asked))])

    def best(self, tagger: Tagger, asked: Asked, top: int) -> Best:
        """The most probable pictures of each of C labels; memory for C x top answers, however many the pictures.

        Args:
            tagger: that indexed the pictures.
            asked: what `tagger.labels` gives.
            top: pictures of each label, at most.

        Raises:
            CollectionError: if `top` is no count, or the tagger another one.
            CalibrationError: if it is not calibrated.
        """
        if top < 1:
            raise CollectionError(f"the number of pictures to show has to be at least 1, not {top}")
        self.require(tagger)
        best = Best(len(asked.names), min(top, len(self.paths)))
        for first, gallery in self.galleries():
            for block in blocks(tagger, gallery, asked):
                best.show(block, first)
        return best

    def search(self, tagger: Tagger, label: str, top: int = 20) -> list[Hit]:
        """The pictures that most probably show a label, with the probabilities, descending; raises as `best`."""
        best, paths = self.best(tagger, tagger.labels([label]), top), self.paths
        pairs = zip(best.places[0].tolist(), best.probabilities[0].tolist(), strict=True)
        return [Hit(paths[place], probability) for place, probability in pairs]

    def _append(self, paths: Sequence[str], gallery: Gallery) -> None:
        """Writes a part, then the manifest that counts it."""
        make_folder(self.folder)
        tensors = {name: _stored(name, t) for name, t in zip(Gallery._fields[:-1], gallery[:-1], strict=True)}
        with atomic_write(_file(self.folder, len(self._parts))) as file:
            file.write(save(tensors, {"paths": json.dumps(list(paths))}))
        self._parts.append(list(paths))
        self.grid = gallery.grid
        self._write_manifest()

    def _write_manifest(self) -> None:
        content = {
            "format": FORMAT, "version": VERSION, "pictures": len(self.paths), "grid": list(self.grid),
            "parts": [len(part) for part in self._parts], "run": self.run, "made_by": self.made_by,
        }  # fmt: skip
        with atomic_write(self.folder / MANIFEST, "w") as file:
            file.write(json.dumps(content, indent=2) + "\n")


def extend(
    folder: str | Path, tagger: Tagger, pictures: Sequence[str], *, run: str = "", progress_bar: bool = True
) -> dict[str, DataError]:
    """Adds pictures to the index in a folder, which is made if there is none; those that it holds are left out.

    Args:
        folder: of the index.
        tagger: looks at the pictures.
        pictures: paths, or references such as `shapes:test/17`.
        run: where the tagger was loaded from, which the index remembers.
        progress_bar: shown on stderr.

    Returns:
        The pictures that cannot be read, which are not in the index, and why.

    Raises:
        CollectionError: if the index is broken or of another tagger.
        TaggerError: if the tagger computes nothing that belongs to pictures alone.
        WriteError: if the system refuses; what was written before stays.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        collection = Collection.open(folder)
        collection.adopt(tagger, run)
    else:
        collection = Collection(folder, _identity(tagger), run, (0, 0), ())
    known = set(collection.paths)
    wanted = [picture for picture in dict.fromkeys(pictures) if picture not in known]
    broken: dict[str, DataError] = {}
    with tqdm(total=len(wanted), desc="index", unit="picture", disable=not progress_bar, leave=False) as bar:
        for start in range(0, len(wanted), PART):
            part = wanted[start : start + PART]
            paths, galleries = [], []
            for few in range(0, len(part), TOGETHER):
                read, gallery, failed = _looked_at(tagger, part[few : few + TOGETHER])
                paths += read
                galleries += gallery
                broken |= failed
                bar.update(len(read) + len(failed))
            if paths:
                collection._append(paths, _rounded(tagger, joined(galleries)))
    return broken


def _looked_at(tagger: Tagger, pictures: list[str]) -> tuple[list[str], list[Gallery], dict[str, DataError]]:
    """The pictures that can be read, what belongs to them, and why the others cannot."""
    try:
        for picture in pictures:
            require_readable_name(picture)
        return pictures, [tagger.index(pictures)], {}
    except DataError:
        broken = {}
        for picture in pictures:
            try:
                require_readable_name(picture)
                tagger.preparation(picture)
            except DataError as error:
                broken[picture] = error
        kept = [picture for picture in pictures if picture not in broken]
        return kept, [tagger.index(kept)] if kept else [], broken


def _rounded(tagger: Tagger, gallery: Gallery) -> Gallery:
    """The gallery of features in half precision: what follows from features has to be of those that are stored.

    A probability close to one is a small difference of a region's cosine and its partition; of other cosines than the
    stored ones it would be another number.
    """
    assert tagger.evidence is not None  # or there would be no gallery
    return tagger.evidence.situated(
        gallery.regions.to(torch.float16).float(), gallery.cls.to(torch.float16).float(), gallery.grid
    )


def _identity(tagger: Tagger) -> dict[str, Any]:
    """What the content and the answers of an index depend on, as plain values."""
    parts, calibration = tagger._parts, tagger.calibration
    anchors = [[label, parts.texts.get(label)] for label in parts.seen]
    known = json.loads(portable(parts).config)  # without paths of this machine
    model = {f"MODEL.{key}": value for key, value in known["MODEL"].items() if key != "CLIP_WEIGHTS"}
    seen = {f"INPUT.{key}": known["INPUT"][key] for key in OF_PICTURES}
    fitted = calibration and {
        "mean": calibration.mean, "std": calibration.std, "weight": calibration.weight,
        "bias": torch.tensor(calibration.bias),
    }  # fmt: skip
    return {
        "clip": parts.clip, "trained": fingerprint(parts.state),
        "anchors": hashlib.sha256(json.dumps(anchors).encode()).hexdigest(), "settings": model | seen,
        "calibration": fitted and fingerprint(fitted),
    }  # fmt: skip


def _differing(made_by: Mapping[str, Any], tagger: Mapping[str, Any]) -> str | None:
    """What the tagger of an index has otherwise, in words, or None; keys that came later decided nothing then."""
    words = {
        "clip": f"the CLIP {made_by['clip']}, not {tagger['clip']}", "trained": "other trained weights",
        "anchors": "other labels in its training",
    }  # fmt: skip
    for name, text in words.items():
        if made_by[name] != tagger[name]:
            return text
    for key, value in made_by["settings"].items():
        if tagger["settings"].get(key) != value:
            return f"{key} {value!r}, not {tagger['settings'].get(key)!r}"
    return None


def _file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05}.safetensors"


def _stored(name: str, tensor: Tensor) -> Tensor:
    """As it is written: features are large, the rest is small."""
    kind = {"regions": torch.float16, "cls": torch.float16, "rival": torch.int32}.get(name, tensor.dtype)
    return tensor.to("cpu", kind).contiguous()


def _paths(file: Path, pictures: int) -> list[str]:
    with safe_open(file, framework="pt") as part:
        paths = json.loads(part.metadata()["paths"])
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise CollectionError(f"{file} does not name its pictures: index again")
    if len(paths) != pictures:
        raise CollectionError(f"{file} holds {len(paths)} pictures instead of {pictures}: index again")
    return paths


def _read(file: Path, grid: tuple[int, int], pictures: int) -> Gallery:
    try:
        with safe_open(file, framework="pt") as part:
            stored = {name: part.get_tensor(name) for name in Gallery._fields[:-1]}
    except (OSError, SafetensorError) as error:
        raise CollectionError(f"{file} is broken, index again: {_one_line(error)}") from error
    regions, width = grid[0] * grid[1], stored["cls"].shape[-1]
    shapes = {"regions": (regions, width), "cls": (width,), "rivals": (regions, 2), "levels": (2, 3)}
    for name, tensor in stored.items():
        if tuple(tensor.shape) != (pictures, *shapes.get(name, (regions,))) or not tensor.isfinite().all():
            raise CollectionError(f"{file} is broken, index again: {name} {tuple(tensor.shape)}")
    features = {name: stored[name].float() for name in ("regions", "cls")}
    return Gallery(**{**stored, **features, "rival": stored["rival"].long(), "grid": grid})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
