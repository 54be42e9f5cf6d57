#!/usr/bin/env bash
# Gradescope runs this once, on Ubuntu, when the autograder is uploaded. docs/teachers/grading.md
# says how to make the archive.
set -e
apt-get update
apt-get install -y python3-venv bubblewrap
python3 -m venv /autograder/venv
/autograder/venv/bin/pip install --no-cache-dir /autograder/source/jaxnets
