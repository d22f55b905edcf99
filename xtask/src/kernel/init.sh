#!/bin/busybox sh
# The guest's first process: mounts what a machine has, runs /tests.sh, ends the machine. The
# kernel's console is ttyS0; what is said here goes to ttyS1, and the host reads it there.
# Where a real tool is, it stays.
/bin/busybox --install -s /usr/bin
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS1 2>&1
# Lines end as they are written.
stty -onlcr </dev/ttyS1
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 none /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
ip link set lo up
echo "mirror-kernel: booted $(uname -r)"
sh /tests.sh
echo "mirror-kernel: over"
# What was written is to have left the port.
sleep 1
poweroff -f
