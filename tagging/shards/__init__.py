"""Pictures by the million, in shards: each is read, tagged and written as a whole, by one of many processes."""

from tagging.shards.find import find_shards
from tagging.shards.outputs import Outputs, Tally
from tagging.shards.shard import Shard, ShardError
from tagging.shards.work import Job, Settled, Tagging, work_off

__all__ = ["Job", "Outputs", "Settled", "Shard", "ShardError", "Tagging", "Tally", "find_shards", "work_off"]
