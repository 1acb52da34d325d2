#!/bin/sh
# The first process of a guest. Words of the kernel's command line that it knows:
#   ballast.agent=off     nothing answers on the console port
#   ballast.load=<N>M     hold N MiB, without any agent ...
#   ballast.hold=<S>      ... and free them after S seconds (0, the default: never)
#   ballast.root=<N>      mount N images, /dev/pmem0 the lowest, on /root, with a layer above for what is written ...
#   ballast.upper=<disk>  ... on this disk, ext4 (else in memory)
#   ballast.shell         a shell on the console
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

load_modules() {
    while read -r module; do
        insmod "$1/$module.ko" || echo "BALLAST-GUEST cannot load $module"
    done < "$1/order"
}

fail() {
    echo "BALLAST-GUEST failed: $*"
    # By its path: the shell has a command of this name of its own, which asks a first process that is not there.
    /bin/poweroff
    sleep 86400
}

# Waits for a device; a guest that lacks one says so and ends.
wait_for() {
    tries=0
    until [ -b "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "no $1 after 60 s"
        sleep 0.1
    done
}

# One image. The kernel may take `dax=always` and serve from its page cache nevertheless: the agent reports how
# much of each file DAX really serves (`read-tree`). Here it is checked that the mount has it at all.
mount_image() {
    wait_for "/dev/pmem$1"
    mkdir -p "/images/$1"
    mount -t erofs -o ro,dax=always "/dev/pmem$1" "/images/$1" ||
        fail "/dev/pmem$1 is not an EROFS image that DAX can serve"
    grep -q "^/dev/pmem$1 /images/$1 erofs .*dax=always" /proc/mounts || fail "/dev/pmem$1 is mounted without DAX"
}

# All of them on /root, with a layer above.
mount_root() {
    load_modules /lib/modules/root
    case $1 in [1-9] | 1[0-6]) ;; *) fail "ballast.root=$1: expected 1 to 16 images" ;; esac
    lower= number=0
    while [ "$number" -lt "$1" ]; do
        mount_image "$number"
        lower="/images/$number${lower:+:$lower}"
        number=$((number + 1))
    done
    mkdir -p /upper
    if [ -n "$2" ]; then
        wait_for "/dev/$2"
        mount -t ext4 "/dev/$2" /upper || fail "/dev/$2 holds no ext4 file system"
    else
        mount -t tmpfs tmpfs /upper
    fi
    mkdir -p /upper/files /upper/work
    mount -t overlay -o "lowerdir=$lower,upperdir=/upper/files,workdir=/upper/work" overlay /root ||
        fail "no overlay of $lower"
    for folder in proc sys dev; do
        mkdir -p "/root/$folder"
        mount -o bind "/$folder" "/root/$folder" || fail "no /root/$folder"
    done
    mkdir -p /root/dev/shm /root/dev/pts /root/tmp /root/run
    mount -t tmpfs tmpfs /root/dev/shm
    mount -t devpts devpts /root/dev/pts
    mount -t tmpfs tmpfs /root/run
    chmod 1777 /root/dev/shm /root/tmp
    ip link set lo up
}

load_modules /lib/modules

agent=on load= hold=0 shell= images= upper=
read -r words < /proc/cmdline
for word in $words; do
    case $word in
        ballast.agent=*) agent=${word#*=} ;;
        ballast.load=*) load=${word#*=} ;;
        ballast.hold=*) hold=${word#*=} ;;
        ballast.root=*) images=${word#*=} ;;
        ballast.upper=*) upper=${word#*=} ;;
        ballast.shell) shell=yes ;;
    esac
done
[ -z "$images" ] || mount_root "$images" "$upper"
# They are loaded, or not needed.
rm -rf /lib/modules/root

read -r uptime _ < /proc/uptime
read -r release < /proc/sys/kernel/osrelease
echo "BALLAST-GUEST ready $release $uptime"

# A guest without a console port has no device bound to this driver.
set -- /sys/bus/virtio/drivers/virtio_console/virtio*
if [ "$agent" != off ] && [ -e "$1" ]; then
    (while :; do workload --channel /dev/hvc0; sleep 1; done) &
fi
if [ -n "$load" ]; then
    workload load "${load%M}" "$hold" &
fi
# /dev/console cannot be the terminal that makes a signal of Ctrl-C; what is behind it can.
tty=$(cat /sys/class/tty/console/active)
tty=/dev/${tty##* }
while [ -n "$shell" ]; do
    setsid -c sh < "$tty" > "$tty" 2>&1
done
while :; do sleep 86400; done
