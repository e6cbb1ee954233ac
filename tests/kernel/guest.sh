# SPDX-License-Identifier: MIT
# What is done in the guest, after init has loaded the modules. Lines for tests/kernel/run are those of
# guest.h. WAY is how devices are reached: cdev or legacy.

WAY=$(sed 's/.*test_way=\([a-z]*\).*/\1/' /proc/cmdline)
TYPES=/sys/devices/virtual/mtty/mtty/mdev_supported_types
ONE=11111111-0000-4000-8000-00000000000
TWO=22222222-0000-4000-8000-00000000000
EDU=0000:00:04.0
NVME=0000:00:05.0
# Behind the bridge, which has the first bus of its own.
SHARED=0000:01:01.0
RNG=0000:01:02.0
SHARED2=0000:01:03.0

check() { # STATUS NAME WHY
	if [ "$1" = 0 ]; then echo "CHECK ok $2"; else echo "CHECK failed $2: $3"; fi
}

# The output of a command that must end with that code and say that.
expect() { # NAME CODE PATTERN COMMAND...
	name=$1 code=$2 pattern=$3
	shift 3
	output=$("$@" 2>&1)
	got=$?
	[ $got = "$code" ] && echo "$output" | grep -q -e "$pattern"
	check $? "$name" "ends with $got and says: $(echo "$output" | tr '\n' ' ')"
}

bind() { # DEVICE DRIVER
	echo "$2" >"/sys/bus/pci/devices/$1/driver_override"
	[ -e "/sys/bus/pci/devices/$1/driver" ] && echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
	echo "$1" >/sys/bus/pci/drivers_probe
}

# Of the first kind one port, of the second two.
make_mdevs() {
	for n in 1 2 3; do echo "$ONE$n" >$TYPES/mtty-1/create; done
	for n in 1 2 3 4 5; do echo "$TWO$n" >$TYPES/mtty-2/create; done
}

# Until the file has such a line; false when the process has ended instead.
wait_for() { # PID FILE PATTERN
	until grep -q "$3" "$2" 2>/dev/null; do
		kill -0 "$1" 2>/dev/null || return 1
		usleep 20000
	done
}

wait_socket() { # PID PATH
	until [ -S "$2" ]; do
		kill -0 "$1" 2>/dev/null || return 1
		usleep 20000
	done
}

# ---- what is missing is said ----

refusals() {
	expect "no such PCI device" 2 "has no PCI device 0000:7f:00.0" quiesce info vfio:0000:7f:00.0
	expect "no such mediated device" 2 "there is no mediated device" quiesce info "vfio:${ONE}9"
	expect "no such device file" 2 "there is no /dev/vfio/devices/vfio99" \
		quiesce info vfio:/dev/vfio/devices/vfio99
	expect "no such group" 2 "has no IOMMU group 999" quiesce info vfio:/dev/vfio/999
	expect "bound to another driver" 1 "bound to the driver 'nvme'.*driver_override" \
		quiesce info "vfio:$NVME"
	expect "bound to none" 1 "bound to no driver" quiesce info "vfio:$EDU"
	expect "plan says so too" 1 "bound to no driver" quiesce plan "vfio:$EDU"
	bind "$EDU" vfio-pci
	bind "$NVME" vfio-pci
	bind "$SHARED" vfio-pci
	expect "a group that is not viable" 1 "not viable.*0000:01:02.0 (virtio-pci)" \
		quiesce info "vfio:$SHARED"
	if [ "$WAY" = legacy ]; then
		expect "no device file" 1 "no device file of its own.*VFIO_DEVICE_CDEV" \
			quiesce info "vfio:$EDU,via=cdev"
	fi
	expect "no permission" 2 "no permission to use /dev/vfio" \
		su user -c "quiesce info vfio:${TWO}1,via=$WAY"
	expect "a device without migration" 0 "this device cannot migrate" quiesce info "vfio:$NVME"
	expect "and plan refuses it" 1 "cannot migrate" quiesce plan "vfio:$NVME"
}

# ---- the tool with two devices ----

in_use() {
	guest hold "vfio:${TWO}1" PRE_COPY >/tmp/held &
	holder=$!
	wait_for $holder /tmp/held HELD
	expect "a device in use" 1 "in use by another program\|another program has" \
		quiesce info "vfio:${TWO}1"
	kill -9 $holder
	wait $holder
}

killed() {
	for state in RUNNING RUNNING_P2P PRE_COPY PRE_COPY_P2P STOP STOP_COPY RESUMING; do
		guest hold "vfio:${TWO}1" $state >/tmp/held &
		holder=$!
		wait_for $holder /tmp/held HELD
		kill -9 $holder
		wait $holder
		echo "NOTE killed in $state"
		guest state "vfio:${TWO}1"
	done
}

# A device that is removed while a program holds it stays until that has let go.
removed() {
	guest hold "vfio:${TWO}5" RESUMING >/tmp/held &
	holder=$!
	wait_for $holder /tmp/held HELD
	echo 1 >/sys/bus/mdev/devices/"${TWO}5"/remove &
	remover=$!
	while [ -e /sys/bus/mdev/devices/"${TWO}5" ]; do usleep 20000; done
	expect "a device that is being removed is not to be had" 2 "there is no mediated device" \
		quiesce info "vfio:${TWO}5"
	kill -0 $holder && kill -0 $remover
	check $? "its removal waits for who holds it" "it does not"
	kill -9 $holder
	wait $holder
	wait $remover
	check $? "and ends when that is killed" "it does not"
}

