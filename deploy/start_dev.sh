#!/usr/bin/env bash
# Starts budcluster on this machine: environment, keys, embedded PostgreSQL, sandbox cluster, API.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TXT'
Usage: ./deploy/start_dev.sh [options]

Starts everything on this machine and stays in the foreground; Ctrl-C stops all of it and keeps the data.

  --demo             run the main job too: onboard the sandbox cluster, deploy a model, scale it, ask it a question
  --detach           return once the service answers (with --demo: once the model serves); the reason if it does not
  --stop             stop what --detach started
  --reset            forget the data first: database, sandbox cluster, logs (keys are kept)
  --port N           port of the API, default 9082
  --nodes PROFILES   nodes of the sandbox cluster, for example h100x8:2,cpu-amx:1
  --no-cluster       start no sandbox cluster
  --clock-factor N   how much faster than real time the sandbox cluster lives, default 10
  --state-dir DIR    where data and logs are kept, default .state/dev in the checkout
  --build            use Docker Compose instead (not part of this version)
  --help             this text

Environment: DATABASE_URL uses that PostgreSQL instead of the embedded one; every setting of the service is read too.
TXT
}

for argument in "$@"; do
  case "$argument" in
    --help | -h) usage; exit 0 ;;
    --build)
      echo "budcluster: --build needs the Docker Compose stack, which is not part of this version; start without it." >&2
      exit 2
      ;;
  esac
done

bash "$here/environment.sh" sandbox
exec "$here/../.venv/bin/python" -m devstack "$@"
