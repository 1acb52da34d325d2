#!/bin/sh
# The first process of a guest. Words of the kernel's command line that it knows:
#   ballast.agent=off     nothing answers on the console port
#   ballast.load=<N>M     hold N MiB, without any agent ...
#   ballast.hold=<S>      ... and free them after S seconds (0, the default: never)
#   ballast.shell         a shell on the console
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/lib/modules/$module.ko" || echo "BALLAST-GUEST cannot load $module"
done < /lib/modules/order

agent=on load= hold=0 shell=
read -r words < /proc/cmdline
for word in $words; do
    case $word in
        ballast.agent=*) agent=${word#*=} ;;
        ballast.load=*) load=${word#*=} ;;
        ballast.hold=*) hold=${word#*=} ;;
        ballast.shell) shell=yes ;;
    esac
done

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
while [ -n "$shell" ]; do
    setsid sh -c 'exec sh < /dev/console > /dev/console 2>&1'
done
while :; do sleep 86400; done
