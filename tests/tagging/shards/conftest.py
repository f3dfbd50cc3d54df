"""Pictures of noise, archives of them, and what is asked of them."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from tagging.shards import Job
from tagging.source import Source
from tagging.spellings import spelt_alike

LABELS = ("dog", "kite", "sofa", "a red car")


@pytest.fixture(scope="session")
def contents():
    """Six PNG files of noise, of different sizes, by name."""
    generator = np.random.default_rng(0)
    files = {}
    for k in range(6):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)).save(buffer, "PNG")
        files[f"{k:03}.png"] = buffer.getvalue()
    return files


@pytest.fixture
def archive(tmp_path):
    """Writes a tar archive of names and contents; a content of None makes a folder."""

    def write(members, name="000.tar", mode="w"):
        path = tmp_path / name
        with tarfile.open(path, mode) as made:
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
                info.size = len(content or b"")
                made.addfile(info, io.BytesIO(content or b""))
        return path

    return write


@pytest.fixture
def job(parts, tmp_path):
    """Asks a small calibrated tagger for the two most probable of four labels."""
    source, asked = Source(parts, "a run", trained=True), spelt_alike(LABELS)
    return Job(tmp_path / "out", source, asked, "probability", None, 2, None, 4, 1, {"labels": list(LABELS)})
