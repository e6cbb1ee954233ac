#!/bin/sh
# SPDX-License-Identifier: MIT
# The move of vmm.sh with disks that are behind vfio-user servers; qemu.rst shows it in pieces. Begins in
# a clone in which `make` has run. Usage: vfio-user.sh [QUIESCE]
set -eu
quiesce=${1:-build/quiesce}
here=$(mktemp -d)
first='' second=''
trap 'kill $first $second 2>/dev/null || true; wait; rm -rf "$here"' EXIT

# servers
truncate -s 64M "$here/disk.img"
"$quiesce" serve "nvme,file=$here/disk.img" --socket "$here/a.sock" &
first=$!
"$quiesce" serve "nvme,file=$here/disk.img" --socket "$here/b.sock" &
second=$!
until [ -S "$here/a.sock" ] && [ -S "$here/b.sock" ]; do kill -0 $first $second; sleep 0.2; done
# move
"${0%/*}/vmm.sh" "$quiesce" "vfio-user:$here/a.sock" "vfio-user:$here/b.sock"
