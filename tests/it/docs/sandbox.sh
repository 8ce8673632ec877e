# The start of every walk: a machine of its own, as far as a walk can tell. $1 is an empty
# directory, $2 the repository, $3 the directory with the programs. Runs in mount, network and
# process namespaces of its own, so nothing stays, neither files nor processes.
set -euo pipefail
dir=$1 repository=$2 programs=$3
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/bin"
for program in leasehold my-ipam; do
    touch "$dir/bin/$program"
    mount --bind "$programs/$program" "$dir/bin/$program"
done
# Everything that is written here goes to memory.
for place in /etc /opt /usr/local /var "$repository"; do
    mkdir -p "$dir/upper$place" "$dir/work$place"
    mount -t overlay overlay "$place" \
        -o "lowerdir=$place,upperdir=$dir/upper$place,workdir=$dir/work$place"
done
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
mkdir -p "$repository/target"
mount -t tmpfs tmpfs "$repository/target"
mkdir -p "$repository/target/sandbox"
ln -s "$dir/bin" "$repository/target/sandbox/release"
ip link set lo up
ip address add 10.0.0.1/32 dev lo
mkdir -p /etc/cni/net.d /opt/cni/bin
cp /usr/lib/cni/* /opt/cni/bin/
cp "$dir/bin/my-ipam" /opt/cni/bin/
export PATH=$dir/bin:$PATH ETCDCTL_API=3
cd "$repository"

# within SECONDS COMMAND...: tries again until the command succeeds.
within() {
    local limit=$((SECONDS + $1))
    shift
    until "$@" > "$dir/tried" 2>&1; do
        [ $SECONDS -lt $limit ] || { echo "not in time: $*"; cat "$dir/tried" /var/log/*.log; exit 1; }
        sleep 0.1
    done
}
start_etcd() {
    etcd --data-dir /var/lib/etcd "$@" > /var/log/etcd.log 2>&1 &
    etcd=$!
    within 30 etcdctl endpoint health
}
start_daemon() {
    leasehold serve "$@" 2> /var/log/leasehold.log &
    within 30 leasehold status
}
# says TEXT COMMAND...: the output of the command has this text.
says() {
    local text=$1 said
    shift
    said=$("$@" 2>&1) || true
    case $said in *"$text"*) ;; *) echo "no $text in: $* $said"; return 1 ;; esac
}
# call VERB CONTAINER: a call of the plugin for the network pods.
call() {
    echo '{"cniVersion":"1.0.0","name":"pods","ipam":{"type":"my-ipam","subnet":"10.9.0.0/24"}}' |
        CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$2 CNI_IFNAME=eth0 \
            CNI_PATH=/opt/cni/bin my-ipam
}
