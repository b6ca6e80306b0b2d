#!/usr/bin/env bash
# image jupyter: JupyterLab with databroker's client and the package, for the network of the pods.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image jupyter-libraries "JupyterLab: libraries" "What image_builders/jupyter.lock names, on the libraries of bluesky"
bp_from bluesky-libraries image_builders/jupyter.lock
bp_python image_builders/jupyter.lock
bp_commit

bp_image jupyter "JupyterLab" "JupyterLab that reads the runs of the pods, with an example"
bp_from jupyter-libraries "${bp_package_sources[@]}" image_builders/jupyter
bp_package
bp_copy image_builders/jupyter/last_run.ipynb /opt/bluesky-plugins/notebooks/
# The tiled server of the databroker pod, by name: `from_profile("beamline")`.
bp_copy image_builders/jupyter/beamline.yml /opt/venv/etc/tiled/profiles/
bp_program start-jupyter <"$bp_root"/image_builders/jupyter/start-jupyter
bp_program probe-jupyter <"$bp_root"/image_builders/jupyter/probe-jupyter
bp_shell <<'SHELL'
install -d -o bluesky -g bluesky /home/bluesky/notebooks
SHELL
bp_commit --port 8888 --cmd start-jupyter \
    --healthcheck 'CMD probe-jupyter' --healthcheck-interval 15s --healthcheck-timeout 5s
