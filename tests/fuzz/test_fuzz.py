"""Every reader on files that somebody or something has changed: what it gives is what it says, an error is one line.

Each case is a sound file with a few changes, drawn by hypothesis, which also finds the smallest change that fails.
FUZZ_CASES sets how many cases each reader gets (`make fuzz`); a few of each are part of every test run.
"""

import contextlib
import json
import os
import shutil
import signal
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

from clip.weights import read_weights
from configs import load_config
from datasets.annotations import read_records
from datasets.benchmarks import matlab, nus_role
from datasets.benchmarks.missing import indices
from datasets.benchmarks.missing.nus import load_table
from datasets.formats.text import parse_json, read_text
from datasets.images import open_image, open_truncated
from datasets.labels import read_labels
from datasets.pack import FORMAT, Pack, checksum
from engine.results import read_scores, write_scores
from engine.state import load_state
from errors import UserError
from tagging.build import portable
from tagging.portable import checkpoint_of, read_parts, write_parts
from tools import check_parity, compare
from tools.reproduction import outcomes

CASES = int(os.environ.get("FUZZ_CASES", "12"))
SECONDS = 60  # for one case: a reader that takes longer hangs
SHORT = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b",", b";", b"\n", b"\r", b"null", b"NaN", b"-1",
    b"1e400", b"true", b"\\ud800", b"~nosuch/", b"../..", b"%s{}", b"<!DOCTYPE a>", b"&b;",
)  # fmt: skip
LONG = {"deep": b"[" * 3000, "digits": b"9" * 5000, "a long cell": b"a" * 140_000}
RECORDS = {"a.jpg": ["cat"], "b.jpg": ["dog", "cat"], "c.jpg": ["sun"]}


def jpg(path):
    Image.linear_gradient("L").convert("RGB").resize((32, 24)).save(path)


def release(path):
    path.write_text(json.dumps({"images": list(map(list, RECORDS.items())), "classes": ["cat", "dog", "sun"]}))


def coco(path):
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(RECORDS)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(("cat", "dog", "sun"))],
        "annotations": [{"id": k, "image_id": k, "category_id": k} for k in range(3)],
    }
    path.write_text(json.dumps(content))


def voc(path):
    (path.parent / "voc" / "JPEGImages").mkdir(parents=True, exist_ok=True)
    path.write_text("<annotation><filename>a.jpg</filename><object><name>cat</name></object></annotation>")


