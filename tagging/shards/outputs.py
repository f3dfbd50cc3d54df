"""A folder with a Parquet file for each shard, which is either complete or not there, and says what it answers.

Columns: `image`, what the shard calls a picture; `labels` and `probabilities` (or `scores`), the most probable first;
`error`, null, or why the picture could not be read, in which case the two lists are null. Rows stand in the order of
the shard.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from engine.atomic import atomic_write, make_folder
from files import written_out
from tagging.predictor import Prediction, Unreadable
from tagging.progress import OutputError
from tagging.shards.claims import Claims
from tagging.shards.shard import Shard, ShardError

__all__ = ["SUFFIX", "Outputs", "Tally"]

SUFFIX = ".parquet"
KEY = b"tagged"  # of the file's metadata
ROWS = 4096  # that are gathered before they become columns, and of a row group


class Tally(NamedTuple):
    """What a finished output holds."""

    pictures: int
    unreadable: int  # of them


class Outputs:
    """The outputs of one question; shards of any number of processes may be written at once.

    Args:
        folder: made if it is not there.
        numbers: what to call them: "probabilities" or "scores".
        question: what is asked of which model, as plain values; files are gone on with only under the same.

    Raises:
        WriteError: if there can be no such folder.
    """

    def __init__(self, folder: Path, numbers: str, question: Mapping[str, Any]) -> None:
        make_folder(folder)
        self.folder, self._numbers = folder, numbers
        self._question = {key: _digest(value) for key, value in question.items()}
        self.claims = Claims(folder)

    def path(self, shard: Shard) -> Path:
        """The file of a shard."""
        return self.folder / f"{shard.name}{SUFFIX}"

    def finished(self, shard: Shard) -> Tally | None:
        """What its file holds; None if it is not there.

        Raises:
            OutputError: if it is another file, or answers another question, or was made of other pictures.
            ShardError: if the shard is gone.
        """
        path = self.path(shard)
        if not path.exists():
            return None
        known = _read(path)
        before, now = known["question"], self._question
        if differing := [key for key in now | before if before.get(key) != now.get(key)]:
            raise OutputError(
                f"{path} was made with other values of {', '.join(differing)}: ask the same, or name another --out"
            )
        if known["shard"] != _plain(shard.about()):
            raise OutputError(f"{path} is of other pictures than {shard.name} now: remove it, or name another --out")
        return Tally(**known["tally"])

    def write(self, shard: Shard, answers: Iterable[Prediction | Unreadable]) -> Tally:
        """Writes the file of a shard once all is answered.

        Raises:
            ShardError: if no picture of it could be read; and what `answers` raises.
            WriteError: if the system refuses; nothing half-written stays.
        """
        import pyarrow.parquet

        source, reasons, tables = iter(answers), list[str](), []
        while some := list(islice(source, ROWS)):
            reasons += [one.why for one in some if isinstance(one, Unreadable)]
            tables.append(self._table(some))
        tally = Tally(sum(table.num_rows for table in tables), len(reasons))
        if tally.unreadable == tally.pictures:
            first = f": {reasons[0]}" if reasons else ""
            raise ShardError(f"{shard.name}: none of its pictures can be read, {tally.pictures:,} in all{first}")
        about = {"question": self._question, "shard": shard.about(), "tally": tally._asdict()}
        schema = self._schema().with_metadata({KEY: json.dumps(about).encode()})
        with atomic_write(self.path(shard)) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
            for table in tables:
                writer.write_table(table)
        return tally

    def sweep(self) -> None:
        """Removes what killed processes left half-written; what others are just writing stays."""
        for part in self.folder.glob(f".*{SUFFIX}.*.part"):
            with self.claims.claimed(part.name[1:].rpartition(SUFFIX)[0]) as mine:
                if mine:
                    part.unlink(missing_ok=True)

    def _schema(self) -> Any:
        import pyarrow

        return pyarrow.schema({
            "image": pyarrow.string(), "labels": pyarrow.list_(pyarrow.string()),
            self._numbers: pyarrow.list_(pyarrow.float32()), "error": pyarrow.string(),
        })  # fmt: skip

    def _table(self, answers: list[Prediction | Unreadable]) -> Any:
        import pyarrow

        rows = [
            {"image": written_out(one.picture), "error": written_out(one.why)} if isinstance(one, Unreadable) else
            {"image": written_out(one.picture), "labels": one.labels, self._numbers: one.probabilities}
            for one in answers
        ]  # fmt: skip
        return pyarrow.Table.from_pylist(rows, schema=self._schema())


def _read(path: Path) -> dict[str, Any]:
    """What a file says of itself."""
    import pyarrow.parquet

    try:
        known = json.loads((pyarrow.parquet.read_metadata(path).metadata or {})[KEY])
        if not {"question", "shard", "tally"} <= set(known):
            raise KeyError(path)
        return known
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is there already and is none of this: remove it, or name another --out") from error


def _digest(value: Any) -> str:
    """Of plain values; lists of labels may be long."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(values: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(values))
