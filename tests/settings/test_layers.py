import re
from pathlib import Path

import pytest

import idm_ray
from idm_ray.errors import UserError
from idm_ray.settings.keys import setting_keys
from idm_ray.settings.layers import build_config, with_point
from idm_ray.settings.presets import DSA, METHOD_PRESETS, PRESETS
from idm_ray.settings.reading import parse_overrides, read_yaml
from idm_ray.settings.sections import NetConfig, SweepConfig
from idm_ray.settings.shipped import CONFIGS

PACKAGE = Path(idm_ray.__file__).parent
FILES = sorted((*CONFIGS.glob("*.yaml"), *CONFIGS.glob("authors/*.yaml")))


def build(*overrides, file=None):
    return build_config(("file.yaml", file or {}), ("command line", parse_overrides(overrides)))


def refused(*overrides, file=None):
    with pytest.raises(UserError) as caught:
        build(*overrides, file=file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_config_loads_and_its_header_gives_its_command(path):
    build_config((str(path), read_yaml(path)))
    head = path.read_text().partition("\n\n")[0]
    assert head.startswith("# yaml-language-server: $schema=")
    command = "condense" if path.parent.name == "authors" else "sweep"
    name = path.relative_to(CONFIGS).with_suffix("").as_posix()
    assert f"#   idm-ray {command} {name}" in head


def test_later_layers_win():
    config = build("condense.lr=0.3", file={"condense": {"lr": 0.2, "ipc": 7}})
    assert (config.condense.lr, config.condense.ipc, config.condense.iterations) == (0.3, 7, 20_000)


def test_a_preset_overrides_what_came_before_and_not_what_stands_beside_it():
    file = {"condense": {"preset": "official", "lambda_reg": 7.0, "ipc": 3}}
    assert build(file=file).condense.lambda_reg == 7.0
    paper = build("condense.preset=paper", "condense.lr=0.9", file=file).condense
    assert (paper.lambda_reg, paper.lr, paper.ipc, paper.stepping) == (0.5, 0.9, 3, "joint")


def test_a_method_brings_its_first_preset():
    config = build("condense.method=dm", "search={}", file={"condense": {"lambda_reg": 5, "partition": 3}})
    assert config.condense.preset == "dm"
    assert (config.condense.lambda_reg, config.condense.partition, config.queue.train_steps) == (0, 1, 0)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_set_known_settings_to_valid_values(name):
    config = build(f"condense.preset={name}", "dataset.name=cifar10", "search={}")
    for section, values in PRESETS[name].items():
        for key, value in values.items():
            assert config.get(f"{section}.{key}") == value
    assert name in METHOD_PRESETS[config.condense.method]


def test_the_defaults_are_the_official_preset():
    assert build("condense.preset=official") == build()


FLIPLESS = "color_crop_cutout_scale_rotate"


@pytest.mark.parametrize("name", ["digits", "mnist", "svhn"])
def test_digits_are_not_mirrored_unless_that_is_asked_for(name):
    given = build(f"dataset.name={name}", "condense.preset=official")
    assert (given.condense.augment, given.evaluate.augment) == (FLIPLESS, FLIPLESS)
    asked = build(f"dataset.name={name}", f"condense.augment={DSA}")
    assert (asked.condense.augment, asked.evaluate.augment) == (DSA, FLIPLESS)
    assert build_config(("again", asked.to_raw())) == asked
    assert build(f"dataset.name={name}", "condense.method=dc").condense.augment == "none"
    assert with_point(given, {"condense.method": "dsa"}).condense.augment == FLIPLESS


def test_other_images_are_mirrored_also_where_a_config_for_digits_is_gone_on_from():
    config = build_config({"dataset": {"name": "mnist"}}, {"dataset": {"name": "fashion_mnist"}})
    assert (config.condense.augment, config.evaluate.augment) == (DSA, DSA)


def test_a_config_survives_being_written_and_read():
    config = build("condense.preset=paper")
    assert build_config(("again", config.to_raw())) == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("condense.lamda_reg=1", ["command line: condense.lamda_reg", "did you mean condense.lambda_reg?"]),
        ("lambda_reg=1", ["lambda_reg", "did you mean condense.lambda_reg?"]),
        ("sweep.trails=1", ["did you mean sweep.trials?"]),
        ("condense.ipc=0", ["condense.ipc", "greater than or equal to 1", "0"]),
        ("condense.ipc=1.5", ["condense.ipc", "integer", "1.5"]),
        (
            "sweep.shards=zero",
            ["command line: sweep.shards must be a whole number at least 1 or auto; got 'zero'"],
        ),
        ("compute.chunk=0", ["compute.chunk must be a whole number at least 1 or auto; got 0"]),
        (
            "sweep.gpus_per_trial=many",
            ["sweep.gpus_per_trial must be a number at least 0 or auto; got 'many'"],
        ),
        ("cafe.layer_weights=[a]", ["cafe.layer_weights.0", "number", "'a'"]),
        ("condense=3", ["condense", "3"]),
        ("condense.preset=fast", ["condense.preset", "official", "fast"]),
        ("condense.preset=[paper]", ["condense.preset", "paper"]),
        ("condense.method=[idm]", ["condense.method", "idm"]),
        ("condense.method=magic", ["condense.method", "idm", "magic"]),
        ("condense=null", ["condense", "None"]),
        ("condense.lr.low=1", ["condense.lr", "low"]),
        ("seed=-1", ["seed", "-1"]),
        ("=1", ["key=value"]),
        ("compute.device=tpu", ["compute.device", "cuda", "tpu"]),
        ("queue.source=[]", ["queue.source", "pretrained", "[]"]),
        ("evaluate.references=[best]", ["evaluate.references", "whole", "best"]),
        ("search.condense.lr=3", ["command line: search.condense.lr", "uniform", "3"]),
        ("search.queue.train_steps={int: [1, 5, 0]}", ["command line: search.queue.train_steps", "step"]),
        ("search.condense.lr={uniform: [low, high]}", ["uniform", "low"]),
        ("search.condense.init={choice: []}", ["choice", "at least 1"]),
        ("condense.augment=blur", ["rotate", "blur"]),
        ("search.condense.lr={normal: [0, 1]}", ["search.condense.lr", "loguniform", "normal"]),
        ("search.condense.lr={uniform: [2, 1]}", ["lower bound"]),
        ("search.condense.lr={loguniform: [0, 1]}", ["above 0"]),
        ("search.condense.lr={uniform: [0, 1]}", ["search.condense.lr may suggest 0.0"]),
        ("search.condense.init={choice: [real, magic]}", ["may suggest 'magic'"]),
        ("search.queue.train_steps={uniform: [1, 5]}", ["search.queue.train_steps", "integer"]),
        ("search.sweep.trials={choice: [1]}", ["not a setting of a trial"]),
        ("search.queue=null", ["command line: search.queue is not a setting of a trial"]),
        ("search.queue.max_net=null", ["did you mean queue.max_nets?"]),
        ("search=3", ["search"]),
        ("novalue", ["key=value", "novalue"]),
        ("condense.lr=[", ["YAML"]),
    ],
)
def test_bad_settings_are_told_in_one_line(override, words):
    line = refused(override, "search.queue.max_nets=null") if "max_nets" in override else refused(override)
    for word in words:
        assert word in line


