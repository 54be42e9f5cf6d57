#!/bin/sh
# alexnet_small_bn on CIFAR-10, as a folder of pictures or by its name, on crops as the paper's: at
# least 88 % of the test images.
#
#     sh benchmarks/cifar10.sh DIR [--seed=1 ...]    DIR/train/<class>/*.jpg, DIR/test/<class>/*.jpg
#     sh benchmarks/cifar10.sh cifar10               downloaded once
set -eu
cd "$(dirname "$0")/.."
dataset=$1
shift
time "${PYTHON:-python3}" train.py --model=alexnet_small_bn --dataset="$dataset" --input_size=28 \
    --augment=crop,flip --ten_crop --epochs=36 --target_accuracy=0.88 "$@"
