#!/bin/sh
# Begins a training or a search in FOLDER, or continues it where it stopped: the command of all recipes
# here, for the first start and for every start after a machine was taken away.
#
#   sh deploy/start.sh train FOLDER --model=cnn --epochs=20
#   sh deploy/start.sh search FOLDER --model=mlp --over=hidden=100,200
#
# Exit status: jaxnets's. 0 done, 1 failed, 134 another process was lost, 2 the request is wrong (to try
# again does not help), 143 stopped by SIGTERM, after saving.
set -eu
command=$1 folder=$2
shift 2
if [ "$command" = train ] && [ -e "$folder/result.json" ]; then
    echo "$folder holds a finished run"
    exit 0
fi
for begun in config.json search.json cells; do # Of a run, of a search, of one shared by several.
    if [ -e "$folder/$begun" ]; then
        set -- --resume "$@"
        break
    fi
done
exec python -m jaxnets "$command" --workdir="$folder" "$@" # exec: Python gets the signals.
