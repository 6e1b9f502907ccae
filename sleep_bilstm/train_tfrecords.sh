#!/usr/bin/env bash
# Run one mode of main.py with the settings below; extra arguments are passed on and win.
#   ./train_tfrecords.sh
#   mode=test ./train_tfrecords.sh --run first
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

mode="${mode:-train}" # train, test, test_subjectwise, gradcam, attention_weights, occlusion, predict, demo
python="${python:-python3}"

# The demo has settings of its own: those below would override its preset.
before=""
for argument in "$@"; do
  [[ "$argument" == --demo || "$before$argument" == --mode?(=)demo ]] && mode=demo
  before="$argument"
done
if [[ "$mode" == demo ]]; then
  exec "$python" "$here/main.py" --demo "$@"
fi

seed="${seed:-42}"
data_path="${data_path:-$here/../data/sleep_bilstm/10s}"
batch_size="${batch_size:-4}" # global, over all GPUs
num_classes="${num_classes:-3}"
num_frames="${num_frames:-168}"
num_epochs="${num_epochs:-200}"
lr_init="${lr_init:-1e-4}"
num_rnn_units="${num_rnn_units:-64}"
loss="${loss:-focal}"
model_name="${model_name:-attention_bilstm}"
hemispheric="${hemispheric:-no-hemispheric}" # hemispheric or no-hemispheric

for argument in "$@"; do
  [[ "$argument" == --data_path* ]] && given=1
done
if [[ -z "${given:-}" && ! -d "$data_path" ]]; then
  echo "error: $data_path: no such folder; expected tfrecords. Convert recordings with create_tfrecords.py" \
    "(--des_path $data_path), make synthetic ones with make_synthetic.py, or run: $python main.py --demo" >&2
  exit 1
fi

# Outside training the network is read from config.json, so only what belongs to the mode is given.
settings=(--mode "$mode" --data_path "$data_path" --batch_size "$batch_size" --model_name "$model_name")
if [[ "$mode" == train ]]; then
  settings+=(--seed "$seed" --num_classes "$num_classes" --num_frames "$num_frames" "--$hemispheric"
    --num_epochs "$num_epochs" --lr_init "$lr_init" --num_rnn_units "$num_rnn_units" --loss "$loss")
fi
exec "$python" "$here/main.py" "${settings[@]}" "$@"
