#!/bin/sh
# The main job as a user starts it: whole process, wall clock and peak memory.
#
#   sh benchmarks/main_job.sh [PYTHON]
#
# Two epochs of the CNN to 99 % on the test images, first with an empty compilation cache and then
# with a warm one, then the default run. GNU time (Debian's package "time") gives the figures.
set -eu
python=${1:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export JAX_COMPILATION_CACHE_DIR="$work/cache"
for name in empty-cache warm-cache default; do
    epochs=--epochs=2
    target=0.99
    if [ $name = default ]; then epochs=; target=0.994; fi
    /usr/bin/time -f "$name: %e s wall, %M KiB peak" \
        "$python" train.py --model=cnn $epochs --target_accuracy=$target --workdir="$work/$name"
done
