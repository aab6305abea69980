#!/usr/bin/env bash
# Slurm: a sweep over the nodes of a job, with a Ray cluster of its own that ends with it.
#   sbatch --nodes=4 --gpus-per-node=1 --cpus-per-task=8 --mem=32G --time=1-0 \
#       tune_configs/cluster/slurm.sh cifar10_ipc10 --gpus-per-trial 0.25 --output-dir "$HOME/runs"
# What follows the script are words of `idm-ray sweep`. BIN is the folder of `ray` and `idm-ray` on all nodes (default: the
# environment that is active). Other users of the nodes, and other jobs of yours, keep their own Ray: every port is free
# when it is taken, and nothing of them is ended.
#SBATCH --job-name=idm-ray
#SBATCH --ntasks-per-node=1
set -euo pipefail
BIN=${BIN:-$(dirname "$(command -v ray)")}
CPUS=${SLURM_CPUS_PER_TASK:-1}
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN

nodes=()
while read -r node; do nodes+=("$node"); done < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$(srun --nodes=1 --ntasks=1 --nodelist="$head" "$BIN/python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
node_of_ray() { # NODE, then options of `ray start`: in the background until the job ends
  srun --nodes=1 --ntasks=1 --overlap --nodelist="$1" "$BIN/ray" start --block --num-cpus="$CPUS" --disable-usage-stats "${@:2}" &
}
node_of_ray "$head" --head --node-ip-address="$address" --port="$port" --include-dashboard=false
until srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" "$BIN/ray" status --address="$address:$port" >/dev/null 2>&1; do sleep 2; done
for node in "${nodes[@]:1}"; do
  node_of_ray "$node" --address="$address:$port"
done
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" "$BIN/idm-ray" sweep "$@" --address="$address:$port"
