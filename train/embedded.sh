#!/usr/bin/env bash
# The embedded adapter from end to end, on all cards of a machine:
#     bash train/embedded.sh DATA TEXTS EXTRA OUT [PYTHON]
# DATA: folder of train.prepare; TEXTS: parquet of texts without prices; EXTRA: further priced rows. Killed and started
# again it skips the stages that are done. On a lent machine keep all of it inside one call: what is idle is taken back.
# With small files, and BATCH=4 for 128, it runs through on a CPU as well: try that first.
set -euo pipefail
data=$1 texts=$2 extra=$3 out=$4 py=${5:-python3}
recipes=$(dirname "$0")/recipes
cards=$( (nvidia-smi -L 2>/dev/null || true) | wc -l)
[ "$cards" -gt 0 ] || cards=1 # a CPU
mkdir -p "$out/log"
export TOKENIZERS_PARALLELISM=true

rows=(--data "$data" --train_splits train validation --validation_split calibration --load_best_model_at_end False
      --extra_data "$extra" --extra_weight 0.5 --titles 0.5 --tokens "$out/tokens.npz" --dataloader_num_workers 8)
lesson=("${rows[@]}" --unlabelled "$texts" --labels "$out/labels" --quick_labels True)
launch() { "$py" -m torch.distributed.run --standalone --nproc-per-node "$cards" -m "$@"; }
each() { # a stage's process on each card in turn; fails when one of them does
    local failed=0 pid
    for pid in "$@"; do wait "$pid" || failed=1; done
    return $failed
}

[ -f "$out/pretrained/metrics.json" ] || launch train.pretrain "$recipes/smollm2-135m-pretrain.yaml" --texts "$texts" \
    --output "$out/pretrained" --tokens "$out/tokens.npz" 2>&1 | tee "$out/log/pretrain.log"

teachers=() pids=()
for i in $(seq 0 $((cards > 1 ? cards - 1 : 1))); do
    teachers+=("$out/teacher-$i")
    [ -f "$out/teacher-$i/metrics.json" ] && continue
    CUDA_VISIBLE_DEVICES=$((i % cards)) "$py" -m train.finetune "$recipes/smollm2-135m-teacher.yaml" "${rows[@]}" --seed "$i" \
        --base_model "$out/pretrained" --output "$out/teacher-$i" --per_device_train_batch_size "${BATCH:-128}" >"$out/log/teacher-$i.log" 2>&1 &
    pids+=($!)
    [ "$cards" -gt 1 ] || { each "${pids[@]}"; pids=(); }
done
each "${pids[@]}"

pids=()
for i in "${!teachers[@]}"; do
    CUDA_VISIBLE_DEVICES=$((i % cards)) "$py" -m train.label "$recipes/smollm2-135m.yaml" "${lesson[@]}" --output "$out/student" \
        --teachers "${teachers[$i]}" >"$out/log/label-$i.log" 2>&1 &
    pids+=($!)
    [ "$cards" -gt 1 ] || { each "${pids[@]}"; pids=(); }
done
each "${pids[@]}"

launch train.finetune "$recipes/smollm2-135m.yaml" "${lesson[@]}" --output "$out/student" --teachers "${teachers[@]}" --neighbours 0.3 \
    --start_from "${teachers[0]}" --rank 32 --alpha 64 --lean True --per_device_train_batch_size "${BATCH:-128}" --learning_rate 1.0e-3 \
    --num_train_epochs 2 --save_strategy steps --save_steps 100 2>&1 | tee "$out/log/student.log"
