"""A layout as a drawing to scale, from whatever its JSON says."""

from __future__ import annotations

import re
import uuid
from typing import Any
from xml.etree import ElementTree

import pytest
from django.template.loader import render_to_string
from hypothesis import given
from hypothesis import strategies as st

from catalogue import drawing
from catalogue.models import Table
from tests import factories, odd_rows
from tests.admin_client import signed_in, url
from tests.conftest import Database

TOWER, SHED = uuid.UUID(int=1), uuid.UUID(int=2)
KNOWN = {
    TOWER: drawing.Known("Ruined Tower", 100.0, 60.0),
    SHED: drawing.Known("<Shed> & co"),
}


def placed(asset: Any, x: Any, z: Any, **more: Any) -> dict[str, Any]:
    return {"asset_id": str(asset), "position": {"x": x, "y": 0, "z": z}, **more}


def drawn(
    *models: Any, width: Any = 1200, depth: Any = 900, config: Any = None
) -> drawing.Drawing:
    found = drawing.drawn(width, depth, config, {"models": list(models)}, KNOWN)
    assert found is not None
    return found


def rendered(found: drawing.Drawing | None) -> str:
    return render_to_string("catalogue/drawing.html", {"drawing": found})


def svg(found: drawing.Drawing) -> ElementTree.Element:
    (text,) = re.findall(r"(?s)<svg.*</svg>", rendered(found))
    return ElementTree.fromstring(text)


def test_things_are_drawn_where_they_stand_and_as_large_as_they_are() -> None:
    found = drawn(placed(TOWER, 300, 450, rotation=450, scale=2), placed(SHED, 1200, 0))
    tower, shed = found.things
    assert (tower.x, tower.y, tower.width, tower.depth) == (300, 450, 200, 120)
    assert tower.transform == "translate(300 450) rotate(90)"
    assert (tower.has_measures, shed.has_measures) == (True, False)
    assert (shed.width, shed.depth, shed.stands_off) == (50, 50, False)
    assert found.measures == "1200 × 900 mm" and not found.from_middle
    picture = svg(found)
    assert picture.attrib["viewBox"] == "-72 -97 1369 1069"
    assert picture.findall("rect")[0].attrib["width"] == "1200"


def test_positions_may_count_from_the_middle() -> None:
    found = drawn(placed(TOWER, -600, -450), placed(TOWER, 600, 450))
    assert found.from_middle
    assert [(each.x, each.y) for each in found.things] == [(0, 0), (1200, 900)]
    outside = drawn(placed(TOWER, -10, 5), placed(TOWER, 700, 5))
    assert not outside.from_middle and outside.things[0].stands_off


def test_a_table_without_measures_is_as_large_as_what_stands_on_it() -> None:
    found = drawn(placed(TOWER, 730, 410), width=None, depth=None)
    assert (found.width, found.depth, found.is_guessed) == (800, 500, True)
    assert found.measures == "measures not known, drawn 800 × 500 mm"


def test_other_spellings_of_a_position_are_read() -> None:
    found = drawn(
        {"position": [10, 0, 20], "rotation": [0, 90, 0], "scale": {"x": 2}},
        {"position": {"x": 1.5, "z": 2}, "rotation": {"y": -90}},
    )
    first, second = found.things
    assert (first.x, first.y, first.rotation, first.width) == (10, 20, 90, 100)
    assert (second.where, second.rotation, second.asset) == ("1.5 × 2", 270, None)


def test_what_has_no_position_is_counted_and_what_is_too_much_is_not_drawn() -> None:
    odd = ["x", None, {}, placed(TOWER, "1", 2), placed(TOWER, True, 2)]
    found = drawn(*odd, placed(TOWER, 1, 2), *[placed(TOWER, 5, 5)] * 400)
    assert found.unread == 5
    assert len(found.things) + found.unread + found.more == 406
    assert len(found.things) + found.unread == drawing.MOST


def test_grid_and_colour_are_taken_where_they_are_such() -> None:
    found = drawn(config={"grid_size": 25, "background_color": "#2b2b2b"})
    assert (found.grid, found.background) == (25, "#2b2b2b")
    odd = drawn(config={"grid_size": 0.001, "background_color": 'red" onload="x'})
    assert (odd.grid, odd.background) == (None, None)


def test_nothing_is_drawn_of_nothing() -> None:
    assert drawing.drawn(None, None, {}, {}, {}) is None
    assert drawing.drawn(None, 900, None, [], {}) is None
    assert "There is nothing to draw" in rendered(None)


def test_names_are_escaped() -> None:
    page = rendered(drawn(placed(SHED, 1, 1), placed("<b>", 1, 1)))
    assert "&lt;Shed&gt; &amp; co" in page and "<b>" not in page


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.none(), st.booleans(), st.text(max_size=5)
)
THINGS = st.one_of(
    NUMBERS,
    st.fixed_dictionaries(
        {},
        optional={
            "asset_id": st.one_of(NUMBERS, st.sampled_from([str(TOWER), str(SHED)])),
            "position": st.one_of(
                NUMBERS,
                st.lists(NUMBERS, max_size=4),
                st.dictionaries(st.sampled_from("xyz"), NUMBERS),
            ),
            "rotation": st.one_of(NUMBERS, st.lists(NUMBERS, max_size=4)),
            "scale": st.one_of(
                NUMBERS, st.dictionaries(st.sampled_from("xyz"), NUMBERS)
            ),
        },
    ),
)
CONFIGS = st.dictionaries(st.sampled_from(["grid_size", "background_color"]), NUMBERS)


@given(
    st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
    st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
    st.one_of(NUMBERS, CONFIGS),
    st.one_of(
        NUMBERS,
        st.lists(THINGS),
        st.dictionaries(st.just("models"), st.one_of(NUMBERS, st.lists(THINGS))),
    ),
)
def test_whatever_the_json_says_there_is_a_drawing_or_none(
    width: Any, depth: Any, config: Any, layout: Any
) -> None:
    drawing.assets_of(layout)
    found = drawing.drawn(width, depth, config, layout, KNOWN)
    if found is None:
        return
    picture = svg(found)
    for number in picture.attrib["viewBox"].split():
        assert re.fullmatch(r"-?\d+(\.\d)?", number)
    for each in found.things:
        assert abs(each.x) <= 2 * drawing.FARTHEST and each.width <= drawing.FARTHEST


def test_the_page_of_a_table_shows_it(shared: Database) -> None:
    asset = factories.AssetFactory(dimensions_mm={"width": 120, "depth": 80})
    table = factories.TableFactory(
        width=1200, depth=900, layout={"models": [placed(asset.pk, 100, 200)]}
    )
    page = signed_in(superuser=True).get(url(Table, "change", table.pk))
    text = page.content.decode()
    assert 'transform="translate(100 200) rotate(0)"' in text
    assert f'<a href="{url(type(asset), "change", asset.pk)}">' in text
    assert "<td>120 × 80</td>" in text


def test_the_page_of_every_odd_table_is_drawn(migrated: Database) -> None:
    odd_rows.insert(migrated)
    client = signed_in(superuser=True)
    for table in Table.objects.order_by("-created_at")[:60]:
        page = client.get(url(Table, "change", table.pk))
        assert page.status_code == 200
        assert b"<script>alert(1)" not in page.content


@pytest.mark.parametrize("value", [None, [], "x", {"width": -1, "depth": "2"}])
def test_measures_that_are_none_are_not_known(value: Any) -> None:
    assert list(drawing.measures(value)) == [None, None]
