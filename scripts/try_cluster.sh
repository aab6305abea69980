#!/usr/bin/env bash
# A cluster on one machine, to see one at work: four hosts with an address, a home and a /tmp/ray each, that share no folder; the
# sweep of tune_configs/imagenet_subset.yaml over them, on 10 generated classes at 64 pixels, its trials and real sides several
# processes each; the host of a real side is lost on the way. Linux, as root, with iproute2 and util-linux; a few minutes on 2
# cores.
#   scripts/try_cluster.sh OUT [key=value ...]
# OUT gets the images, and what the first host has at the end: runs/flagship with all sets and the report. PYTHON names another
# interpreter.
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
ray=$(dirname "$python")/ray
work=$(mktemp -d) mark=$$ lost=3
home=$work/home
images=$out/images
mkdir -p "$home" "$work/out" "$images" /tmp/ray
declare -A holder

# shellcheck disable=SC2329 # called by a trap
down() { # ends what this script has started, and nothing else
    trap - EXIT INT TERM
    for number in "${!holder[@]}"; do
        lose "$number"
        kill "${holder[$number]}" 2>/dev/null || true
        ip netns del "h$number-$mark" 2>/dev/null || true
    done
    ip netns del "switch-$mark" 2>/dev/null || true
    rm -rf "$work"
}
trap down EXIT
trap 'exit 130' INT TERM

host() { # NUMBER: a host with an address on a switch, and folders of its own
    local number=$1 name=h$1-$mark
    ip netns add "$name"
    ip link add "v$number$mark" netns "$name" type veth peer name "p$number$mark" netns "switch-$mark"
    ip -n "switch-$mark" link set "p$number$mark" master br0 up
    ip -n "$name" addr add "10.79.0.$number/24" dev "v$number$mark"
    ip -n "$name" link set "v$number$mark" up
    ip -n "$name" link set lo up
    local own=("$home" "$work/out" /tmp/ray)
    [ "$number" = 1 ] || own+=("$images" "$root/idm_ray") # only the first has the images and the package
    local mounts=""
    for folder in "${own[@]}"; do mounts+="mount -t tmpfs tmpfs '$folder'; "; done
    ip netns exec "$name" unshare -m --propagation private bash -c "$mounts exec sleep infinity" &
    holder[$number]=$!
    until [ "$(nsenter -t "${holder[$number]}" -m findmnt -no FSTYPE "${own[-1]}" 2>/dev/null)" = tmpfs ]; do sleep 0.1; done
}

on() { # NUMBER COMMAND...: a command on a host
    local number=$1
    shift
    nsenter -t "${holder[$number]}" -n -m env HOME="$home" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 \
        RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 RAY_health_check_initial_delay_ms=1000 "$@"
}

lose() { # NUMBER: ends all processes of a host, as a power cut would
    local pid
    for pid in $(ip netns pids "h$1-$mark" 2>/dev/null); do
        [ "$pid" = "${holder[$1]}" ] || kill -9 "$pid" 2>/dev/null || true
    done
}

echo "== images"
"$python" - "$images" <<'PY'
import pathlib, sys
import numpy as np
from PIL import Image
generator = np.random.default_rng(0)
for part, count in (("train", 24), ("test", 6)):
    for label in range(10):
        folder = pathlib.Path(sys.argv[1], part, f"class{label}")
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 96, (64, 64, 3), dtype=np.uint8)
            pixels[label * 6 : label * 6 + 8, :, label % 3] += 150  # a band, by which the classes can be told
            Image.fromarray(pixels).save(folder / f"{number}.png")
PY

echo "== hosts"
ip netns add "switch-$mark"
ip -n "switch-$mark" link add br0 type bridge
ip -n "switch-$mark" link set br0 up
token=$(head -c 20 /dev/urandom | od -An -tx1 | tr -d ' \n')
for number in 1 2 3 4; do
    host "$number"
    on "$number" bash -c "mkdir -m 700 -p ~/.ray && umask 077 && echo $token >~/.ray/auth_token"
done
on 1 "$ray" start --head --node-ip-address=10.79.0.1 --port=6379 --num-cpus=0 --include-dashboard=false >"$out/ray.log" 2>&1
for number in 2 3 4; do
    on "$number" "$ray" start --address=10.79.0.1:6379 --node-ip-address=10.79.0.$number --num-cpus=3 >>"$out/ray.log" 2>&1
done

echo "== sweep"
settings=(dataset.name=folder "dataset.root=$images" dataset.subset=null dataset.image_size=64 dataset.validation=0.2
    net.width=8 net.depth=4 condense.ipc=2 condense.iterations=24 condense.batch_real=16 compute.chunk=8 compute.precision=fp32
    queue.batch=16 queue.push_every=4 evaluate.every=8 evaluate.epochs=4 evaluate.val_epochs=2 evaluate.val_repeats=2
    evaluate.repeats=2 'evaluate.references=[random]' 'search.queue.train_steps={choice: [5]}'
    'search.queue.max_nets={choice: [10, 20]}' 'search.condense.partition={choice: [1, 2]}' sweep.trials=6 sweep.gpus_per_trial=0
    sweep.cpus_per_trial=1 sweep.real_workers=2 sweep.shards=2 sweep.prune_after=16)
on 1 "$python" -m idm_ray sweep imagenet_subset --address 10.79.0.1:6379 --name flagship --output-dir "$work/out/runs" \
    "${settings[@]}" "$@" >"$out/sweep.log" 2>&1 &
sweep=$!
steps() { nsenter -t "${holder[1]}" -m find "$work/out/runs/flagship/trials" -path '*/steps/*' 2>/dev/null | wc -l; }
until [ "$(steps)" -ge 2 ] || ! kill -0 $sweep 2>/dev/null; do sleep 0.5; done
for number in 4 3 2; do # the one with a real side is the worst to lose
    if ip netns pids "h$number-$mark" | xargs -rI{} cat /proc/{}/cmdline 2>/dev/null | tr '\0' ' ' | grep -q ray::RealServer; then
        lost=$number
    fi
done
if kill -0 $sweep 2>/dev/null; then
    echo "== host $lost is lost"
    lose "$lost"
fi
code=0
wait $sweep || code=$?
cat "$out/sweep.log"
nsenter -t "${holder[1]}" -m tar -C "$work/out" -c . | tar -C "$out" -x
exit $code
