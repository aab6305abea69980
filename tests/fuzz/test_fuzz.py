"""Whatever a file holds: it is what was written, or one clear line, and nothing else happens."""

import contextlib
import hashlib
import json
import shutil

import pytest
import torch
import yaml
from hostile import NUMBERS, PLAIN, WORDS, altered, damaged
from hypothesis import given
from hypothesis import strategies as st

from idm_ray.artifacts.condensed import condensed_set, load_condensed, save_condensed
from idm_ray.data import load_data, open_store
from idm_ray.data.store import StoreError
from idm_ray.errors import UserError
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.states import read_note, read_state, write_state
from idm_ray.settings.keys import all_keys
from idm_ray.settings.layers import build_config, resolve
from idm_ray.settings.reading import parse_overrides, read_yaml
from idm_ray.settings.sections import DatasetConfig
from idm_ray.sweep.conductor import as_before
from idm_ray.sweep.folders import TRIAL_FILE
from idm_ray.sweep.registry.figures import Figure
from idm_ray.sweep.registry.notes import NOTES, Name, Notes
from idm_ray.sweep.search.study import SweepStudy, stored_sweep
from idm_ray.sweep.tracking.journal import Journal

SECTIONS = sorted({key.partition(".")[0] for key in all_keys()})


@contextlib.contextmanager
def one_line():
    """It goes well, or there is one line for people."""
    try:
        yield
    except (UserError, StoreError) as error:
        line = str(error)
    else:
        return
    assert "\n" not in line
    assert len(line) < 1500


@pytest.fixture(scope="module")
def condensed(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("set")
    config = build_config({"condense": {"ipc": 2}, "dataset": {"name": "digits"}})
    data = load_data(DatasetConfig(name="digits"), 0, torch.device("cpu"), tmp_path_factory.mktemp("cache"))
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    save_condensed(folder, condensed_set(images, torch.arange(10).repeat_interleave(2), config, data, 5))
    return folder


@given(data=st.data(), name=st.sampled_from(["manifest.json", "images.safetensors", "images.parquet"]))
def test_a_condensed_set_that_is_damaged(condensed, place, data, name):
    whole = load_condensed(condensed)
    shutil.copytree(condensed, place, dirs_exist_ok=True)
    (place / name).write_bytes(data.draw(damaged((condensed / name).read_bytes())))
    with one_line():
        found = load_condensed(place)
        assert torch.equal(found.images, whole.images)
        assert torch.equal(found.labels, whole.labels)


@given(data=st.data())
def test_a_condensed_set_with_another_manifest(condensed, place, data):
    shutil.copytree(condensed, place, dirs_exist_ok=True)
    manifest = data.draw(altered(json.loads((condensed / "manifest.json").read_text())))
    (place / "manifest.json").write_text(json.dumps(manifest))
    with one_line():
        found = load_condensed(place)
        assert found.images.isfinite().all()
        assert len(found.mean) == len(found.std) == found.images.shape[1]
        assert all(value > 0 for value in found.std)
        assert int(found.labels.max()) < len(found.class_names)


@given(data=st.data())
def test_a_condensed_set_whose_tensors_are_signed_anew(condensed, place, data):
    shutil.copytree(condensed, place, dirs_exist_ok=True)
    content = (condensed / "images.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = data.draw(altered(json.loads(content[8 : 8 + length])))
    text = json.dumps(header).encode()
    forged = len(text).to_bytes(8, "little") + text + content[8 + length :]
    (place / "images.safetensors").write_bytes(forged)
    manifest = json.loads((condensed / "manifest.json").read_text())
    before = hashlib.sha256(content).hexdigest()
    plain = json.dumps(manifest).replace(before, hashlib.sha256(forged).hexdigest())
    (place / "manifest.json").write_text(plain)
    with one_line():
        assert load_condensed(place).images.isfinite().all()


@given(
    content=st.one_of(
        st.binary(max_size=200), damaged(b"condense:\n  ipc: 1\n  lr: [1, *a, &a {b: c}]\nsearch: {}\n")
    )
)
def test_a_config_that_is_no_yaml(place, content):
    (place / "config.yaml").write_bytes(content)
    with one_line():
        resolve(("config", read_yaml(place / "config.yaml")))


NAMES = [key.rpartition(".")[2] for key in all_keys()]
SECTION = st.one_of(PLAIN, st.dictionaries(st.sampled_from(NAMES), PLAIN, max_size=4))


@given(raw=st.dictionaries(st.one_of(st.sampled_from([*SECTIONS, "seed"]), WORDS), SECTION, max_size=4))
def test_a_config_that_says_anything(place, raw):
    (place / "config.yaml").write_text(yaml.safe_dump(raw))
    with one_line():
        resolve(("config", read_yaml(place / "config.yaml")))


@given(key=st.sampled_from(all_keys()), value=st.one_of(PLAIN, NUMBERS))
def test_a_setting_of_any_value(key, value):
    with one_line():
        resolve(("command line", parse_overrides([f"{key}={json.dumps(value)}"])))


@given(key=st.sampled_from(all_keys()), text=st.text(max_size=40))
def test_a_setting_of_any_text(key, text):
    with one_line():
        resolve(("command line", parse_overrides([f"{key}={text}"])))


@given(
    domain=st.one_of(
        PLAIN, st.dictionaries(st.sampled_from(["choice", "uniform", "loguniform", "int", "logint"]), PLAIN)
    )
)
def test_a_search_over_anything(domain):
    with one_line():
        resolve(("command line", {"search": {"condense.lambda_reg": domain}}))


@given(data=st.data())
def test_a_checkpoint_that_is_damaged(place, data):
    state = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.int64)}
    path = place / "state.safetensors"
    write_state(path, state, "ours", "a note")
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with one_line():
        read_note(path)
    with one_line():
        found = read_state(path, "ours")
        assert found is not None
        assert found[1] == "a note"
        assert all(torch.equal(found[0][key], state[key]) for key in state)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    cache = tmp_path_factory.mktemp("store")
    load_data(DatasetConfig(name="digits"), 0, torch.device("cpu"), cache)
    return next(path for path in cache.iterdir() if path.name.startswith("digits-"))


