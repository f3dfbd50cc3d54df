"""The names of the drawn concepts, chosen once by tools/choose_emoji.py, and which of them training never sees."""

import json
from pathlib import Path

__all__ = ["CODES", "LABELS", "SEEN", "UNSEEN"]

_CHOSEN: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("names.json").read_text("utf-8"))
SEEN, UNSEEN = tuple(_CHOSEN["seen"]), tuple(_CHOSEN["unseen"])
CODES = {**_CHOSEN["seen"], **_CHOSEN["unseen"]}  # name -> code points as OpenMoji's files are called, "1F407"
LABELS = tuple(sorted(CODES))
