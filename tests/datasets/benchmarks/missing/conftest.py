import pytest

from datasets.benchmarks.downloads import Downloads
from datasets.benchmarks.missing import protocols


class Root:
    """A folder of downloads."""

    def __init__(self, path):
        self.path = path

    def write(self, name, content):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else "".join(f"{line}\n" for line in content))
        return path

    def prepare(self, benchmark, protocol, **options):
        return protocols.prepare(Downloads(self.path), benchmark=benchmark, protocol=protocol, **options)


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


@pytest.fixture
def pairs():
    """Images with the set of their labels."""
    return lambda records: dict(zip(records.images, map(set, records.labels), strict=True))
