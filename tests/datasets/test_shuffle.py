import hashlib

from datasets.shuffle import shuffled

NAMES = [f"image{i}.jpg" for i in range(200)]


def test_the_order_is_that_of_the_digests():
    assert shuffled(["b", "ü", "a"], 7) == sorted(
        ["a", "b", "ü"], key=lambda name: hashlib.sha256(b"7:" + name.encode("utf-8")).hexdigest()
    )


def test_the_order_is_fixed_for_all_time():
    assert shuffled("abcdefgh", 0) == ["h", "f", "g", "d", "a", "c", "b", "e"]


def test_names_of_files_that_are_no_text_are_shuffled_too():
    assert sorted(shuffled(["a\udcff", "b"], 0)) == ["a\udcff", "b"]


def test_another_seed_gives_another_order():
    assert shuffled(NAMES, 0) != shuffled(NAMES, 1)


def test_the_order_does_not_depend_on_the_order_of_the_names():
    assert shuffled(reversed(NAMES), 3) == shuffled(NAMES, 3)


def test_names_that_are_added_leave_the_order_of_the_others():
    assert [name for name in shuffled([*NAMES, "new.jpg"], 3) if name != "new.jpg"] == shuffled(NAMES, 3)


def test_a_first_fifth_is_spread_over_the_list():
    drawn = {int(name[5:-4]) for name in shuffled(NAMES, 0)[:40]}
    assert all(5 <= len(drawn & set(range(start, start + 50))) <= 15 for start in (0, 50, 100, 150))
