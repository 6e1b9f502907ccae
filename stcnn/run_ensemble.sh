#!/bin/sh
# Train an ensemble: N runs with seeds 1..N, named lc_small_1..N (batch 16, lr 5e-4, 40 epochs).
#   sh run_ensemble.sh --n 3 dataset=lc_small model=stcnn_exp_leakyrelu_bn
# Everything after --n N goes to train.py as key=value. On a cluster, one job a seed instead:
#   python train.py --multirun hydra/launcher=submitit_slurm seed=1,2,3 ...
#   (LSF: bsub -n 4 -gpu "num=1" python train.py seed=1 ...)
set -eu
n=3
if [ "${1:-}" = "--n" ]; then
  n="$2"
  shift 2
fi
here=$(cd "$(dirname "$0")" && pwd)
i=1
while [ "$i" -le "$n" ]; do
  python "$here/train.py" seed="$i" expt_name="lc_small_$i" batch_size=16 lr=0.0005 n_epochs=40 "$@"
  i=$((i + 1))
done
