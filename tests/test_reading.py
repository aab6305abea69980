"""Pages hold: commands parse, settings and files exist, links lead somewhere, examples compile."""

import ast
import importlib
import importlib.util
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich_click as click
import yaml

import idm_ray
from idm_ray.bench.options import resolve as resolve_bench
from idm_ray.commands.arguments import SWEEP_FLAGS, command_line_layer, config_layer, split
from idm_ray.commands.main import group
from idm_ray.commands.sweep import settings_of, settle
from idm_ray.paper.experiments import experiment_named
from idm_ray.paper.request import Request
from idm_ray.settings.keys import all_keys, setting_keys
from idm_ray.settings.layers import build_config
from idm_ray.settings.presets import NETS
from idm_ray.settings.reference import find_settings
from idm_ray.settings.sections import Config
from idm_ray.settings.shipped import config_files, find_config

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
HEADERS = config_files()

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`")
PROGRAM = re.compile(r"^(?:idm-ray|python -m idm_ray|python scripts/(?P<script>\w+)\.py)(?: |$)")
END = {"|", ">", "&&", ";"}
READERS_OWN = {"mine.yaml": "own_images"}
"""Files that a page tells to make, and the config that they are made from."""
ELSEWHERE = {"ddranking", "datasets"}
"""Packages that an example of another program's use imports."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *kinds: str) -> list[str]:
    return [textwrap.dedent(body) for _, kind, body in FENCE.findall(text_of(page)) if kind in kinds]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", text_of(page))


def inline(page: Path) -> list[str]:
    return INLINE.findall(prose(page))


def shell_lines(page: Path) -> Iterator[str]:
    for block in blocks(page, "bash", "console", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")


def words_of(line: str) -> list[str]:
    """The words of ``idm-ray``'s arguments in a line of a shell; none when it is another program's."""
    match = PROGRAM.match(line)
    if not match:
        return []
    words = shlex.split(line[match.end() :], comments=True)
    words = words[: next((place for place, word in enumerate(words) if word in END), len(words))]
    return [match["script"], *words] if match["script"] else words


def commands() -> Iterator[tuple[str, str]]:
    """Where a command stands, and the command."""
    for page in PAGES:
        yield from ((name_of(page), line) for line in shell_lines(page) if PROGRAM.match(line))
    for header in HEADERS:
        lines = (line.removeprefix("#").strip() for line in text_of(header).splitlines() if line[:1] == "#")
        yield from ((name_of(header), re.split(r"\s{2,}", line)[0]) for line in lines if PROGRAM.match(line))
    for name in group.list_commands(click.Context(group)):
        lines = (line.strip() for line in (command_named(name).help or "").splitlines())
        yield from ((f"{name} --help", re.split(r"\s{2,}", line)[0]) for line in lines if PROGRAM.match(line))


def command_named(name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None, f"there is no command {name}"
    return command


def is_left_open(word: str) -> bool:
    """``condense.ipc=...``"""
    return word.endswith("=...") and word.removesuffix("=...") in all_keys()


COMMANDS = sorted({line for _, line in commands()})
PLACES = {line: place for place, line in commands()}


SETTLED_ELSEWHERE = {"words", "dry_run", "calibrate"}


def check(name: str, given: dict) -> None:
    """Whether the settings, configs and names of a command exist; its options have been parsed."""
    if name == "sweep" and given["resume"]:
        assert all("=" in word and word.startswith(("sweep.", "compute.")) for word in given["words"])
    elif name == "sweep":
        settle(given["words"], {key: given[key] for key in given if key not in SETTLED_ELSEWHERE})
    elif name == "doctor":
        settings_of(given["words"], {key: given[key] for key in SWEEP_FLAGS})
    elif name in ("condense", "continual"):
        config, overrides = split(given["words"])
        build_config(config_layer(config), command_line_layer(overrides, {}, None), {"search": {}})
    elif name == "evaluate":
        build_config(command_line_layer(given["overrides"], {}, given["seed"]))
        assert set((given["nets"] or "convnet").split(",")) <= set(NETS)
    elif name == "reproduce" and given["experiment"] != "LIST":
        flags = {flag: given[flag] for flag in SWEEP_FLAGS if flag in given}
        layer = command_line_layer(given["overrides"], flags, None)
        experiment = experiment_named(given["experiment"])
        Request(experiment, given["dataset"], given["ipc"], given["scale"], layer).configs()
    elif name == "bench":
        resolve_bench(given)
    elif name == "settings":
        find_settings(given["name"])
    elif name == "configs" and given["name"]:
        find_config(given["name"])


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """Where a reader stands, with the files that pages tell to make."""
    for file, config in READERS_OWN.items():
        (tmp_path / file).write_bytes(find_config(config).read_bytes())
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("readers_folder")
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_names_real_options_configs_and_settings(line, monkeypatch):
    monkeypatch.setattr("idm_ray.sweep.keeping.books.bring_books", lambda *_: None)  # there is no such bucket
    name, *words = [word for word in words_of(line) if not is_left_open(word)]
    command = command_named(name)
    if "--help" not in words:
        try:
            given = command.make_context(name, words).params
        except click.ClickException as error:
            pytest.fail(f"{PLACES[line]}: {error.format_message()}")
        check(name, given)


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 80
    named = {words_of(line)[0] for line in COMMANDS}
    assert named == set(group.list_commands(click.Context(group)))
    assert "python scripts/sweep.py" in text_of(README)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_a_sentence_exist_and_have_the_options_beside_them(page):
    for code in filter(PROGRAM.match, inline(page)):
        name, *words = words_of(code) or ["sweep"]
        if name.isupper() or name.startswith("-"):  # COMMAND
            continue
        options = {option for each in command_named(name).params for option in each.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_knows_the_targets(page):
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    lines = [*shell_lines(page), *inline(page)]
    assert {line.split()[1] for line in lines if re.match(r"make \w", line)} <= targets


def test_readme_names_the_two_commands_that_set_everything_up():
    assert {"make sweep", "make test"} <= {line.partition("#")[0].strip() for line in shell_lines(README)}


def test_readme_is_read_in_minutes():
    assert len(text_of(README).splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_that_are_named_exist(page):
    for code in inline(page):
        key = code.partition("=")[0].removesuffix(":")
        section, _, name = key.partition(".")
        if key.startswith("search.") and name not in ("KEY", "NAME"):
            assert name in setting_keys(), code
        elif section in Config.model_fields and re.fullmatch(r"[a-z_]+", name):
            assert key in all_keys() or name in ("yaml", "md", "json"), code


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", prose(target), re.MULTILINE)), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    place = re.compile(r"(?:idm_ray|scripts|tune_configs|tests|docs|examples|\.ci|\.venv)/[\w/.-]*")
    for code in inline(page):
        if place.fullmatch(code) and not code.startswith(".venv"):
            assert (ROOT / code).exists(), code
    for line in shell_lines(page):
        for script in re.findall(r"^python ([\w/]+\.py)", line):
            assert (ROOT / script).exists(), line


EXAMPLES = [
    pytest.param(block, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_compiles_and_imports_what_exists(example):
    tree = ast.parse(example)
    compile(tree, "example", "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert_exists(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert_exists(node.module, alias.name)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "idm_ray"
        ):
            assert node.attr in idm_ray.__all__


def assert_exists(module: str, name: str | None = None) -> None:
    package = module.partition(".")[0]
    if package in ELSEWHERE and importlib.util.find_spec(package) is None:
        return
    found = importlib.import_module(module)
    if name is not None and not hasattr(found, name):
        importlib.import_module(f"{module}.{name}")


def documented() -> Iterator[tuple[str, str]]:
    """Every page of the API with a name that it asks for."""
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        for name, options in re.findall(r"^::: ([\w.]+)\n((?:    .*\n)*)", text_of(page), re.MULTILINE):
            yield page.name, name
            given = (yaml.safe_load(options) or {}).get("options", {})
            yield from ((page.name, f"{name}.{member}") for member in given.get("members", ()))


@pytest.mark.parametrize(("page", "name"), list(documented()))
def test_a_name_of_the_api_exists(page, name):
    parts = name.split(".")
    files = ((ROOT.joinpath(*parts[:count]), parts[count:]) for count in range(len(parts), 0, -1))
    file, rest = next(
        (source, rest)
        for path, rest in files
        for source in (path.with_suffix(".py"), path / "__init__.py")
        if source.exists()
    )
    body = ast.parse(text_of(file)).body
    for each in rest:
        found = next((node for node in body if each in names_of(node)), None)
        assert found is not None, f"{name_of(file)} has no {each}"
        body = getattr(found, "body", [])


def names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}
