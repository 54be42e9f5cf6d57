#!/bin/sh
# alexnet_small on CIFAR-10, as a folder of pictures or by its name: at least 82 % of the test images.
#
#     sh benchmarks/cifar10.sh DIR        DIR/train/<class>/*.jpg, DIR/test/<class>/*.jpg
#     sh benchmarks/cifar10.sh cifar10    downloaded once
set -eu
cd "$(dirname "$0")/.."
time "${PYTHON:-python3}" train.py --model=alexnet_small --dataset="$1" --augment=crop,flip \
    --target_accuracy=0.82
