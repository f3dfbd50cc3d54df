"""Which tagger answers."""

import shutil

import pytest

from tagging import CalibrationError, Tagger, TaggerError
from tagging.portable import write_parts
from tagging.source import find_source, identity, tagger_of
from tagging.spellings import Spellings, spelt_alike


@pytest.fixture
def runs(finished, tmp_path):
    """runs/shapes and runs/custom with three copies of a run; the newest is runs/custom/20260301-000000-10."""
    for place in ("shapes/20260228-235959", "custom/20260301-000000-9", "custom/20260301-000000-10"):
        shutil.copytree(finished.run, tmp_path / "runs" / place)
    return tmp_path / "runs"


def test_without_a_name_it_is_the_newest_run_of_all_folders(runs):
    source = find_source(runs=runs)
    assert source.trained
    assert source.place == str(runs / "custom" / "20260301-000000-10" / "checkpoint.pth")


@pytest.mark.parametrize("place", ["", "shapes", "shapes/20260228-235959", "shapes/20260228-235959/checkpoint.pth"])
def test_a_run_can_be_named_from_folders_of_folders_down_to_the_checkpoint(runs, place):
    shutil.rmtree(runs / "custom")
    assert find_source(str(runs / place)).place == str(runs / "shapes" / "20260228-235959" / "checkpoint.pth")


def test_an_exported_folder_is_the_run_it_came_of(runs, tmp_path):
    source = find_source(runs=runs)
    Tagger(source.parts).export(tmp_path / "exported")
    exported = find_source(str(tmp_path / "exported"), runs=runs)
    assert exported.place == str(tmp_path / "exported")
    assert identity(exported.parts) == identity(source.parts)


def test_the_identity_tells_models_apart(parts):
    name, value = next(iter(parts.state.items()))
    others = [
        parts._replace(state={**parts.state, name: value + 1e-3}), parts._replace(texts={"cat": "A cat."}),
        parts._replace(seen=parts.seen[::-1]), parts._replace(calibration=None),
        parts._replace(calibration={**parts.calibration, "bias": 0.5}),
    ]  # fmt: skip
    assert len({identity(one) for one in (parts, *others)}) == 1 + len(others)
    assert identity(parts._replace(state=dict(reversed(parts.state.items())))) == identity(parts)


def test_without_any_run_it_is_clip_as_it_is(tmp_path):
    source = find_source(runs=tmp_path / "runs")
    assert (source.place, source.trained) == ("zero-shot CLIP ViT-B/16", False)
    tiny = find_source(config_file="configs/tiny.yml", runs=tmp_path)
    assert tiny.place == "zero-shot CLIP ViT-tiny-8"
    tagger = tagger_of(tiny, spelt_alike(["dog"]), score="paper", clip_weights=None)
    assert tagger.method.title == "zero-shot CLIP"


def test_a_configuration_asks_for_clip_where_there_are_runs_too(runs):
    assert not find_source(config_file="configs/tiny.yml", runs=runs).trained
    with pytest.raises(TaggerError, match="give --run, or --config_file"):
        find_source(str(runs), "configs/tiny.yml")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(TaggerError, match=r"no run .*gone: name a run"):
        find_source(str(tmp_path / "gone"))
    with pytest.raises(TaggerError, match="holds no run"):
        find_source(str(tmp_path))


def test_rows_of_reproduced_tables_are_not_the_newest_run(runs):
    newest = find_source(runs=runs).place
    row = runs / "reproduce" / "average" / "seed-1" / "29991231-235959"
    shutil.copytree(runs / "custom" / "20260301-000000-10", row)
    assert find_source(runs=runs).place == newest


def test_missing_weights_of_clip_name_the_option(runs):
    for source in (find_source(runs=runs), find_source(config_file="configs/tiny.yml")):
        with pytest.raises(TaggerError, match=r"gone\.pt.*--clip_weights"):
            tagger_of(source, spelt_alike(["dog"]), score="paper", clip_weights="gone.pt")


def test_probabilities_need_a_calibration(parts, tmp_path):
    write_parts(tmp_path, parts._replace(config=_json(parts), calibration=None))
    source = find_source(str(tmp_path))
    with pytest.raises(
        CalibrationError, match=f"python tools/calibrate.py {tmp_path} DATASETS.VAL .* or add --score paper"
    ):
        tagger_of(source, spelt_alike(["dog"]), score="probability", clip_weights=None)
    assert not tagger_of(source, spelt_alike(["dog"]), score="paper", clip_weights=None).calibrated


def test_texts_hold_for_scores_of_a_list(parts, tmp_path):
    write_parts(tmp_path, parts._replace(config=_json(parts)))
    asked = Spellings(("dog", "x"), ("dog", "x"), {"x": "A photo of a kite."})
    tagger = tagger_of(find_source(str(tmp_path)), asked, score="paper", clip_weights=None)
    expected = Tagger(parts).tag("shapes:test/0", ["dog", "kite"], score="paper")
    ours = tagger.tag("shapes:test/0", asked.names, score="paper")
    assert ours.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def _json(parts):
    from tagging.build import portable

    return portable(parts).config
