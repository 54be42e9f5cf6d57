#!/bin/sh
# alexnet_small_bn on CIFAR-10, on crops as the paper's: at least 89 % of the test images.
#
#     sh benchmarks/cifar10.sh cifar10                         downloaded once
#     sh benchmarks/cifar10.sh cifar10 --data_dir=DIR          the archive, or its .bin files
#     sh benchmarks/cifar10.sh DIR --target_accuracy=.88       JPEG copies, which read lower:
#                                                              DIR/train/<class>/*.jpg, DIR/test/...
set -eu
cd "$(dirname "$0")/.."
dataset=$1
shift
time "${PYTHON:-python3}" train.py --model=alexnet_small_bn --dataset="$dataset" --input_size=28 \
    --augment=crop,flip --validation_size=1000 --ten_crop --epochs=36 --target_accuracy=0.89 "$@"
