#!/bin/sh
# Preflight, delivery, deployment, waiting, verification and registration, each of which can fail the run.
set -eu
cd "$(dirname "$0")"
exec berth deploy ../../berth.yaml --ship --yes "$@"
