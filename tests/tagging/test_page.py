"""The page of tagged pictures, as a browser shows it, and as it stands in the file."""

import base64
import hashlib
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from engine.atomic import WriteError
from tagging.page import PageEntry, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")

GREY = Image.new("RGB", (64, 48), (120, 120, 120))
HOSTILE = "</script><b id=own>\"'&<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def chart(*cells):
    """Maps of 2 x 3 regions that are 1 in the given regions and 0 elsewhere."""
    return torch.stack([torch.eye(6)[cell].unflatten(0, (2, 3)) for cell in cells])


ENTRIES = [
    PageEntry("a.jpg", GREY, ("dog", "hot dog"), (0.4, 0.9), chart(0, 5)),
    PageEntry("b.jpg", GREY, ("tree",), (0.8,), chart(1)),
    PageEntry("c.jpg", GREY, ("dog", "tree"), (0.7, 0.1), chart(2, 3)),
]


@pytest.fixture
def page(tmp_path):
    """Writes entries to a page and gives its path."""

    def write(entries, title="Pictures"):
        write_page(tmp_path / "page.html", entries, title=title)
        return tmp_path / "page.html"

    return write


def chromium(page, fragment, *arguments):
    """What headless chromium writes to stdout."""
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    line = [CHROMIUM, *fixed, *arguments, f"{page.as_uri()}{fragment}"]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout


def opened(page, fragment="", *, probe=None):
    """The document after its scripts ran; `probe` runs behind them, in a copy that allows it."""
    if probe is not None:
        text = re.sub(r"<meta http-equiv=.*", "", page.read_text())
        page = page.with_name("probed.html")
        page.write_text(text.replace("</body>", f"<script>{probe}</script></body>"))
    return chromium(page, fragment, "--dump-dom")


def shown(document):
    """Names of the pictures that are not hidden, in their order."""
    cards = re.findall(r"<article(.*?)>.*?<div class=\"name\".*?>(.*?)</div>", document, re.DOTALL)
    return [name for attributes, name in cards if "hidden" not in attributes]


def count(document):
    return re.search(r'id="count"[^>]*>(.*?)<', document)[1]


@browser
def test_without_a_filter_all_pictures_stand_in_their_order(page):
    document = opened(page(ENTRIES))
    assert (shown(document), count(document)) == (["a.jpg", "b.jpg", "c.jpg"], "3 pictures")


@browser
@pytest.mark.parametrize(
    ("wanted", "pictures"),
    [("dog", ["c.jpg", "a.jpg"]), ("do", ["a.jpg", "c.jpg"]), ("Tree", ["b.jpg", "c.jpg"]),
     ("dog, tree", ["c.jpg"]), ("cat", [])],
)  # fmt: skip
def test_a_filter_keeps_pictures_with_the_labels_and_sorts_by_their_score(page, wanted, pictures):
    document = opened(page(ENTRIES), f"#{wanted.replace(' ', '%20')}")
    assert (shown(document), count(document)) == (pictures, f"{len(pictures)} of 3 pictures")


BEFORE = """
const button = document.querySelectorAll(".label")[1], canvas = document.querySelector("figure canvas");
const alpha = () => [...canvas.getContext("2d").getImageData(0, 0, 3, 2).data].filter((_, i) => i % 4 === 3);
const seen = [getComputedStyle(canvas).visibility];
"""
AFTER = "document.body.dataset.seen = JSON.stringify(seen);"


def probed(document):
    return json.loads(html.unescape(re.search(r'data-seen="(.*?)"', document)[1]))


@browser
def test_pointing_at_a_label_shows_its_map_and_leaving_hides_it(page):
    probe = """
    const point = (kind) => button.dispatchEvent(new PointerEvent(kind, {pointerType: "mouse"}));
    point("pointerenter"); seen.push(getComputedStyle(canvas).visibility, alpha());
    point("pointerleave"); seen.push(getComputedStyle(canvas).visibility);
    """
    found = probed(opened(page(ENTRIES), probe=BEFORE + probe + AFTER))
    assert found == ["hidden", "visible", [0, 0, 0, 0, 0, 220], "hidden"]


@browser
def test_a_click_or_key_pins_a_map_until_escape(page):
    probe = """
    const state = () => seen.push([getComputedStyle(canvas).visibility, button.getAttribute("aria-pressed")].join());
    button.focus(); button.click(); button.blur(); state();
    document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"})); state();
    button.click(); button.click(); state();
    """
    found = probed(opened(page(ENTRIES), probe=BEFORE + probe + AFTER))
    assert found == ["hidden", "visible,true", "hidden,false", "hidden,false"]


