from pathlib import Path

import numpy as np
import pytest

CONCEPTS = [f"concept{i:02d}" for i in range(81)]
TAGS = [f"tag{i:03d}" for i in range(925)]
TAG_LIST = [*TAGS[:5], *CONCEPTS[:75], *TAGS[5:]]  # 75 concepts are tags too
TRAIN = {
    "actor\\0001_1001.jpg": ("tag000 tag924", "concept80"),
    "actor\\0002_1002.jpg": ("", "concept00"),
    "zoo\\0001_1003.jpg": ("concept00", ""),
    "zoo\\0002_1004.jpg": ("concept00 tag007", ""),
}
TEST = {
    "actor\\0003_2001.jpg": ("tag001", "concept02 concept80"),
    "sea\\0001_2002.jpg": ("tag001 tag002", ""),
    "sea\\0002_2003.jpg": ("", "concept01"),
    "sea\\0003_2004.jpg": ("concept03", ""),
    "sea\\0004_2005.jpg": ("", ""),
}


class NusDownload:
    """A download of NUS-WIDE in the official formats: Windows paths, trailing tabs and blanks, CRLF."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("NUS_WID_Tags/TagList1k.txt", "".join(f"{name}\r\n" for name in TAG_LIST))
        self.write("ConceptsList/Concepts81.txt", "\n".join(CONCEPTS))
        for part, rows in (("Train", TRAIN), ("Test", TEST)):
            self.write(f"ImageList/{part}Imagelist.txt", "".join(f"{image} \r\n" for image in rows) + "\r\n")
            self.write(f"NUS_WID_Tags/{part}_Tags1k.dat", "".join(self.tag_row(tags) for tags, _ in rows.values()))
            self.write_concepts("Groundtruth/TrainTestLabels", f"_{part}", rows)

    @staticmethod
    def tag_row(tags: str, end: str = "\t\n") -> str:
        return "\t".join(str(int(name in tags.split())) for name in TAG_LIST) + end

    def write_concepts(self, folder: str, end: str, rows: dict[str, tuple[str, str]]) -> None:
        for concept in CONCEPTS:
            values = "".join(f"{int(concept in concepts.split())}\r\n" for _, concepts in rows.values())
            self.write(f"{folder}/Labels_{concept}{end}.txt", values)

    def write_whole(self) -> None:
        """The tables of all images, the test images first."""
        rows = TEST | TRAIN
        self.write("ImageList/Imagelist.txt", "".join(f"{image}\n" for image in rows))
        self.write("NUS_WID_Tags/AllTags1k.txt", "".join(self.tag_row(tags) for tags, _ in rows.values()))
        self.write_concepts("Groundtruth/AllLabels", "", rows)

    def write_role(self, train: list[str], test: list[str], folder: str = "") -> None:
        for key, names in (("train", train), ("val", test)):
            path = self.root / folder / f"formatted_{key}_images.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.array(names, dtype=str))

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
        return path


@pytest.fixture
def nus_download(tmp_path):
    return NusDownload(tmp_path)
