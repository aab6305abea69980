#!/usr/bin/env bash
# The figures of a GPU: CIFAR-10 at 1 and 10 images per class with preset official, and DM at 10; then methods on FashionMNIST.
#   scripts/measure_gpu.sh OUT [ITERATIONS] [key=value ...]
# Each run leaves OUT/<name>/result.json (seconds, device, test accuracy); a table follows. Extra settings go to all runs on
# CIFAR-10, e.g. dataset.name=parquet dataset.root=FOLDER; FASHION names the folder with FashionMNIST. Last comes the
# benchmark against the plain reference, on random images: OUT/bench.json, and evaluations of 5 nets side by side and one by
# one: OUT/stacked.json, OUT/one_by_one.json; and memory at 224 pixels: OUT/memory.json. All but a last sweep needs neither Ray
# nor MLflow. PYTHON names another interpreter.
set -euo pipefail
out=$1 iterations=${2:-20000}
shift $(($# > 1 ? 2 : 1))
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

measure() {
    name=$1 config=$2
    shift 2
    "$python" "$root/scripts/condense.py" "$config" --out "$out/$name" \
        dataset.validation=0 "condense.iterations=$iterations" "$@"
}

measure official_ipc1 authors/cifar10_ipc1 "$@"
measure official_ipc10 authors/cifar10_ipc10 "$@"
measure dm_ipc10 authors/cifar10_ipc10 condense.method=dm "$@"
for ipc in 1 10; do
    for method in random herding dm idm; do
        measure "fashion_${method}_ipc$ipc" fashion_mnist "condense.method=$method" "condense.ipc=$ipc" \
            evaluate.references=[] ${FASHION:+"dataset.root=$FASHION"}
    done
done

"$python" - "$out" <<'PY'
import json, pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).glob("*/result.json")):
    result = json.loads(path.read_text())
    print(f"{path.parent.name:22} {result['iterations']:6} iterations {result['seconds']:8} s  "
          f"{result['test_accuracy_mean']:.2f} +- {result['test_accuracy_std']:.2f} %  {result['device']}")
PY

"$python" "$root/scripts/bench.py" --device cuda --parts a,b,f --precisions fp32,tf32,bf16 --json "$out/bench.json"
"$python" "$root/scripts/bench.py" --device cuda --parts b --repeats 5 --stack on --json "$out/stacked.json"
"$python" "$root/scripts/bench.py" --device cuda --parts b --repeats 5 --stack off --json "$out/one_by_one.json"

# Images of 224 pixels, 100 classes: peaks against forecasts, seconds and TFLOP/s of an iteration, pixels on the card and on the host.
"$python" "$root/scripts/bench.py" --device cuda --parts j,k --json "$out/memory.json"

# As many trials on the card as the forecast of their memory allows; needs Ray.
if "$python" -c 'import ray' 2>/dev/null; then
    "$python" "$root/scripts/sweep.py" cifar10_ipc10 --name auto --output-dir "$out/runs" --trials 4 --gpus-per-trial auto \
        condense.iterations=1000 evaluate.every=500 "$@"
fi