def scripted(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def scores(path):
    write_scores(path, np.eye(3), np.eye(3), ["a", "b", "c"], ["1.jpg", "2.jpg", "3.jpg"])


def packed(path):
    """All files of a pack of one image."""
    pixels = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    path.with_name("pack.json").write_text(json.dumps({**FORMAT, "preparation": "small"}))
    path.with_name("part-00000.pixels").write_bytes(pixels.tobytes())
    rows = [["a.jpg", 9, 8, 7, True, checksum(pixels)]]
    path.with_name("part-00000.json").write_text(json.dumps({"size": [2, 4], "images": rows}))


def open_pack(path):
    pack = Pack.open(path.parent, "small", torch.clone)
    for name in pack.known:
        pack.find(name, read_truncated=True, most_pixels=10**8)


def copied(*parts):
    """Puts a file of the repository there."""
    return lambda path: shutil.copyfile(Path(__file__).parents[2].joinpath(*parts), path)


def annotations(path):
    return read_records(path.name, str(path.parent))


def weights(path):
    return read_weights(path, {})


def is_pickle(name):
    return name.endswith("/data.pkl")


def is_source(name):
    return "/code/" in name and name.endswith(".py")


def archive_of(is_part):
    """A reader of an archive of TorchScript with a file as one of its parts, past all checksums."""

    def read(path):
        whole = path.with_name("whole.pt")
        scripted(whole)
        with zipfile.ZipFile(whole) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(whole, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, path.read_bytes() if is_part(name) else content)
        return read_weights(whole, {})

    return read


def part_of_archive(is_part):
    def write(path):
        scripted(path)
        with zipfile.ZipFile(path) as archive:
            content = next(archive.read(name) for name in archive.namelist() if is_part(name))
        path.write_bytes(content)

    return write


# Reader -> name of the file, what writes a sound one, and what reads it.
READERS = {
    "the release's JSON": ("a.json", release, annotations),
    "COCO's JSON": ("instances_a.json", coco, annotations),
    "a table of lists": (
        "a.csv",
        lambda p: p.write_text('image,labels\na.jpg,cat;dog\n"b,c.jpg","sun"\n'),
        annotations,
    ),
    "a table of columns": (
        "a.tsv",
        lambda path: path.write_text("file\tcat\tdog\na.jpg\t1\t0\nb.jpg\t-1\t1\n"),
        annotations,
    ),
    "VOC's XML": ("voc/Annotations/a.xml", voc, lambda path: read_records("voc", str(path.parents[2]))),
    "notes of labels": (
        "labels.json",
        copied("configs", "labels", "rap.json"),
        lambda path: read_labels(path, "a {}."),
    ),
    "JSON": ("a.json", lambda p: p.write_text('{"a": [1, 2.5e3, null]}'), lambda p: parse_json(read_text(p), p)),
    "a configuration": ("a.yml", copied("configs", "shapes.yml"), load_config),
    "weights in safetensors": ("a.safetensors", lambda p: save_file({"a": torch.ones(3)}, p), weights),
    "weights of torch": ("a.pt", lambda path: torch.save({"a": torch.ones(3)}, path), weights),
    "weights in TorchScript": ("a.pt", scripted, weights),
    "the pickle in TorchScript": ("data.pkl", part_of_archive(is_pickle), archive_of(is_pickle)),
    "the source in TorchScript": ("part.py", part_of_archive(is_source), archive_of(is_source)),
    "a checkpoint": ("checkpoint.pth", None, load_state),
    "scores": ("a.npz", scores, read_scores),
    "a parity file": ("a.npz", scores, check_parity.read),
    "results to compare": ("results.json", None, compare.read),
    "a result file": ("a.json", copied("docs", "results", "shapes", "ot-6d4dc1-seed-1.json"), outcomes.read),
    "an exported tagger": ("config.json", None, lambda path: read_parts(path.parent)),
    "weights of an exported tagger": ("model.safetensors", None, lambda path: read_parts(path.parent)),
    "a JPEG": ("a.jpg", jpg, lambda path: open_image(path.name, str(path.parent))),
    "a PNG": ("a.png", jpg, lambda path: open_image(path.name, str(path.parent))),
    "a TIFF": ("a.tif", jpg, lambda path: open_image(path.name, str(path.parent))),
    "a truncated WebP": ("a.webp", jpg, lambda path: open_truncated(path.name, str(path.parent))),
    "a MATLAB file": ("a.mat", lambda path: savemat(path, {"x": np.eye(2)}), lambda path: matlab.load(path, "x")),
    "a pack": ("pack.json", packed, open_pack),
    "the names of a pack": ("part-00000.json", packed, open_pack),
    "the pixels of a pack": ("part-00000.pixels", packed, open_pack),
    "a NumPy array": ("a.npy", lambda path: np.save(path, np.array(["a.jpg"])), nus_role.load_names),
    "an array of labels": ("a.npy", lambda path: np.save(path, np.eye(3)), lambda path: load_table(path, 3)),
    "a list of SPLC": (
        "a.txt",
        lambda path: path.write_text("a.jpg,2\nb.jpg,0 1\n"),
        lambda p: indices.read(p, "abc", ""),
    ),
}


@st.composite
def changes(draw):
    """A few changes: place (a share of the file), how many bytes go, and what comes there."""
    one = st.tuples(
        st.floats(0, 1),
        st.sampled_from([0, 1, 1, 2, 8, 100, 10**6]),
        st.one_of(st.binary(max_size=4), st.sampled_from((*SHORT, *LONG))),
    )
    return draw(st.lists(one, min_size=1, max_size=3))


def changed(content, edits):
    for place, gone, come in edits:
        start = int(place * len(content))
        content = content[:start] + LONG.get(come, come) + content[start + gone :]
    return content


class Hangs(BaseException):
    """No Exception, which readers would take for an error of theirs."""


@contextlib.contextmanager
def limited(seconds):
    """Fails where a case hangs."""

    def late(*_):
        raise Hangs(f"more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sound(name, path, finished):
    """The content of a sound file of a kind."""
    _, write, _ = READERS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    if write is not None:
        write(path)
    elif name == "a checkpoint":
        shutil.copyfile(finished.run / "checkpoint.pth", path)
    elif name == "results to compare":
        shutil.copyfile(finished.run / "val" / "epoch-2" / "results.json", path)
    else:
        write_parts(path.parent, portable(read_parts(checkpoint_of(finished.run))))
    return path.read_bytes()


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_read_or_refused_in_one_line(name, tmp_path, finished):
    file, _, reader = READERS[name]
    path = tmp_path / file
    content = sound(name, path, finished)
    reader(path)  # as it is, it is sound

    @settings(
        max_examples=CASES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(changes())
    def case(edits):
        path.write_bytes(changed(content, edits))
        try:
            with limited(SECONDS), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader(path)
        except UserError as error:
            said = str(error).strip()  # which scripts bring to one line
        else:
            return
        assert said

    case()
