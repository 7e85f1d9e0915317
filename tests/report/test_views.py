"""What a person is shown of an example: marked, folded where it is long, and never markup of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from stilla.report.views import Drawn, draw
from stilla.scores import Scores
from stilla.views import Box, Boxed, Listed, Mark, Picture, Ranking, Sound, Sounding, Text, View, plain, view_of

from . import fakes


def html(text: str, *marks: Mark) -> str:
    drawn = draw(Text(text, marks), "label")
    assert drawn.layout == "texts"
    return str(drawn.html)


def paragraph(text: str, *marks: Mark) -> str:
    """What stands in the only paragraph."""
    (found,) = re.findall("<p>(.*?)</p>", html(text, *marks), re.DOTALL)
    return found


def words(markup: str) -> str:
    return re.sub("<[^>]*>", "", markup)


@pytest.mark.parametrize("view", [Text("a"), Text("a cat", (Mark(0, 1), Mark(2, 5, "animal", "teacher"), Mark(5, 5))),
                                  Picture("data:image/png;base64,AA=="),
                                  Sound("data:audio/mpeg;base64,AA==", {"right": Text("a b", (Mark(0, 1),))}),
                                  Sounding("a cat", {"right": "data:audio/mpeg;base64,AA=="}),
                                  Ranking("a?", {"teacher": (Listed("b", True, 0.5),), "student": ()})])
def test_a_view_is_read_back_as_it_was_written(view: View, tmp_path: Path) -> None:
    assert view_of(plain(view)) == view
    scores = fakes.intents(3)
    scores = replace(scores, flips=(replace(scores.flips[0], shown=view),))
    scores.dump(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == scores


def test_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="a view of the kind 'hologram' is not known"):
        view_of({"kind": "hologram", "text": "a"})


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (2, 6), (6, 6)])
def test_a_mark_of_what_is_not_in_the_text_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"a mark from {start} to {end} in a text of 5 characters"):
        Text("a cat", (Mark(start, end),))


def test_a_text_without_marks_is_itself() -> None:
    assert html("a cat") == '<div class="example"><p>a cat</p></div>'


def test_what_is_marked_is_labelled_behind_it_in_the_colour_of_who_says_it() -> None:
    assert paragraph("the cat sat", Mark(4, 7, "animal", "student")) == (
        'the <mark class="student">cat</mark><sub class="student">animal</sub> sat')
    assert paragraph("the cat", Mark(4, 7, "animal")) == 'the <mark class="data">cat</mark><sub class="data">animal</sub>'
    assert paragraph("the cat", Mark(0, 7)) == '<mark class="data">the cat</mark>'
    assert '<mark class="extra">' in paragraph("the cat", Mark(0, 3, "", "somebody"))


def test_marks_that_overlap_are_all_there() -> None:
    found = paragraph("the old cat sat", Mark(0, 11, "who", "teacher"), Mark(4, 15, "what", "student"))
    assert found == ('<mark class="teacher">the </mark><mark class="teacher student">old cat</mark>'
                     '<sub class="teacher">who</sub><mark class="student"> sat</mark><sub class="student">what</sub>')
    assert words(found) == "the old catwho satwhat"


def test_two_that_say_the_same_share_a_mark_and_keep_their_labels() -> None:
    found = paragraph("cat", Mark(0, 3, "a", "teacher"), Mark(0, 3, "b", "student"))
    assert found == ('<mark class="teacher student">cat</mark><sub class="teacher">a</sub><sub class="student">b</sub>')


PLACE = '<span class="place">▁▁</span>'


@pytest.mark.parametrize(("text", "at", "expected"), [
    ("the cat", 7, f"the cat{PLACE}"), ("the cat", 4, f"the {PLACE}cat"), ("the cat", 0, f"{PLACE}the cat"), ("", 0, PLACE)])
def test_a_place_is_drawn_where_it_is_and_once(text: str, at: int, expected: str) -> None:
    assert paragraph(text, Mark(at, at)) == expected
    labelled = expected.replace(PLACE, f'{PLACE}<sub class="teacher">x</sub>')
    assert paragraph(text, Mark(at, at, "x", "teacher")) == labelled


LONG = " ".join(f"word{number:03}" for number in range(200))
FOLD = LONG.rfind(" ", 300, 600)


@pytest.mark.parametrize("marks", [
    (), (Mark(8, 15, "early"), Mark(1000, 1007, "late")), (Mark(FOLD - 20, FOLD + 20, "across"),),
    (Mark(FOLD - 7, FOLD, "before"), Mark(FOLD, FOLD + 8, "behind")), (Mark(FOLD, FOLD),), (Mark(len(LONG), len(LONG)),)])
def test_a_long_text_is_folded_at_a_space_with_its_marks_on_both_sides(marks: tuple[Mark, ...]) -> None:
    found = html(LONG, *marks)
    first, rest = found.split("<details>")
    assert first.count(" …") == 1
    text, behind = (words(re.sub("<sub.*?</sub>|<span.*?</span>", "", part)) for part in (first, rest))
    assert text == LONG[:FOLD]
    assert behind == "the rest" + LONG[FOLD:]
    for mark in marks:
        assert found.count(f">{mark.label}</sub>") == (1 if mark.label else 0)
        assert (f">{mark.label}</sub>" in first) == (bool(mark.label) and mark.end <= FOLD)
        if mark.start == mark.end:
            assert found.count(PLACE) == 1
            assert (PLACE in first) == (mark.start <= FOLD)
        else:
            sides = [(mark.start, min(mark.end, FOLD), first), (max(mark.start, FOLD), mark.end, rest)]
            inside = [part for start, end, part in sides if start < end and f">{LONG[start:end]}</mark>" in part]
            assert len(inside) == 1 + (mark.start < FOLD < mark.end)


def test_a_few_words_too_many_are_not_folded() -> None:
    assert "<details>" not in html("x" * 720, Mark(720, 720))
    assert "<details>" in html("x" * 721)


EVIL = "<script>alert(1)</script>\"'&"


def test_nothing_of_the_data_becomes_markup() -> None:
    marks = (Mark(0, 9, EVIL, EVIL), Mark(9, 9, EVIL, EVIL), Mark(5, len(EVIL), EVIL))
    long = EVIL + "<b>" * 400
    for found in (html(EVIL), html(EVIL, *marks), html(long, *marks), str(draw(Picture(EVIL), EVIL).html)):
        tags = set(re.findall(r"<(/?\w+)", found))
        assert {name.strip("/") for name in tags} <= {"div", "p", "mark", "sub", "span", "details", "summary"}
        assert "&lt;" in found
        assert EVIL not in found


def test_a_picture_is_one_only_if_it_is_raster() -> None:
    good = draw(Picture(fakes.picture(3)), '3" onload="x')
    assert good == Drawn(good.html, "pictures")
    assert str(good.html).startswith('<img src="data:image/png;base64,')
    assert "onload=&#34;x" in str(good.html)
    for uri in ("data:image/svg+xml;base64,AA==", "https://example.org/a.png", 'data:image/png;base64,AA" onload="x'):
        assert draw(Picture(uri), "3").layout == "texts"
        assert "<img" not in str(draw(Picture(uri), "3").html)


def test_a_sound_is_played_only_if_it_is_one_and_what_is_said_in_it_stands_below() -> None:
    said = {"right": Text("a cat"), "student": Text("a hat", (Mark(2, 5, "", "student"),))}
    good = draw(Sound("data:audio/mpeg;base64,AA==", said), "a cat")
    assert good.layout == "texts"
    assert str(good.html).startswith('<audio controls preload="none" src="data:audio/mpeg;base64,AA==">')
    assert "right</th><td>a cat</td>" in str(good.html)
    assert ">hat</mark>" in str(good.html)
    for uri in ("data:image/svg+xml;base64,AA==", "https://example.org/a.mp3", 'data:audio/mpeg;base64,AA" onload="x'):
        found = str(draw(Sound(uri, {EVIL: Text(EVIL)}), "3").html)
        assert "<audio" not in found
        assert EVIL not in found


def test_a_text_that_is_spoken_stands_above_a_player_for_everybody_who_does() -> None:
    sound = "data:audio/mpeg;base64,AA=="
    found = draw(Sounding(EVIL, {"right": sound, "student": sound, "baseline": "https://example.org/a.mp3"}), "3")
    assert found.layout == "texts"
    assert EVIL not in str(found.html)
    assert str(found.html).count(f'<audio controls preload="none" src="{sound}">') == 2
    assert str(found.html).count("<audio") == 2
    assert "right</th><td><audio" in str(found.html)


def test_what_is_said_in_a_sound_stands_at_the_left_and_long_words_break() -> None:
    css = (resources.files("stilla.report") / "assets" / "page.css").read_text(encoding="utf-8")
    (rule,) = re.findall(r"^\.said td, \.said th \{(.*)\}$", css, re.MULTILINE)
    assert "text-align: left" in rule
    assert "overflow-wrap: anywhere" in rule


def test_lists_stand_side_by_side_with_what_was_looked_for_marked() -> None:
    found = {"teacher": (Listed("an <b>answer</b>", True, 0.9), Listed("other", False, 0.5)),
             "student": (Listed("other", False, 0.7),)}
    markup = str(draw(Ranking("a question", found), "label").html)
    assert "an &lt;b&gt;answer&lt;/b&gt;" in markup
    assert re.findall("<mark[^>]*>(.*?)</mark>", markup) == ["an &lt;b&gt;answer&lt;/b&gt;"]
    assert re.findall("<th class=[^>]*>(.*?)</th>", markup) == ["teacher", "student"]
    assert words(markup).startswith("a question")


def test_boxes_are_drawn_over_their_picture_and_labels_are_text() -> None:
    view = Boxed("data:image/png;base64,AA==", 2.0, (Box(0.1, 0.2, 0.5, 0.9, "<b>cell</b>"), Box(0, 0, 1, 1, "", "student")))
    drawn = draw(view, "cell")
    assert drawn.layout == "pictures"
    assert drawn.html.count("<rect") == 2
    assert "&lt;b&gt;cell" in drawn.html
    assert '<rect class="data" x="32.0" y="32.0" width="128.0" height="112.0"/>' in drawn.html
    assert view_of(plain(view)) == view
    assert "<image" not in draw(Boxed("https://elsewhere/x.png", 1.0), "cell").html
    with pytest.raises(ValueError, match="a box from"):
        Box(0.5, 0, 0.4, 1)
