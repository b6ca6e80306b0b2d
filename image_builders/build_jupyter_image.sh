#!/usr/bin/env bash
# jupyter: JupyterLab with databroker's client and the package, in the network of the pods
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image jupyter-libraries "Libraries of JupyterLab" \
    "What image_builders/jupyter.lock names; the image jupyter is made from it"
bp_from bluesky-libraries image_builders/jupyter.lock
bp_python image_builders/jupyter.lock
bp_commit

bp_image jupyter "JupyterLab" "JupyterLab that reads the runs of the pods, with an example"
bp_from jupyter-libraries "${bp_package_sources[@]}" image_builders/jupyter
bp_package
bp_copy image_builders/jupyter/last_run.ipynb /opt/bluesky-plugins/notebooks/
# The tiled server of the databroker pod, by name: from_profile("beamline").
bp_copy image_builders/jupyter/beamline.yml /opt/venv/etc/tiled/profiles/
# It asks nobody outside for news and updates.
bp_copy image_builders/jupyter/overrides.json /opt/venv/share/jupyter/lab/settings/
bp_program start-jupyter <"$bp_root/image_builders/jupyter/start-jupyter"
bp_program probe-jupyter <"$bp_root/image_builders/jupyter/probe-jupyter"
bp_shell <<'EOS'
install -d -o bluesky -g bluesky /home/bluesky/notebooks
EOS
bp_commit --port 8888 --cmd '["start-jupyter"]' \
    --healthcheck 'CMD probe-jupyter' --healthcheck-interval 15s --healthcheck-timeout 5s
