"""Indexed pictures: what is stored, how indexing goes on, and who may ask."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from engine.atomic import WriteError
from model import load_towers
from tagging import CalibrationError, Tagger, collection, ranking
from tagging.collection import Collection, CollectionError, extend
from tagging.evidence import Gallery
from tagging.ranking import Best, Block

LABELS = ["cat", "dog", "zebra", "lamp", "a red kite"]


def noise(folder, count, seed=0):
    generator = np.random.default_rng(seed)
    paths = []
    for k in range(count):
        paths.append(str(folder / f"{seed}-{k}.png"))
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return noise(tmp_path_factory.mktemp("pictures"), 7)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(collection, "PART", 3)
    monkeypatch.setattr(collection, "TOGETHER", 2)


@pytest.fixture
def indexed(tagger, pictures, tmp_path, small_parts):  # noqa: ARG001
    assert extend(tmp_path / "index", tagger, pictures, run="somewhere", progress_bar=False) == {}
    return Collection.open(tmp_path / "index")


def rounded(tagger, pictures):
    """The gallery of features in half precision, worked out in one go."""
    gallery = tagger.index(pictures)
    return tagger.evidence.situated(gallery.regions.half().float(), gallery.cls.half().float(), gallery.grid)


def test_what_is_stored_is_what_follows_from_features_in_half_precision(tagger, pictures, indexed):
    stored = [gallery for _, gallery in indexed.galleries()]
    assert [first for first, _ in indexed.galleries()] == [0, 3, 6]
    wanted = rounded(tagger, pictures)
    for name, *parts, one in zip(Gallery._fields, *stored, wanted, strict=True):
        if name == "grid":
            assert parts == [one] * 3
            continue
        assert torch.cat(parts).dtype == one.dtype
        torch.testing.assert_close(torch.cat(parts), one, rtol=0, atol=1e-4 if name in ("regions", "cls") else 1e-2)


def test_a_stored_part_is_recomputed_to_the_bit(tagger, indexed):
    for _, gallery in indexed.galleries():
        again = tagger.evidence.situated(gallery.regions, gallery.cls, gallery.grid)
        assert all(torch.equal(a, b) for a, b in zip(gallery[:-1], again[:-1], strict=True))


def test_a_picture_takes_two_bytes_for_each_number_of_its_features_and_little_more(indexed):
    _, gallery = next(indexed.galleries())
    features = 2 * (gallery.regions[0].numel() + gallery.cls[0].numel())
    others = sum(t[0].numel() * (4 if t.dtype == torch.int64 else 8) for t in gallery[2:-1])
    assert 0 < indexed.size - 7 * (features + others) < 3 * 2000  # names and a head in each of three parts


def test_answers_of_an_index_are_those_of_its_pictures(tagger, pictures, indexed):
    asked = tagger.labels(LABELS)
    answer = indexed.probabilities(tagger, asked)
    torch.testing.assert_close(answer, tagger.ask(rounded(tagger, pictures), asked).probabilities, rtol=0, atol=1e-4)
    unrounded = tagger.ask(tagger.index(pictures), asked).probabilities
    torch.testing.assert_close(answer, unrounded, rtol=0, atol=0.02)
    assert answer.std() > 0.05


def test_pictures_are_answered_for_in_the_order_of_their_paths(tagger, pictures, indexed):
    assert indexed.paths == tuple(pictures)
    asked = tagger.labels(LABELS)
    paths, answers = zip(*indexed.answers(tagger, asked), strict=True)
    assert [path for part in paths for path in part] == pictures
    assert torch.equal(torch.cat(answers), indexed.probabilities(tagger, asked))


@pytest.mark.parametrize("top", [1, 4, 7, 100])
def test_a_search_gives_the_most_probable_pictures_first(tagger, indexed, top):
    column = indexed.probabilities(tagger, tagger.labels(["zebra"]))[:, 0].numpy()
    order = np.argsort(-column, kind="stable")[:top]
    hits = indexed.search(tagger, "zebra", top)
    assert [hit.path for hit in hits] == [indexed.paths[k] for k in order]
    np.testing.assert_allclose([hit.probability for hit in hits], column[order], rtol=0, atol=1e-6)


def test_the_best_of_many_labels_are_found_in_small_blocks(tagger, indexed, monkeypatch):
    asked = tagger.labels(LABELS)
    whole = indexed.probabilities(tagger, asked)
    regions = indexed.grid[0] * indexed.grid[1]
    monkeypatch.setattr(ranking, "LABELS", 2)
    monkeypatch.setattr(ranking, "NUMBERS", 4 * regions)
    sizes = []
    ask = tagger.ask

    def counted(gallery, part):
        sizes.append(gallery.regions.shape[0] * gallery.regions.shape[1] * len(part.names))
        return ask(gallery, part)

    monkeypatch.setattr(tagger, "ask", counted)
    best = indexed.best(tagger, asked, 3)
    values, places = whole.T.sort(descending=True, stable=True)
    torch.testing.assert_close(best.probabilities, values[:, :3], rtol=0, atol=1e-6)
    assert torch.equal(best.places, places[:, :3])
    assert max(sizes) == 4 * regions
    assert sum(sizes) == 7 * regions * len(LABELS)


def test_of_equal_pictures_the_first_comes_first_and_places_stay_free():
    best = Best(2, 4)
    best.show(Block(slice(0, 2), slice(0, 1), torch.tensor([[0.5], [0.75]])), 0)
    best.show(Block(slice(1, 2), slice(0, 1), torch.tensor([[0.75]])), 9)
    assert best.places.tolist() == [[1, 10, 0, -1], [-1] * 4]
    assert best.probabilities.tolist() == [[0.75, 0.75, 0.5, -1], [-1] * 4]


def test_indexing_that_was_stopped_goes_on_with_the_pictures_that_are_missing(
    tagger, pictures, indexed, tmp_path, monkeypatch
):
    seen = []
    index = tagger.index

    def stopped(paths):
        if len(seen) >= 4:
            raise KeyboardInterrupt
        seen.extend(paths)
        return index(paths)

    monkeypatch.setattr(tagger, "index", stopped)
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        extend(folder, tagger, pictures, progress_bar=False)
    assert Collection.open(folder).paths == tuple(pictures[:3])
    assert not list(folder.glob("*.part")) + list(folder.glob(".*.part"))
    monkeypatch.setattr(tagger, "index", lambda paths: seen.extend(paths) or index(paths))
    del seen[:]
    extend(folder, tagger, [*pictures, pictures[0]], progress_bar=False)
    assert seen == pictures[3:]
    again = Collection.open(folder)
    assert again.paths == indexed.paths
    asked = tagger.labels(LABELS)
    torch.testing.assert_close(
        again.probabilities(tagger, asked), indexed.probabilities(tagger, asked), rtol=0, atol=1e-6
    )


def test_a_part_that_the_manifest_does_not_count_is_written_anew(tagger, pictures, indexed):
    manifest = indexed.folder / "index.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "parts": content["parts"][:2]}))
    assert Collection.open(indexed.folder).paths == tuple(pictures[:6])
    extend(indexed.folder, tagger, pictures, progress_bar=False)
    assert Collection.open(indexed.folder).paths == tuple(pictures)


def test_pictures_that_cannot_be_read_are_named_and_left_out(tagger, pictures, tmp_path, small_parts):  # noqa: ARG001
    text = tmp_path / "text.png"
    text.write_text("no picture")
    missing = str(tmp_path / "missing.png")
    wanted = [missing, str(text), *pictures[:3], missing]
    broken = extend(tmp_path / "index", tagger, wanted, progress_bar=False)
    assert list(broken) == [missing, str(text)]
    assert all(name in str(error) for name, error in broken.items())
    assert Collection.open(tmp_path / "index").paths == tuple(pictures[:3])


def test_of_no_readable_pictures_there_is_no_index(tagger, tmp_path):
    assert len(extend(tmp_path / "index", tagger, ["missing.png"], progress_bar=False)) == 1
    assert not (tmp_path / "index").exists()


def other(parts, **changes):
    return Tagger(parts._replace(**changes), batch=2)


def test_an_index_of_another_training_is_refused_in_one_line(parts, pictures, indexed):
    state = {name: value + 0.01 for name, value in parts.state.items()}
    stranger = other(parts, state=state)
    for use in (
        lambda: indexed.search(stranger, "cat"),
        lambda: indexed.probabilities(stranger, stranger.labels(["cat"])),
        lambda: extend(indexed.folder, stranger, pictures),
    ):
        with pytest.raises(CollectionError, match="other trained weights") as error:
            use()
        assert "\n" not in str(error.value)


def test_an_index_of_other_labels_or_settings_is_refused(parts, config, indexed):
    with pytest.raises(CollectionError, match="other labels in its training"):
        indexed.require(other(parts, seen=(*parts.seen[:-1], "bed")))
    with pytest.raises(CollectionError, match=r"MODEL.OT_REG 0.1, not 0.2"):
        indexed.require(other(parts, config=config("MODEL.OT_REG", 0.2).dump()))
    with pytest.raises(CollectionError, match=r"INPUT.PIXEL_MEAN"):
        indexed.require(other(parts, config=config("INPUT.PIXEL_MEAN", [0.1, 0.1, 0.1]).dump()))


def test_an_index_of_another_clip_is_refused(parts, config, indexed):
    towers = config("SOLVER.SEED", 1)  # random ones are drawn by it
    changed = other(parts, config=towers.dump(), clip=load_towers(towers).identity)
    with pytest.raises(CollectionError, match=f"with the CLIP {parts.clip}, not {changed._parts.clip}"):
        indexed.require(changed)


def test_what_training_alone_reads_does_not_matter(parts, config, indexed):
    indexed.require(other(parts, config=config("INPUT.CROP", 0.3, "SOLVER.BASE_LR", 1.0, "OUTPUT_DIR", "x").dump()))


def test_an_exported_tagger_may_ask(tagger, indexed, tmp_path):
    tagger.export(tmp_path / "exported")
    exported = Tagger.load(tmp_path / "exported")
    assert indexed.search(exported, "cat", 2) == indexed.search(tagger, "cat", 2)


def test_another_calibration_is_refused_until_the_index_takes_it_over(parts, pictures, indexed):
    changed = {**parts.calibration, "bias": parts.calibration["bias"] + 1}
    calibrated = other(parts, calibration=changed)
    with pytest.raises(CollectionError, match="another calibration: run tools/index_images.py"):
        indexed.search(calibrated, "cat")
    before = {path.name: path.stat().st_mtime_ns for path in indexed.folder.glob("part-*")}
    extend(indexed.folder, calibrated, pictures, progress_bar=False)
    assert {path.name: path.stat().st_mtime_ns for path in indexed.folder.glob("part-*")} == before
    asked = calibrated.labels(["cat"])
    answer = Collection.open(indexed.folder).probabilities(calibrated, asked)
    expected = calibrated.ask(rounded(calibrated, pictures), asked).probabilities
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-4)


def test_without_a_calibration_pictures_can_be_indexed_but_not_asked(parts, pictures, tmp_path):
    uncalibrated = other(parts, calibration=None)
    extend(tmp_path / "index", uncalibrated, pictures[:2], progress_bar=False)
    with pytest.raises(CalibrationError, match=r"tools/calibrate\.py"):
        Collection.open(tmp_path / "index").search(uncalibrated, "cat")


def test_a_count_of_no_pictures_is_refused(tagger, indexed):
    with pytest.raises(CollectionError, match="at least 1, not 0"):
        indexed.search(tagger, "cat", 0)


def test_where_no_index_is_it_is_said(tmp_path):
    with pytest.raises(CollectionError, match=r"holds no index of pictures: make one with tools/index_images\.py"):
        Collection.open(tmp_path)


@pytest.mark.parametrize("spoil", [
    lambda folder: (folder / "index.json").write_text("{"),
    lambda folder: (folder / "index.json").write_text("[]"),
    lambda folder: (folder / "index.json").write_text('{"format": "picture index", "version": 1}'),
    lambda folder: (folder / "part-00001.safetensors").unlink(),
    lambda folder: (folder / "part-00001.safetensors").write_bytes(b"\0" * 100),
    lambda folder: (folder / "part-00002.safetensors").replace(folder / "part-00001.safetensors"),
])  # fmt: skip
def test_a_broken_index_is_one_line(indexed, spoil):
    spoil(indexed.folder)
    with pytest.raises(CollectionError, match="index again") as error:
        Collection.open(indexed.folder)
    assert "\n" not in str(error.value)


def test_an_index_of_another_version_is_refused(indexed):
    path = indexed.folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(CollectionError, match=r"no index of this version \(1\)"):
        Collection.open(indexed.folder)


def test_a_folder_that_cannot_be_made_is_one_line(tagger, pictures, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot make the folder"):
        extend(tmp_path / "file" / "index", tagger, pictures[:1], progress_bar=False)


def spoil(folder, change):
    """Rewrites the first part of an index."""
    path = folder / "part-00000.safetensors"
    with safe_open(path, framework="pt") as part:
        tensors, about = {name: part.get_tensor(name) for name in part.keys()}, part.metadata()  # noqa: SIM118
    tensors, about = change(tensors, about)
    path.write_bytes(save(tensors, about))


@pytest.mark.parametrize(
    "change",
    [
        lambda t, a: ({k: v[:1].contiguous() for k, v in t.items()}, a),
        lambda t, a: ({**t, "rivals": t["rivals"][..., :1].contiguous()}, a),
        lambda t, a: ({**t, "regions": t["regions"].flatten(1)}, a),
        lambda t, a: ({**t, "regions": t["regions"] * torch.nan}, a),
    ],
    ids=["fewer-rows", "fewer-rivals", "flat", "nan"],
)
def test_a_part_of_another_shape_is_refused_and_never_answered_from(tagger, tmp_path, change):
    extend(tmp_path / "index", tagger, [f"shapes:test/{k}" for k in range(3)], progress_bar=False)
    spoil(tmp_path / "index", change)
    with pytest.raises(CollectionError, match="is broken, index again"):
        Collection.open(tmp_path / "index").probabilities(tagger, tagger.labels(["dog"]))


@pytest.mark.parametrize("paths", ['{"a": 1, "b": 2, "c": 3}', '"abc"', "[1, 2, 3]", "[[], [], []]"])
def test_paths_that_are_none_are_refused(tagger, tmp_path, paths):
    extend(tmp_path / "index", tagger, [f"shapes:test/{k}" for k in range(3)], progress_bar=False)
    spoil(tmp_path / "index", lambda tensors, about: (tensors, {**about, "paths": paths}))
    with pytest.raises(CollectionError, match="does not name its pictures"):
        Collection.open(tmp_path / "index")


@pytest.mark.parametrize("made_by", [{}, {"clip": "a"}, None])
def test_a_manifest_without_its_tagger_is_refused(tagger, tmp_path, made_by):
    extend(tmp_path / "index", tagger, ["shapes:test/0"], progress_bar=False)
    content = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps({**content, "made_by": made_by}))
    with pytest.raises(CollectionError, match="holds a broken index"):
        Collection.open(tmp_path / "index")


def test_a_name_that_lists_cannot_hold_is_left_out_and_told(tagger, tmp_path):
    path = tmp_path / "new\nline.png"
    Image.new("RGB", (32, 32)).save(path)
    broken = extend(tmp_path / "index", tagger, [str(path), "shapes:test/0"], progress_bar=False)
    assert "line break" in str(broken[str(path)])
    assert Collection.open(tmp_path / "index").paths == ("shapes:test/0",)
