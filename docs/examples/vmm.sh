#!/bin/sh
# SPDX-License-Identifier: MIT
# Move a guest with a disk of ours between two QEMUs; test-your-vmm.rst and qemu.rst show it in pieces.
# Begins in a clone in which `make` has run. Usage: vmm.sh [QUIESCE [DEVICE DEVICE]]
# Words are to be split, and eval assigns.
# shellcheck disable=SC2086,SC2154
set -eu
quiesce=${1:-build/quiesce}
here=$(mktemp -d)
source='' destination=''
trap 'kill $source $destination 2>/dev/null || true; wait; rm -rf "$here"' EXIT
truncate -s 64M "$here/disk.img"
a=${2:-nvme,file=$here/disk.img} b=${3:-nvme,file=$here/disk.img}

# get
eval "$(python3 tests/vm/shell.py)"
# source
guest="-accel tcg -m 256 -nodefaults -display none
	-object memory-backend-memfd,id=ram,size=256M,share=on -M q35,memory-backend=ram
	-kernel $kernel -initrd $initrd -append console=ttyS0
	-object iommufd,id=iommufd0,fd={iommufd}
	-device vfio-pci,iommufd=iommufd0,fd={vfio0},enable-migration=on"
mkfifo "$here/monitor"
"$quiesce" run --device "$a" -- $qemu $guest \
	-serial "file:$here/source.log" -monitor stdio <"$here/monitor" >/dev/null &
source=$!
exec 3>"$here/monitor"
until grep "is on the disk" "$here/source.log" 2>/dev/null; do kill -0 $source; sleep 0.2; done
# destination
"$quiesce" run --device "$b" -- $qemu $guest \
	-serial "file:$here/destination.log" -incoming "unix:$here/move" &
destination=$!
until [ -S "$here/move" ]; do kill -0 $destination; sleep 0.2; done
# move
echo "migrate unix:$here/move" >&3
until grep "is on the disk" "$here/destination.log" 2>/dev/null; do kill -0 $destination; sleep 0.2; done
echo quit >&3
wait $source
kill $destination
wait $destination || true
# end
! grep WRONG "$here"/*.log
