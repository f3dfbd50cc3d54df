"""Files as users have them."""

import pytest


@pytest.fixture
def tree(tmp_path):
    """Writes files below a folder, and gives the folder."""

    def tree(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return tree
