#!/usr/bin/env bash
# Base image of the Dockerfile without a registry: the Python that runs this script's PYTHON (default python3), its standard
# library and the system libraries that they are linked with; about 80 MB.
#   bash workflow/containers/make_base.sh [NAME]      # default coderl-sandbox-base
set -euo pipefail
NAME=${1:-coderl-sandbox-base}
PYTHON=${PYTHON:-python3}
ROOT=$(mktemp -d)
trap 'rm -rf "$ROOT"' EXIT
PREFIX=$("$PYTHON" -c 'import sys; print(sys.base_prefix)')
EXECUTABLE=$("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys.executable))')
LIBRARY=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
VERSION=$(basename "$LIBRARY") # python3.11

mkdir -p "$ROOT"/{usr/local/bin,usr/local/lib,tmp,proc,sys,dev,etc}
cp "$EXECUTABLE" "$ROOT/usr/local/bin/$VERSION"
ln -s "$VERSION" "$ROOT/usr/local/bin/python3"
tar -C "$(dirname "$LIBRARY")" --exclude=site-packages --exclude=dist-packages --exclude=test --exclude=tests --exclude=idlelib --exclude=tkinter \
    --exclude=ensurepip --exclude=__pycache__ --exclude=lib2to3 --exclude='config-3*' --exclude=turtledemo -cf - "$VERSION" |
    tar -C "$ROOT/usr/local/lib" -xf -
cp -a "$PREFIX"/lib/lib"$VERSION".so* "$ROOT/usr/local/lib/" 2>/dev/null || true # a shared build
{ ldd "$EXECUTABLE"; for file in "$LIBRARY"/lib-dynload/*.so; do ldd "$file"; done; } |
    awk '/=> \//{print $3} /ld-linux/{print $1}' | sort -u | grep -v "^$PREFIX/lib/lib" |
    while read -r file; do mkdir -p "$ROOT/$(dirname "$file")" && cp -L "$file" "$ROOT/$file"; done
if [ -d /usr/lib/locale/C.utf8 ]; then # what LANG=C.UTF-8 means
    mkdir -p "$ROOT/usr/lib/locale"
    cp -a /usr/lib/locale/C.utf8 "$ROOT/usr/lib/locale/"
fi
echo 'nobody:x:65534:65534::/:/bin/false' >"$ROOT/etc/passwd"
echo 'nogroup:x:65534:' >"$ROOT/etc/group"
"$EXECUTABLE" -m compileall -q -j1 -s "$ROOT" -p / "$ROOT/usr/local/lib/$VERSION" >/dev/null 2>&1 || true
tar -C "$ROOT" --owner=0 --group=0 -c . | docker import -c 'ENV PATH=/usr/local/bin' -c 'ENV LD_LIBRARY_PATH=/usr/local/lib' - "$NAME"
