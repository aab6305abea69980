"""The files in tune_configs/cluster, as strictly as they can be checked without a cloud."""

import json
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from hosts import BIN, Hosts, missing
from ray.autoscaler._private.util import prepare_config, validate_config

from idm_ray.commands.arguments import SWEEP_FLAGS
from idm_ray.settings.shipped import CONFIGS, config_names

ROOT = CONFIGS.parent
CLUSTER = CONFIGS / "cluster"
RAY_UP = ("aws.yaml", "gcp.yaml", "on_premise.yaml")
KUBERAY = {"rayjob.yaml": "rayjob.v1.schema.json", "raycluster.yaml": "raycluster.v1.schema.json"}
SCHEMAS = Path(os.environ.get("KUBERAY_SCHEMAS", ROOT.parent / "shared" / "reference" / "kuberay"))
PROVIDER = {
    "aws": {"type", "region", "cache_stopped_nodes"},
    "gcp": {"type", "region", "availability_zone", "project_id"},
    "local": {"type", "head_ip", "worker_ips"},
}
NODE = {
    "aws": {"InstanceType", "InstanceMarketOptions"},
    "gcp": {"machineType", "disks", "guestAccelerators", "metadata", "scheduling"},
}
"""Keys that Ray's own schema lets through, whatever they are."""


def loaded(name):
    return yaml.safe_load((CLUSTER / name).read_text())


def words_of(name):
    """Every word in a file that looks like an option, with the command before it."""
    return re.findall(r"(ray start|ray status|idm-ray sweep)\b([^\n|&>]*)", (CLUSTER / name).read_text())


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_takes_the_file(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = loaded(name)
    kind = config["provider"]["type"]
    validate_config(prepare_config(config))
    assert set(loaded(name)["provider"]) == PROVIDER[kind]
    types = loaded(name).get("available_node_types", {}).values()
    assert all(set(each["node_config"]) <= NODE[kind] for each in types)
    assert all(
        "~/.ray/auth_token" in (target, source) for target, source in list(config["file_mounts"].items())[:1]
    )


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_takes_the_file(name):
    if not SCHEMAS.is_dir():
        pytest.skip(f"no schemas of KubeRay in {SCHEMAS}; KUBERAY_SCHEMAS names their folder")
    schema = strict(json.loads((SCHEMAS / KUBERAY[name]).read_text()))
    jsonschema.validate(loaded(name), schema)
    misspelt = json.loads(json.dumps(loaded(name)).replace("minReplicas", "minReplica"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt, schema)


def strict(schema):
    """A schema that refuses keys it does not name; what has a default need not be there."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if made.get("x-kubernetes-int-or-string") is True:
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    properties = made.get("properties")
    if isinstance(properties, dict) and made.get("type") == "object":
        if not made.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
        if isinstance(made.get("required"), list):
            defaults = {
                key for key, value in properties.items() if isinstance(value, dict) and "default" in value
            }
            made["required"] = [key for key in made["required"] if key not in defaults]
    return made


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY, "slurm.sh"])
def test_every_option_exists_and_only_with_a_token(name):
    text = (CLUSTER / name).read_text()
    known = {"ray start": help_of("start"), "ray status": help_of("status"), "idm-ray sweep": sweep_options()}
    for command, words in words_of(name):
        for option in re.findall(r"(?<=\s)--[a-z-]+", words):
            assert re.search(rf"{option}\b", known[command]), f"{command} has no {option}"
    assert re.search(r"RAY_AUTH_MODE=token|mode: token|idm_ray:0.1.0", text)
    assert "0.0.0.0" not in text
    for config in re.findall(r"idm-ray sweep (\w+)", text):
        assert config in config_names()


def help_of(command):
    return subprocess.run([BIN / "ray", command, "--help"], capture_output=True, text=True, check=True).stdout


def sweep_options():
    return " ".join(f"--{flag.replace('_', '-')}" for flag in (*SWEEP_FLAGS, "name", "resume"))


def test_versions_are_those_of_the_constraints():
    ray = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    for name in KUBERAY:
        assert f'rayVersion: "{ray}"' in (CLUSTER / name).read_text()
    assert "RAY_AUTH_MODE=token" in (CLUSTER / "Containerfile").read_text()


def test_all_that_the_image_is_made_of_is_there():
    copied = re.findall(r"^COPY (.*) \S+$", (CLUSTER / "Containerfile").read_text(), re.MULTILINE)
    assert copied
    assert all((ROOT / name).exists() for names in copied for name in names.split())
    mounts = loaded("on_premise.yaml")["file_mounts"]
    assert all((ROOT / source).exists() for source in mounts.values() if not source.startswith("~"))


def test_shell_scripts_have_no_findings():
    scripts = [*CLUSTER.glob("*.sh"), *(ROOT / "scripts").glob("*.sh")]
    done = subprocess.run([BIN / "shellcheck", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do case $1 in --nodelist=*) node=${1#*=};; esac; shift; done
exec nsenter -t "$(cat FOLDER/$node.pid)" -n -m env HOME=FOLDER/home ADDRESS="$(cat FOLDER/$node.ip)" "$@"
"""


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.skipif(bool(missing()), reason=missing() or "hosts can be made")
def test_the_slurm_script_runs_a_sweep_over_the_nodes_of_a_job(tmp_path, tiny_yaml):
    """Slurm's own commands are stood in for; Ray, the script and the sweep are real."""
    hosts = Hosts(2, tmp_path / "hosts")
    try:
        commands = tmp_path / "commands"
        commands.mkdir()
        for number in hosts.numbers:
            (hosts.root / f"n{number}.pid").write_text(str(hosts.holder(number)))
            (hosts.root / f"n{number}.ip").write_text(hosts.address(number))
        stand_ins = {
            "srun": SRUN.replace("FOLDER", str(hosts.root)),
            "scontrol": "#!/bin/sh\nprintf 'n1\\nn2\\n'\n",
            "hostname": '#!/bin/sh\necho "$ADDRESS"\n',
        }
        for name, text in stand_ins.items():
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        env = {
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "BIN": str(BIN),
            "SLURM_JOB_NODELIST": "n[1-2]",
        }
        env.pop("IDM_RAY_CACHE", None)
        words = (tiny_yaml, "--name", "s", "--trials", "2", "--output-dir", tmp_path / "runs")
        done = subprocess.run(
            [CLUSTER / "slurm.sh", *map(str, words)], capture_output=True, text=True, env=env, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "cluster: 2 nodes with 2 CPUs" in done.stdout
        assert json.loads((tmp_path / "runs" / "s" / "summary.json").read_text())["n_complete"] == 2
    finally:
        hosts.down()
