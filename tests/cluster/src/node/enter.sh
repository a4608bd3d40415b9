# The inside of a node: sh enter.sh FOLDER SERVICES, as process 1 of new mount, network, process, host name and IPC namespaces.
#
# What the daemons mount, make and change is in these namespaces and ends with them. Two things are the whole machine's and not
# in a namespace: cgroups, which lie under the folder's name, and three kernel settings of the kubelet, which are noted first.
set -e
folder=$1
services=$2

mount --make-rshared /
# Folders that kubelet, containerd and CNI have compiled in.
for place in /run /var/lib /var/log; do
    mount -t tmpfs -o mode=755 opes-cluster "$place"
done
mkdir -p /run/netns /var/log/containers
hostname opes-node

# The node, and beside it a machine that is outside the cluster: mail clients, next hops.
ip link set lo up
ip netns add outside
ip link add eth0 type veth peer name eth0 netns outside
ip addr add 192.0.2.10/24 dev eth0
ip link set eth0 up
ip -n outside link set lo up
for address in 100 101 102 103; do
    ip -n outside addr add "192.0.2.$address/24" dev eth0
done
ip -n outside link set eth0 up
ip -n outside route add default via 192.0.2.10
# Cluster IPs exist in rules of kube-proxy only; a route lets connect() get that far.
ip route add "$services" dev eth0
echo 1 >/proc/sys/net/ipv4/ip_forward
# Pods of one bridge reach each other by cluster IPs.
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables

for path in vm/overcommit_memory kernel/panic kernel/panic_on_oops; do
    echo "$path $(cat "/proc/sys/$path")"
done >"$folder/sysctl"
for controller in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do
    if [ -e "$controller" ]; then mkdir -p "${controller%/*}/${folder##*/}"; fi
done
echo ready >"$folder/inside"

# Process 1 reaps what others leave behind.
while :; do
    sleep 3600 &
    wait
done
