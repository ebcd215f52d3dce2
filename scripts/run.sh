#!/bin/sh
# Starts a server with the given binary: as the user, or as root where only root may use the container engine.
set -eu

binary=$1
socket=/var/run/docker.sock
[ -S "$socket" ] || socket=/run/containerd/containerd.sock
if [ -n "${DOCKER_HOST:-}" ] || [ -w "$socket" ] || [ "$(id -u)" = 0 ]; then
    exec "$binary" server
fi
echo "run: $socket is for root, so the server runs as root (sudo), and is for root: sudo kubectl --server=http://localhost:6443 ..." >&2
exec sudo "$binary" server
