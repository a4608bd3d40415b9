# What is left of a group of daemons goes: sh tear-down.sh FOLDER.
#
# Waits until standard input ends, which is when the test lets go of it or is dead, however it died. Everything of the
# group is found by the name of its folder: processes have it in their environment, cgroups and mounts in their path.
# Doing it twice does no harm.
folder=$1
name=${folder##*/}
cat >/dev/null

# The test holds this lock while it lives; so does whoever else tears down. A process that is killed closes its files one
# after another: the lock may be held a moment longer than the pipe.
exec 9>>"$folder/lock" || exit 0
flock -w 30 9 || exit 0

marked() {
    grep -lzxF "OPES_CLUSTER=$folder" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
}
in_cgroups() {
    for controller in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
        if [ -d "$controller$name" ]; then find "$controller$name" -name cgroup.procs -exec cat {} + 2>/dev/null; fi
    done
}
# Ten seconds at most: what survives SIGKILL that long hangs in the kernel.
for _ in $(seq 200); do
    # Zombies have no environment: they are not found, and not ours to reap.
    found=$(marked; in_cgroups)
    [ -n "$found" ] || break
    kill -KILL $found 2>/dev/null
    sleep 0.05
done

# A cgroup may be busy for a moment after its last process.
for controller in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
    for _ in $(seq 100); do
        [ -d "$controller$name" ] || break
        find "$controller$name" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
    done
done

# NAME VALUE a line, as they were before the kubelet.
if [ -e "$folder/sysctl" ]; then
    while read -r path value; do
        echo "$value" >"/proc/sys/$path"
    done <"$folder/sysctl"
fi

# In the namespace of the machine there should be none; removing files through one would be bad.
if ! grep -qF "$folder" /proc/self/mountinfo; then
    rm -rf "/dev/shm/$name"
    rm -rf --one-file-system "$folder"
fi