@browser
def test_a_filter_shows_where_its_label_is(page, tmp_path):
    target = page([PageEntry("a.jpg", GREY, ("dog", "tree"), (1.0, 1.0), chart(0, 5))])
    shot = tmp_path / "shot.png"
    chromium(target, "#tree", "--window-size=600,500", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    warm = pixels[..., 0] - pixels[..., 2] > 80
    warm[:100] = False  # the colour scale of the header
    rows, columns = np.nonzero(warm)
    grey = np.nonzero((np.ptp(pixels, axis=2) < 12) & (pixels[..., 0] < 90) & (pixels[..., 0] > 50))
    assert rows.mean() > grey[0].mean()  # region 5 is the last of both rows
    assert columns.mean() > grey[1].mean()


@browser
def test_names_of_files_and_labels_are_text_whatever_they_hold(page):
    target = page([PageEntry(HOSTILE, GREY, (HOSTILE, "dog"), (0.5, 0.4), chart(0, 1))], title=HOSTILE)
    document = opened(target)
    assert html.unescape(re.search(r"<title>(.*?)</title>", document)[1]) == HOSTILE
    assert (count(document), document.count("<script>"), document.count("<b id")) == ("1 picture", 1, 0)
    assert html.unescape(re.search(r'<span dir="auto">(.*?)</span>', document)[1]) == HOSTILE


@browser
def test_no_script_runs_but_its_own(page):
    target = page(ENTRIES)
    target.write_text(target.read_text().replace("<main>", "<main><script>document.title='owned'</script>"))
    document = opened(target)
    assert re.search(r"<title>(.*?)</title>", document)[1] == "Pictures"
    assert count(document) == "3 pictures"


def test_the_hash_that_the_page_allows_is_that_of_its_only_script(page):
    text = page(ENTRIES).read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = re.search(r"script-src 'sha256-(.*?)'", text)[1]
    assert base64.b64decode(allowed) == hashlib.sha256(script.encode()).digest()


def test_the_page_refers_to_nothing_outside(page):
    text = page(ENTRIES).read_text()
    assert {found.partition(":")[0] for found in re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">)]*)', text)} == {"data"}
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize(("size", "expected"), [((1600, 400), (320, 80)), ((64, 48), (64, 48))])
def test_pictures_are_reduced_to_320_pixels_and_never_enlarged(page, size, expected):
    text = page([PageEntry("a", Image.new("RGB", size, (200, 30, 30)), (), (), None)]).read_text()
    held = Image.open(io.BytesIO(base64.b64decode(re.search(r"image/jpeg;base64,([^\"]+)", text)[1])))
    assert held.size == expected
    np.testing.assert_allclose(np.asarray(held)[5, 5], (200, 30, 30), atol=4)


def test_the_picture_given_is_left_as_it_was(page):
    image = Image.new("RGB", (900, 900))
    page([PageEntry("a", image, (), (), None)])
    assert image.size == (900, 900)


def test_maps_are_held_as_bytes_on_one_scale(page):
    maps = torch.tensor([[[0.0, 0.5], [1.0, 0.2]], [[0.0, 0.0], [0.1, 0.0]]])
    text = page([PageEntry("a", GREY, ("x", "y"), (1.0, 0.1), maps)]).read_text()
    held = [list(base64.b64decode(found)) for found in re.findall(r'data-map="(.*?)"', text)]
    assert held == [[0, 128, 255, 51], [0, 0, 26, 0]]


def test_labels_without_maps_cannot_be_pressed(page):
    text = page([PageEntry("a", GREY, ("x",), (0.5,), None)]).read_text()
    assert re.search(r"<button[^>]* disabled ", text)
    assert "data-map=" not in text.partition("<script>")[0]


def test_a_name_that_is_no_utf8_is_spelt_out(page):
    assert r"caf\udce9.jpg" in page([PageEntry("caf\udce9.jpg", GREY, (), (), None)]).read_text()


def test_entries_are_taken_one_at_a_time_and_counted(tmp_path):
    alive, most = [], []

    class Watched(tuple):
        def __del__(self):
            alive.pop()

    def entries():
        for k in range(5):
            alive.append(k)
            most.append(len(alive))
            yield PageEntry(str(k), GREY, Watched(()), (), None)

    assert write_page(tmp_path / "page.html", entries(), title="x") == 5
    assert max(most) <= 2


def test_what_fails_half_way_leaves_the_old_page(tmp_path):
    target = tmp_path / "page.html"
    target.write_text("old")

    def entries():
        yield ENTRIES[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_page(target, entries(), title="x")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    "entry", [PageEntry("a.jpg", GREY, ("x",), (), None), PageEntry("a.jpg", GREY, ("x",), (0.5,), chart(0, 1))]
)
def test_an_entry_needs_a_probability_and_a_map_for_each_label(tmp_path, entry):
    with pytest.raises(ValueError, match=r"^a\.jpg: 1 labels"):
        write_page(tmp_path / "page.html", [entry], title="x")


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(WriteError, match="No such file"):
        write_page(tmp_path / "missing" / "page.html", [], title="x")