# A set of two from one process to another, without any rights but to the devices.
move_set() {
	for device in "${TWO}1" "${TWO}2" "${TWO}3" "${TWO}4"; do
		group=$(basename "$(readlink /sys/bus/mdev/devices/$device/iommu_group)")
		file=$(ls /sys/bus/mdev/devices/$device/vfio-dev 2>/dev/null)
		chown user /dev/vfio/"$group"
		[ -n "$file" ] && chown user /dev/vfio/devices/"$file"
	done
	[ -e /dev/iommu ] && chown user /dev/iommu
	chown user /dev/vfio/vfio
	su user -c "exec quiesce receive --from unix:/tmp/move a=vfio:${TWO}3 b=vfio:${TWO}4 \
		--memory 4M --control /tmp/there" >/tmp/receive 2>&1 &
	receiver=$!
	wait_socket $receiver /tmp/move || check 1 "receive of a set of two" "$(cat /tmp/receive)"
	su user -c "quiesce plan a=vfio:${TWO}1 b=vfio:${TWO}2 --memory 4M" >/tmp/plan 2>&1
	check $? "plan of a set of two without root" "$(tr '\n' ' ' </tmp/plan)"
	su user -c "quiesce send --to unix:/tmp/move a=vfio:${TWO}1 b=vfio:${TWO}2 --memory 4M \
		--downtime-limit 60s" >/tmp/send 2>&1
	check $? "send of a set of two without root" "$(cat /tmp/send /tmp/receive | tr '\n' ' ')"
	expect "the set is there" 0 "running" quiesce ask status --host /tmp/there
	kill $receiver
	wait $receiver
}

# A device of the kernel over vfio-user: the same tests on the other side of a socket.
reexport() {
	for n in 1 2; do
		quiesce serve "vfio:${TWO}$n" --socket /tmp/served$n >/tmp/serve$n 2>&1 &
		[ $n = 1 ] && first=$!
		wait_for $! /tmp/serve$n serving || check 1 "serve" "$(cat /tmp/serve$n)"
	done
	second=$!
	expect "a served device" 0 "STOP_COPY, P2P, PRE_COPY" quiesce info vfio-user:/tmp/served1
	guest move vfio-user:/tmp/served1 vfio-user:/tmp/served2
	guest matrix vfio-user:/tmp/served1
	quiesce receive --from unix:/tmp/move2 "a=vfio:${TWO}3" --memory 4M --control /tmp/there2 \
		>/tmp/receive 2>&1 &
	receiver=$!
	wait_socket $receiver /tmp/move2 || check 1 "receive" "$(cat /tmp/receive)"
	expect "from a served device into one of the kernel" 0 "" \
		quiesce send --to unix:/tmp/move2 a=vfio-user:/tmp/served1 --memory 4M \
		--downtime-limit 60s
	kill "$first" "$second" "$receiver"
	wait
}

migrate() {
	dirty=no
	[ "$WAY" = cdev ] && dirty=yes
	expect "an mtty with one port" 0 "STOP_COPY, P2P, PRE_COPY (flags 7)" \
		quiesce info "vfio:${ONE}1"
	expect "dirty log of the device" 0 "dirty log *$dirty" quiesce info "vfio:${TWO}1"
	guest matrix "vfio:${TWO}1,via=$WAY"
	guest move "vfio:${TWO}1,via=$WAY" "vfio:${TWO}2,via=$WAY"
	guest refuse "vfio:${TWO}1" "vfio:${ONE}1"
	guest files "vfio:${TWO}1"
	in_use
	killed
	removed
	move_set
	reexport
	guest measure "vfio:${TWO}1"
	if [ "$WAY" = cdev ]; then
		guest move "vfio:${ONE}1,via=legacy" "vfio:${ONE}2,via=legacy"
		guest dma "vfio:$EDU,via=legacy"
	fi
	guest rounds "vfio:${TWO}1" "vfio:${TWO}2" 1000
	checked
	guest raw "vfio:${ONE}1"
	guest crash "vfio:${ONE}2"
}

# What the checker finds by itself: of mtty it is told no more than where its scratch register is.
checked() {
	expect "the checker comes to its end" 1 "^1\\.\\." \
		quiesce check "vfio:${ONE}3,via=$WAY,raw" --register 0:7:1 --tap
	echo "$output" >/tmp/checked
	sed -n 's/^\(ok\|not ok\) [0-9]* - [^ ]* /TRIED \1 /p' /tmp/checked
}

chmod 1777 /tmp
make_mdevs
migrates=yes
quiesce info "vfio:${TWO}1" | grep -q "cannot migrate" && migrates=no
refusals
guest dma "vfio:$EDU,via=$WAY"
bind "$RNG" vfio-pci
bind "$SHARED2" vfio-pci
guest group "vfio:$SHARED,via=$WAY" "vfio:$SHARED2"
guest removal "vfio:$SHARED,via=$WAY" $SHARED
expect "a device that was taken away" 1 "bound to no driver" quiesce info "vfio:$SHARED"
guest vectors "vfio:$NVME,via=$WAY"
guest pins "vfio:$EDU" 20
if [ $migrates = yes ]; then migrate; else echo "NOTE the mtty of this kernel does not migrate"; fi
echo "DONE"