def test_the_file_of_a_bad_setting_is_named():
    assert refused(file={"queue": {"max_net": 1}}).startswith("file.yaml: queue.max_net is not a setting")


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("2.5e+2", 250.0), ("0.5", 0.5), ("3", 3)])
def test_numbers_are_read_as_people_write_them(text, value):
    assert build(f"condense.lr={text}").condense.lr == value


def test_on_and_off_are_words_and_true_is_not():
    assert build("compute.compile=on", "evaluate.expand=false").compute.compile == "on"


def test_a_search_entry_is_added_or_removed():
    config = build("search.condense.lr={uniform: [0.1, 1]}", "search.condense.partition=null")
    assert "condense.lr" in config.search
    assert "condense.partition" not in config.search
    assert "condense.lambda_reg" in config.search


def test_a_point_settles_what_was_searched():
    config = with_point(build(), {"condense.partition": 3, "seed": 4, "condense.preset": "paper"})
    assert (config.condense.partition, config.seed, config.search) == (3, 4, {})
    assert config.condense.stepping == "joint"


@pytest.mark.parametrize("key", [*setting_keys(), *(f"sweep.{name}" for name in SweepConfig.model_fields)])
def test_every_setting_is_read_somewhere(key):
    if key in ("condense.method", "condense.preset"):
        return  # they are read as layers: see the tests of presets above
    name = key.rpartition(".")[2]
    sources = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "settings"]
    assert any(re.search(rf"\.{name}\b", path.read_text()) for path in sources)


