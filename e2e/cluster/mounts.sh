# SPDX-FileCopyrightText: The Stowage authors
# SPDX-License-Identifier: EUPL-1.2
#
# Furnishes a node's private mount namespace, then holds it open. Run by `unshare -m --propagation private`.
#
# $1 is the node's folder, $2 the cluster's. The folders below are the node's own, in memory, so that nothing of it is
# left on the machine. The kernel settings that the kubelet would write are covered by plain files: they are the
# machine's, and a machine without full privilege refuses to change them.
set -eu
node=$1
state=$2

for folder in /run /var/lib/cni /var/lib/kubelet /var/log/containers /var/log/pods; do
  mkdir -p "$folder"
  mount -t tmpfs tmpfs "$folder"
done

mkdir -p "$node/sys"
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  cover=$node/sys/$(echo "$setting" | tr / .)
  cat "/proc/sys/$setting" >"$cover"
  mount --bind "$cover" "/proc/sys/$setting"
done

# Names are those of the cluster. The file may be a link into the /run that was just covered.
names=$(readlink -f /etc/resolv.conf)
mkdir -p "$(dirname "$names")"
[ -e "$names" ] || touch "$names"
mount --bind "$state/node-resolv.conf" "$names"

mount --make-rshared /
mkdir -p /run/containerd
touch "$node/mounts-ready"
exec sleep infinity
