#!/usr/bin/env bash
# Everything about a GPU in one table, OUT/table.md: what every method computes against the CPU in float64, an iteration and an
# evaluation against the plain reference, peaks of memory against their forecasts at 32 to 224 pixels, several trials on shares of
# the card, CIFAR-10 and FashionMNIST condensed with the published settings.
#   scripts/measure_gpu.sh OUT [ITERATIONS] [key=value ...]
# Started again it goes on: what is done is not done again, a condensation that was stopped is resumed. ITERATIONS (4000) are those
# of CIFAR-10 at 10 images per class; others take a quarter or half as many. Extra settings go to all runs on CIFAR-10, such as
# dataset.name=parquet dataset.root=FOLDER; FASHION names the folder with FashionMNIST. Sweeps need Ray and MLflow and are left out
# where these are not installed; nothing else does. PYTHON names another interpreter, LIMIT the seconds of a step (300); DEVICE=cpu
# tries the script on a machine without a GPU.
set -uo pipefail
out=$1 iterations=${2:-4000}
shift $(($# > 1 ? 2 : 1))
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
precisions=fp32,tf32,bf16
[ "$device" = cuda ] || precisions=fp32,bf16
mkdir -p "$out"
trap 'exit 130' INT

step() { # NAME COMMAND...: unless it is done; what fails is told and the rest goes on
    local name=$1
    shift
    [ -e "$out/$name.done" ] && return
    echo "== $name" >&2
    if timeout --foreground --kill-after 60 --signal INT "${LIMIT:-300}" "$@"; then
        touch "$out/$name.done"
    else
        echo "== $name ended with $?" >&2
    fi
    table
}

bench() { # NAME PART...: a table in OUT/bench_NAME.md
    local name=$1
    shift
    step "bench_$name" "$python" "$root/scripts/bench.py" --device "$device" --parts "$@" \
        --markdown "$out/bench_$name.md" --json "$out/bench_$name.json"
}

condense() { # NAME CONFIG ITERATIONS SETTINGS...
    local name=$1_$3 config=$2 length=$3 resume=()
    shift 3
    [ -e "$out/$name/checkpoint.safetensors" ] && resume=(--resume)
    step "$name" "$python" "$root/scripts/condense.py" "$config" --out "$out/$name" "${resume[@]}" \
        "compute.device=$device" dataset.validation=0 "condense.iterations=$length" "$@"
}

table() {
    "$python" - "$out" >"$out/table.md.part" <<'PY' && mv "$out/table.md.part" "$out/table.md"
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
print("### Condensed\n\n| | iterations | seconds | test accuracy | device |\n|---|---|---|---|---|")
for path in sorted(out.glob("*/result.json")):
    found = json.loads(path.read_text())
    accuracy = f"{found['test_accuracy_mean']:.2f} +- {found['test_accuracy_std']:.2f} %"
    print(f"| {path.parent.name} | {found['iterations']} | {found['seconds']:.0f} | {accuracy} | {found['device']} |")
for path in sorted(out.glob("runs/*/summary.json")):
    found = json.loads(path.read_text())
    print(f"| sweep {path.parent.name}, {found['n_complete']} trials | | {found['seconds']:.0f} | "
          f"{found['test_accuracy_mean']} | {found['device']} |")
for path in sorted(out.glob("bench_*.md")):
    print("\n" + path.read_text().rstrip())
PY
}

bench correctness l --precisions "$precisions"
bench iteration a --precisions "$precisions"
bench evaluation b --precisions "$precisions"
condense idm_ipc10 authors/cifar10_ipc10 "$iterations" "$@"
condense dm_ipc10 authors/cifar10_ipc10 $((iterations / 2)) condense.method=dm evaluate.references=[] "$@"
condense idm_ipc1 authors/cifar10_ipc1 $((iterations / 4)) evaluate.references=[] "$@"
bench forecasts j
bench large k
bench scaling f --precisions bf16
if "$python" -c 'import ray, mlflow' 2>/dev/null; then
    bench sweeps c --sweep-trials 1,4,8
    new=(cifar10_ipc10 --name auto condense.iterations=1000 evaluate.every=500 "$@")
    [ -e "$out/runs/auto/study.db" ] && new=(--resume auto)
    step sweep_auto "$python" "$root/scripts/sweep.py" "${new[@]}" --output-dir "$out/runs" --trials 4 --gpus-per-trial auto
fi
for ipc in 1 10; do
    for method in random herding dm idm; do
        condense "fashion_${method}_ipc$ipc" fashion_mnist $((iterations / 4)) "condense.method=$method" "condense.ipc=$ipc" \
            evaluate.references=[] ${FASHION:+"dataset.root=$FASHION"}
    done
done
bench one_by_one b --repeats 5 --stack off
bench stacked b --repeats 5 --stack on
cat "$out/table.md"
