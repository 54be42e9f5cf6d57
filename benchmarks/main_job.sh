#!/bin/sh
# The main job as a user starts it: whole process, wall clock and peak memory.
#
#   sh benchmarks/main_job.sh [PYTHON]
#
# The CNN's fast recipe to 99 % on the test images, first with an empty compilation cache and then
# with a warm one, nine epochs to 99.5 %, then the default run. GNU time (Debian's package "time")
# gives the figures. The last line has the ratios of a large step, for one machine beside another.
set -eu
python=${1:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export JAX_COMPILATION_CACHE_DIR="$work/cache"
for name in empty-cache warm-cache nine-epochs default; do
    flags='--recipe=fast --stop_at_target'
    target=0.99
    if [ $name = nine-epochs ]; then flags=--epochs=9; target=0.995; fi
    if [ $name = default ]; then flags=; target=0.994; fi
    /usr/bin/time -f "$name: %e s wall, %U s user, %S s system, %M KiB peak" \
        "$python" train.py --model=cnn $flags --target_accuracy=$target --workdir="$work/$name"
done
"$python" benchmarks/cifar94.py --batch_size=256 | tail -n 1
