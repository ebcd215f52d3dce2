#!/bin/sh
# Builds the container image around a binary that was built outside: image.sh BINARY [NAME]. No base image is needed;
# the last stage of the Dockerfile is taken as it is. The binary must be static, which it is by .cargo/config.toml.
set -eu

binary=$1
name=${2:-krust}
root=$(cd "$(dirname "$0")/.." && pwd)

if ldd "$binary" 2>/dev/null | grep -q '=>'; then
    echo "image: $binary is not static, and the image has no C library" >&2
    exit 1
fi
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/image/usr/local/bin" "$context/image/tmp"
chmod 1777 "$context/image/tmp"
install -m 755 "$binary" "$context/image/usr/local/bin/krust"
strip "$context/image/usr/local/bin/krust" 2>/dev/null || true
"$root/scripts/image-tools.sh" "$context/image"
sed -n '/^FROM scratch/,$p' "$root/Dockerfile" | sed 's/--from=builder //' >"$context/Dockerfile"
# The classic builder is everywhere; BuildKit is a plug-in that may be missing.
DOCKER_BUILDKIT=0 docker build --quiet --tag "$name" "$context"
echo "image: built $name" >&2
