"""JSON is read and written digit for digit, and of any depth."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from django.db import connection
from hypothesis import given, settings

from catalogue.models import Table
from terrain import exactjson
from terrain.exactjson import DEEPEST, Number, Unparsed, dumps, loads
from tests import factories
from tests.rows import JSON, dump

NUMBERS = (
    "0",
    "-0",
    "1",
    "-1",
    "2.0",
    "1.10",
    "1e400",
    "-1E-7",
    "0.1",
    "123456789012345678901234567890",
    "99999999999999999999.99",
    "9" * 5000,
)


@pytest.mark.parametrize("text", [n for n in NUMBERS if n != "-0"])
def test_a_number_is_written_as_it_was_read(text: str) -> None:
    assert dumps(loads(text)) == text
    assert dumps({"n": [loads(text)]}) == '{"n": [%s]}' % text


def test_numbers_are_numbers() -> None:
    value = loads('{"price": 1.10, "count": 2, "share": 0.5}')
    assert value == {"price": 1.1, "count": 2, "share": 0.5}
    assert value["price"] * 2 == 2.2
    assert type(value["count"]) is int and type(value["share"]) is float
    assert loads("1e400") == float("inf")


@settings(deadline=None)
@given(JSON)
def test_what_python_can_say_is_said_as_python_says_it(value: Any) -> None:
    text = dump(value)
    plain = json.loads(text)
    assert json.loads(dumps(loads(text))) == plain
    for options in ({}, {"indent": 2}, {"sort_keys": True}, {"ensure_ascii": False}):
        assert dumps(plain, **options) == json.dumps(plain, **options)


def test_keys_are_written_as_python_writes_them() -> None:
    value = {True: 1, None: 2, 3: [], "4": {}, 1.5: ()}
    assert dumps(value) == json.dumps(value)


def test_copies_are_the_same() -> None:
    value = loads('{"a": [1.10]}')
    for made in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert dumps(made) == '{"a": [1.10]}'


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "{", "", "01"])
def test_what_is_not_json_is_told_as_python_tells_it(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        loads(text)


def test_what_is_nested_too_deeply_stays_text() -> None:
    deep = "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1)
    assert isinstance(loads(deep), Unparsed)
    assert dumps(loads(deep)) == deep
    assert dumps({"a": Unparsed(deep)}) == '{"a": %s}' % deep
    assert isinstance(loads("[" * DEEPEST + "]" * DEEPEST), list)
    many = "[%s]" % ", ".join(["[]"] * 1000)
    assert isinstance(loads(many), list)
    in_text = json.dumps("[" * 1000 + '\\"[')
    assert loads(in_text) == json.loads(in_text)


@pytest.mark.django_db
@pytest.mark.parametrize("text", NUMBERS)
def test_changing_one_key_leaves_the_numbers_of_the_others(text: str) -> None:
    table = factories.TableFactory(config={})
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tables SET config = jsonb_build_object('n', %s::numeric, 'a', 1)"
            " WHERE id = %s RETURNING config -> 'n'",
            [text, table.pk],
        )
        (stored,) = cursor.fetchone()
    table = Table.objects.get(pk=table.pk)
    table.config["a"] = 2
    assert table.changed_fields() == ["config"]
    table.save()
    with connection.cursor() as cursor:
        cursor.execute("SELECT config::text FROM tables WHERE id = %s", [table.pk])
        assert cursor.fetchone() == ('{"a": 2, "n": %s}' % stored,)


@pytest.mark.django_db
def test_a_change_of_a_number_that_floats_do_not_see_is_a_change() -> None:
    table = factories.TableFactory(config={"n": Number("1.10")})
    table = Table.objects.get(pk=table.pk)
    assert table.changed_fields() == []
    table.config = exactjson.loads('{"n": 1.1}')
    assert table.changed_fields() == ["config"]
    table.config = exactjson.loads('{"n": 1.10}')
    assert table.changed_fields() == []
