#!/usr/bin/env bash
# Start a training on the devices of its job: launch.sh GPUS NODES COMMAND...
#
#   one GPU, or none: COMMAND itself
#   several:          torchrun, one process per GPU
#   several nodes:    srun, one torchrun per node; they meet on the first node of the job
#
# GPUS counts those of all nodes. Only these two numbers and torchrun say how many processes there are: what Slurm knows of
# its tasks (SLURM_NTASKS, PMI_SIZE) does not matter, so one task per node is right.
set -euo pipefail
gpus=$1 nodes=$2
shift 2

if ((gpus <= 1 && nodes <= 1)); then
    exec "$@"
fi
if ((nodes < 1 || gpus % nodes)); then
    echo "error: $gpus GPUs cannot be spread evenly over $nodes nodes; change gpus or nodes in config/config.yaml" >&2
    exit 1
fi
each=$((gpus / nodes))

if ((nodes == 1)); then
    command=(torchrun --standalone --nproc-per-node "$each" --no-python "$@")
else
    if [[ -z ${SLURM_JOB_ID:-} ]]; then
        echo "error: $nodes nodes without a Slurm job; use --profile slurm, or nodes: {} in config/config.yaml" >&2
        exit 1
    fi
    # Snakemake hides the list of nodes from the commands of a job, so Slurm is asked; also how the first one is reached.
    first=$(scontrol show hostnames "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %N)" | head -n 1)
    address=$(scontrol --oneliner show node "$first" | sed 's/.* NodeAddr=\([^ ]*\) .*/\1/')
    command=(srun --nodes "$nodes" --ntasks "$nodes" --ntasks-per-node 1
        torchrun --nnodes "$nodes" --nproc-per-node "$each" --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d
        --rdzv-endpoint "$address:$((20000 + SLURM_JOB_ID % 20000))" --no-python "$@")
fi
# The threads of the job are shared by its processes on a node.
share=$((${OMP_NUM_THREADS:-1} / gpus))
export OMP_NUM_THREADS=$((share > 1 ? share : 1))

# The first line of the log: it can be pasted and runs.
line=+
for word in "${command[@]}"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
done
echo "$line" >&2
exec "${command[@]}"
