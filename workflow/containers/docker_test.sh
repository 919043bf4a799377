#!/usr/bin/env bash
# make docker-test: the tests of the Docker backend with a real engine, which is stopped again whatever happens.
#   - DOCKER_HOST set: that engine is used and left as it is.
#   - else an engine of our own, with its own socket and its own storage in a temporary folder; Debian's docker.io is installed if
#     there is no dockerd. Needs root.
#   - BASE_IMAGE set: the base of the image, pulled by the engine; else make_base.sh makes one.
# PYTHON is the interpreter with the project and pytest (default .venv/bin/python); arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
FOLDER=

finish() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$FOLDER" ]; then
        if [ -s "$FOLDER/pid" ]; then
            daemon=$(cat "$FOLDER/pid")
            kill "$daemon" 2>/dev/null || true
            for _ in $(seq 100); do [ -d "/proc/$daemon" ] || break; sleep 0.1; done
            [ ! -d "/proc/$daemon" ] || kill -9 "$daemon" 2>/dev/null || true
            echo "docker-test: the engine has been stopped"
        fi
        { grep -o "$FOLDER/[^ ]*" /proc/self/mounts || true; } | sort -r | while read -r mount; do umount "$mount" 2>/dev/null || true; done
        rm -rf "$FOLDER"
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "${DOCKER_HOST:-}" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "error: starting an engine needs root: run as root, or set DOCKER_HOST to an engine that you may use" >&2
        exit 1
    fi
    if ! command -v dockerd >/dev/null; then
        echo "docker-test: installing docker.io"
        apt-get update -qq || true
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends docker.io iptables
    fi
    FOLDER=$(mktemp -d)
    export DOCKER_HOST=unix://$FOLDER/socket
    # No bridge and no rules of its own: containers here have no network, and the host's firewall stays as it is.
    setsid dockerd --host "$DOCKER_HOST" --data-root "$FOLDER/data" --exec-root "$FOLDER/run" --pidfile "$FOLDER/pid" \
        --bridge=none --iptables=false --ip6tables=false --log-level=warn >"$FOLDER/log" 2>&1 </dev/null &
    for _ in $(seq 120); do docker info >/dev/null 2>&1 && break; sleep 0.25; done
    docker info >/dev/null 2>&1 || { echo "error: the engine does not start:" >&2; tail -20 "$FOLDER/log" >&2; exit 1; }
fi
echo "docker-test: $(docker version --format 'client {{.Client.Version}}, engine {{.Server.Version}}')"

network=()
if [ -z "${BASE_IMAGE:-}" ]; then
    BASE_IMAGE=coderl-sandbox-base
    PYTHON="$PYTHON" bash workflow/containers/make_base.sh "$BASE_IMAGE"
    network=(--network none)
fi
DOCKER_BUILDKIT=0 docker build --quiet "${network[@]}" --build-arg BASE_IMAGE="$BASE_IMAGE" -t coderl-sandbox -f workflow/containers/Dockerfile src/coderl/sandbox
"$PYTHON" -m pytest -m docker "$@"