@pytest.mark.parametrize("content", ["- a list", "key: [", "\x00"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path, content):
    (tmp_path / "file.yaml").write_text(content)
    with pytest.raises(UserError, match=re.escape("file.yaml")):
        read_yaml(tmp_path / "file.yaml")


def test_naming_the_method_that_is_set_already_changes_nothing():
    tuned = build(file={"condense": {"method": "idm", "lambda_reg": 5, "lr": 0.7}})
    assert with_point(tuned, {"condense.method": "idm"}).condense == tuned.condense
    other = with_point(tuned, {"condense.method": "dsa"})
    assert (other.condense.lr, other.condense.partition, other.queue.momentum) == (0.1, 1, 0)
    assert with_point(other, {"condense.method": "idm"}).queue.momentum == 0.9


def test_without_a_search_section_only_what_the_method_reads_is_searched():
    assert "condense.partition" in build().search
    assert set(build("condense.method=dm").search) == {"queue.max_nets"}
    assert build("condense.method=herding").search == {}


def test_searched_methods_may_be_searched_with_what_only_some_of_them_read():
    config = build("search={condense.method: {choice: [dm, idm, dc]}, condense.partition: {choice: [1, 2]},"
                   " gradient.inner: {choice: [1, 5]}}")  # fmt: skip
    assert config.methods == ("dm", "idm", "dc")
    with pytest.raises(UserError, match=r"gradient.inner has no effect on method dm or idm"):
        build("search={condense.method: {choice: [dm, idm]}, gradient.inner: {choice: [1, 5]}}")
    with pytest.raises(UserError, match=r"search.condense.method may suggest 'ddd'"):
        build("search={condense.method: {choice: [dm, ddd]}}")


def test_another_net_does_not_keep_the_settings_of_the_one_before():
    file = ("file", {"net": {"width": 64, "depth": 2}})
    other = build_config(file, ("line", parse_overrides(["net.name=alexnet"])))
    assert other.net == NetConfig(name="alexnet")
    same = build_config(file, ("line", parse_overrides(["net.name=convnet", "net.norm=batch"])))
    assert same.net == NetConfig(width=64, depth=2, norm="batch")
    searched = build_config(file, ("line", parse_overrides(["search={net.name: {choice: [convnet, mlp]}}"])))
    assert with_point(searched, {"net.name": "mlp"}).net == NetConfig(name="mlp")
    assert with_point(searched, {"net.name": "convnet"}).net == NetConfig(width=64, depth=2)


def test_a_point_of_another_net_begins_as_published_and_the_configs_own_net_as_it_is_set():
    file = {"net": {"name": "mlp", "width": 64, "depth": 1}}
    config = build("search.net.name={choice: [mlp, convnet]}", file=file)
    mlp, convnet = (with_point(config, {"net.name": name}).net for name in ("mlp", "convnet"))
    assert (mlp.width, mlp.depth, convnet.width, convnet.depth) == (64, 1, None, None)


def test_a_config_as_it_is_kept_is_read_as_it_was():
    config = build("search.net.name={choice: [mlp, convnet]}", file={"net": {"name": "mlp", "width": 64}})
    assert build_config(("kept", config.to_raw())) == config


def test_a_config_that_was_kept_before_there_were_some_settings_is_read_as_it_was():
    config = build_config(("search", {"search": {"condense.lambda_reg": {"choice": [1, 2]}}}))
    raw = config.to_raw()
    for section, name in (("condense", "easiest"), ("condense", "regularise"), ("compute", "deterministic")):
        del raw[section][name]
    assert build_config(("kept", raw)) == config


def test_a_config_that_was_kept_before_there_were_some_sections_is_read_as_it_was():
    config = build_config(("search", {"search": {"condense.lambda_reg": {"choice": [1, 2]}}}))
    raw = config.to_raw()
    for section in ("teacher", "unroll", "trajectory", "kernel"):
        del raw[section]
    for section, name in (
        ("condense", "labels"),
        ("gradient", "distance"),
        ("select", "crops"),
        ("select", "candidates"),
    ):
        del raw[section][name]
    assert build_config(("kept", raw)) == config


def test_what_teachers_are_trained_by_can_be_searched_where_labels_are_soft():
    search = {"queue.lr": {"choice": [0.01, 0.1]}, "teacher.epochs": {"choice": [1, 2]}}
    soft = {"condense": {"method": "random", "labels": "soft"}, "search": search}
    assert set(build_config(("soft", soft)).search) == set(search)
    hard = {"condense": {"method": "random"}, "search": {"queue.lr": search["queue.lr"]}}
    with pytest.raises(UserError, match="no effect on method random"):
        build_config(("hard", hard))
    learnt = {"condense": {"method": "ld"}, "search": {"teacher.epochs": search["teacher.epochs"]}}
    with pytest.raises(UserError, match=r"teacher\.epochs: condense\.labels learned does not read that"):
        build_config(("learnt", learnt))


@pytest.mark.parametrize(
    ("methods", "key", "values"),
    [
        (["idm", "rded"], "teacher.epochs", [1, 2]),
        (["dd", "kip"], "condense.momentum", [0.5, 0.9]),
        (["mtt", "kip"], "condense.momentum", [0.5, 0.9]),
    ],
)
def test_what_one_of_the_searched_methods_reads_can_be_searched(methods, key, values):
    search = {"condense.method": {"choice": methods}, key: {"choice": values}}
    assert key in build_config(("both", {"search": search})).search


def test_an_empty_section_is_none():
    assert build("dataset.name=cifar10", file={"dataset": None}).dataset.name == "cifar10"


def test_a_source_of_nets_says_all_of_a_queue_that_there_is_to_say():
    fresh = build_config({"queue": {"source": "fresh", "initial": 7}}).queue
    assert (fresh.initial, fresh.push_every, fresh.max_nets, fresh.train_steps) == (0, 1, 1, 0)
    point = {"queue.source": "fresh"}
    config = build_config({"search": {"queue.source": {"choice": ["queue", "fresh"]}}})
    assert with_point(config, point).queue == fresh
    assert with_point(config, {"queue.source": "queue"}).queue == config.queue
    with pytest.raises(UserError, match=r"queue\.pretrain_epochs must be at least 1 .* got 0; set it"):
        build_config({"queue": {"source": "pretrained"}})
    kept = build_config({"queue": {"source": "pretrained", "pretrain_epochs": 2, "max_nets": 4}}).queue
    assert (kept.initial, kept.train_steps, kept.pretrain_epochs) == (3, 0, 2)
    with pytest.raises(UserError, match=r"queue\.train_steps: queue\.source fresh does not read that"):
        build_config({"queue": {"source": "fresh"}, "search": {"queue.train_steps": {"choice": [1, 2]}}})


@pytest.mark.parametrize("preset", ["ncfm", "ncfm_sampled", "dance", "m3d", "iid", "dsdm", "datadam"])
def test_a_peer_is_put_together_by_its_preset_and_taken_back_by_another(preset):
    peer = build_config({"condense": {"preset": preset}})
    assert peer.condense.loss != "mean" or preset == "dance"
    back = build_config({"condense": {"preset": preset}}, {"condense": {"preset": "official"}})
    assert back == build_config({"condense": {"preset": "official"}})


@pytest.mark.parametrize(
    ("settings", "search"),
    [
        ({}, {"condense.preset": ["official", "ncfm"], "evaluate.momentum": [0.5, 0.9]}),
        ({"evaluate": {"optimizer": "adamw"}}, {"evaluate.preset": ["idm"], "evaluate.momentum": [0.5, 0.9]}),
        ({"condense": {"method": "dc", "optimizer": "adamw"}}, {"condense.momentum": [0.5, 0.9]}),
        (
            {"condense": {"optimizer": "adamw"}},
            {"condense.method": ["idm", "dm"], "condense.momentum": [0.5, 0.9]},
        ),
        ({}, {"condense.preset": ["official", "ncfm"], "condense.weight_decay": [0.1, 0.2]}),
    ],
)
def test_what_some_point_reads_can_be_searched(settings, search):
    build_config({**settings, "search": {key: {"choice": values} for key, values in search.items()}})


@pytest.mark.parametrize(
    ("settings", "search", "words"),
    [
        ({}, {"evaluate.preset": ["ncfm"], "evaluate.momentum": [0.5, 0.9]}, "evaluate.optimizer adamw"),
        ({"condense": {"optimizer": "adamw"}}, {"condense.method": ["dm"], "condense.weight_decay": [0.1, 0.2]},
         "condense.optimizer sgd"),
        ({}, {"condense.preset": ["official", "iid"], "condense.weight_decay": [0.1, 0.2]}, "condense.optimizer sgd"),
    ],
)  # fmt: skip
def test_what_no_point_reads_cannot_be_searched(settings, search, words):
    with pytest.raises(UserError, match=f"{words} does not read that"):
        build_config({**settings, "search": {key: {"choice": values} for key, values in search.items()}})
