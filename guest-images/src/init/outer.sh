#!/bin/sh
# The first process of the outer machine: runs the command and ends the machine.
#   ttyS0  the kernel's console        ttyS1  what the command prints
#   d0  the payload, ext4              d1  /artifacts as a tar stream           d2  the command's text
#   d3  the library, ext4, where there is one
# Disks are known by their serial numbers: a kernel that probes them at the same time numbers them as they answer.
export PATH=/bin:/payload/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/shm /dev/pts /artifacts
mount -t devpts devpts /dev/pts
mount -t tmpfs -o size=90% tmpfs /tmp
mount -t tmpfs -o size=50% tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /artifacts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
while read -r module; do
    insmod "/lib/modules/$module.ko" || echo "cannot load $module"
done < /lib/modules/order
ip link set lo up
echo madvise > /sys/kernel/mm/transparent_hugepage/enabled
hostname outer

disk() {
    for block in /sys/block/nvme[0-9]n1; do
        read -r serial < "$block/device/serial"
        [ "$serial" = "$1" ] && echo "/dev/${block##*/}"
    done
}

# The program that started the machine knows by this that it lives.
(while read -r alive _ < /proc/uptime; do echo "alive $alive" > /dev/ttyS0; sleep 10; done) &
stty -F /dev/ttyS1 raw -echo
if mount -t ext4 -o ro "$(disk d0)" /payload; then
    export BALLAST_ARTIFACTS=/artifacts TMPDIR=/tmp XDG_RUNTIME_DIR=/run
    library=$(disk d3)
    # They belong to the user that built them; a store belongs to its user alone.
    [ -z "$library" ] || { mount -t ext4 "$library" /library && busybox chown -R 0:0 /library; }
    cat "$(disk d2)" > /run/command
    (cd /tmp && exec setsid sh /run/command) < /dev/null > /dev/ttyS1 2>&1
    code=$?
else
    echo "cannot mount the payload" > /dev/ttyS1
    code=125
fi
echo "$code" > /artifacts/exit_code
tar -c -C /artifacts . | dd of="$(disk d1)" bs=64k conv=fsync 2> /dev/null
# Setting a port waits until its last byte has left.
stty -F /dev/ttyS1 raw
workload exit-machine 0
poweroff
