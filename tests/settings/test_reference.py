"""The page on settings and the schema are those of the code, and every config that comes along fits them."""

import json
import re

import pytest
from jsonschema import Draft202012Validator

from idm_ray.settings.keys import all_keys, searchable_keys
from idm_ray.settings.reading import read_yaml
from idm_ray.settings.reference import as_markdown, as_schema, settings
from idm_ray.settings.sections import Config
from idm_ray.settings.shipped import CONFIGS, SCHEMA, config_files

PAGE = CONFIGS.parent / "docs" / "settings.md"
FILES = config_files()
ALL = [setting for _, _, rows in settings() for setting in rows]


@pytest.fixture(scope="module")
def schema():
    return json.loads((CONFIGS / SCHEMA).read_text(encoding="utf-8"))


def problems(schema, config):
    return [error.message for error in Draft202012Validator(schema).iter_errors(config)]


def name(path):
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


def test_the_page_is_what_the_command_prints():
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), (
        "python -m idm_ray settings --markdown > docs/settings.md"
    )


def test_the_schema_is_what_the_command_prints(schema):
    Draft202012Validator.check_schema(schema)
    assert schema == json.loads(json.dumps(as_schema())), (
        "python -m idm_ray settings --schema > tune_configs/schema.json"
    )


def test_the_page_has_every_setting_under_its_section():
    text = PAGE.read_text(encoding="utf-8")
    sections = dict(
        zip(re.findall(r"^## (\w+)$", text, re.M), re.split(r"^## \w+$", text, flags=re.M)[1:], strict=True)
    )
    assert list(sections) == list(Config.model_fields)
    for key in (*all_keys(), "search"):
        assert f"| `{key}`" in sections[key.partition(".")[0]]


def test_the_page_marks_what_can_be_searched():
    marked = re.findall(r"^\| `([\w.]+)`\* ", PAGE.read_text(encoding="utf-8"), re.M)
    assert marked == list(searchable_keys())


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.key)
def test_every_setting_has_a_meaning(setting):
    assert len(setting.meaning.split()) > 1
    assert setting.kind
    assert "<class" not in setting.kind
    assert setting.default
    assert "[" not in setting.kind  # no types of Python


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_config_names_the_schema_in_its_first_line_and_fits_it(path, schema):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named, first
    assert (path.parent / named[1]).resolve() == (CONFIGS / SCHEMA).resolve()
    assert not problems(schema, read_yaml(path))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"condense": {"lrr": 1}}, "'lrr' was unexpected"),
        ({"condensed": {}}, "'condensed' was unexpected"),
        ({"condense": {"ipc": 0}}, "0 is less than the minimum"),
        ({"condense": {"method": "magic"}}, "'magic' is not one of"),
        ({"search": {"dataset.root": {"choice": ["a"]}}}, "'dataset.root' was unexpected"),
        ({"search": {"condense.lr": {"normal": [0, 1]}}}, "not valid under any"),
        ({"search": {"condense.lr": {"uniform": [0, 1], "choice": [1]}}}, "not valid under any"),
    ],
)
def test_the_schema_refuses_what_a_config_may_not_say(schema, config, words):
    assert any(words in problem for problem in problems(schema, config))


def test_the_schema_allows_an_entry_of_the_search_to_be_left_out(schema):
    assert not problems(schema, {"search": {"condense.lr": None}})