@given(data=st.data())
def test_a_store_that_is_damaged(built, place, data):
    shutil.copytree(built, place, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(sorted(path.name for path in built.iterdir())))
    (place / name).write_bytes(data.draw(damaged((built / name).read_bytes())))
    with one_line():
        found = open_store(place, verify=True)
        assert torch.equal(found.train.images, open_store(built).train.images)


@given(data=st.data())
def test_a_store_whose_index_is_signed_anew(built, place, data):
    from idm_ray.data.build import manifest_digest

    shutil.copytree(built, place, dirs_exist_ok=True)
    manifest = data.draw(altered(json.loads((built / "store.json").read_text())))
    if isinstance(manifest, dict):
        with contextlib.suppress(KeyError, TypeError):
            manifest["digest"] = manifest_digest(manifest)
    (place / "store.json").write_text(json.dumps(manifest))
    with one_line():
        found = open_store(place, verify=True)
        assert found.train.images[-1].shape == tuple(found.shape)


@given(data=st.data())
def test_a_trial_whose_settings_are_damaged(place, data):
    config = build_config({})
    text = yaml.safe_dump(config.to_raw())
    if data.draw(st.booleans()):
        content = data.draw(damaged(text.encode()))
    else:
        content = yaml.safe_dump(data.draw(altered(config.to_raw()))).encode()
    (place / TRIAL_FILE).write_bytes(content)
    with one_line():
        as_before(place, config)


@given(data=st.data())
def test_records_for_mlflow_that_are_damaged(place, data):
    for file in place.iterdir():
        file.unlink()
    sent = []
    lines = b"".join(json.dumps({"op": "start", "trial": number}).encode() + b"\n" for number in range(4))
    (place / "tracking.jsonl").write_bytes(data.draw(damaged(lines)))
    (place / "tracking.offset").write_bytes(data.draw(damaged(b"2")))
    journal = Journal(place / "tracking.jsonl", sent.append)
    journal.start()
    assert journal.close(5.0) == 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "study.db"
    config = build_config({"search": {"condense.lambda_reg": {"uniform": [1, 2]}}})
    made = SweepStudy(config, file)
    made.set_attribute("config", config.to_raw())
    made.ask()
    return file


@given(data=st.data())
def test_a_study_that_is_damaged(study, place, data):
    (place / "study.db").write_bytes(data.draw(damaged(study.read_bytes())))
    with one_line():
        stored_sweep(place / "study.db")


@given(data=st.data(), kind=st.sampled_from(["figures", "names"]))
def test_a_note_about_a_set_that_is_damaged(place, data, kind):
    figure = Figure(
        set_id="a" * 64, place="one/0", measure="accuracy", split="test", net="convnet", mean=50.0, nets=1, epochs=3,
        settings={"seed": 0}, data_checksum="0" * 64, by="a test",
    )  # fmt: skip
    name = Name(set_id="a" * 64, place="one/0", at=1.0)
    notes = {"figures": figure.model_dump_json(), "names": name.model_dump_json()}
    for each, text in notes.items():
        write_bytes(place / NOTES / each / "champion.json", text.encode())
    plain = json.loads(notes[kind])
    changed = st.one_of(damaged(notes[kind].encode()), altered(plain).map(json.dumps).map(str.encode))
    write_bytes(place / NOTES / kind / "champion.json", data.draw(changed))
    for found, problems in (Notes(place).figures(), Notes(place).names()):
        assert len(found) + len(problems) == 1
