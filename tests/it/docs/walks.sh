# For each walk (walks.rs): what the reader has done before, and what must be true after the
# commands of the page. The functions of sandbox.sh are there.

# config TYPE RANGE...: a network configuration.
config() {
    echo '{"cniVersion":"1.0.0","name":"'"${3:-pods}"'","type":"bridge","ipam":{"type":"'"$1"'",
        "ranges":[[{"subnet":"'"$2"'"}]]}}'
}

before_source() { :; }
after_source() {
    cmp /usr/local/bin/leasehold "$dir/bin/leasehold"
    cmp /opt/cni/bin/my-ipam "$dir/bin/my-ipam"
    leasehold config check /etc/leasehold.toml
    grep -q ExecStart=/usr/local/bin/leasehold /etc/systemd/system/leasehold.service
}

before_host_local() {
    config host-local 10.9.0.0/24 | CNI_COMMAND=ADD CNI_CONTAINERID=old CNI_IFNAME=eth0 \
        CNI_NETNS=/run/netns/old CNI_PATH=/opt/cni/bin /opt/cni/bin/host-local
    ip netns add old
    config my-ipam 10.9.0.0/24 > /etc/cni/net.d/pods.conf
    start_daemon
    says 'import host-local' call ADD new
}
after_host_local() {
    says old leasehold allocations
    call ADD new
    [ -z "$(ls /var/lib/cni/networks/pods/10.* 2>/dev/null)" ]
}

before_whereabouts() {
    cat > pools.json <<'END'
{ "kind": "List", "items": [{ "kind": "IPPool", "metadata": { "name": "10.9.0.0-24" }, "spec": {
    "range": "10.9.0.0/24", "allocations": {
        "5": { "id": "here", "podref": "shop/web", "ifname": "net1" },
        "6": { "id": "elsewhere", "podref": "shop/db", "ifname": "net1" } } } }] }
END
    echo here > pods
    config my-ipam 10.9.0.0/24 > /etc/cni/net.d/pods.conf
    start_daemon
}
after_whereabouts() {
    says 10.9.0.5 leasehold allocations
    if leasehold allocations | grep -F 10.9.0.6; then exit 1; fi
}

before_etcd_cni() {
    start_etcd
    etcdctl put /neutron/endpoints/pay/10.9.0.7 "$(hostname):old:pay-1"
    config my-ipam 10.9.0.0/24 macvlannet > /etc/cni/net.d/pods.conf
    start_daemon --etcd http://127.0.0.1:2379
}
after_etcd_cni() {
    says 10.9.0.7 leasehold allocations
}

before_cluster() { start_etcd; }
after_cluster() {
    within 30 says member leasehold status
    call ADD c1
}

# With certificates as the page has them. The page's file has three members, of which one is here.
before_user() {
    cd "$dir"
    ln -s "$repository/deploy" deploy
    local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${key[@]}" -keyout ca-key.pem -subj /CN=authority -days 2 -out ca.pem
    sign etcd subjectAltName=IP:10.0.0.1,IP:127.0.0.1
    sign root extendedKeyUsage=clientAuth
    mkdir -p /etc/leasehold
    echo a-secret > /etc/leasehold/password
    chmod 600 /etc/leasehold/password
    etcd --data-dir /var/lib/etcd --listen-client-urls https://10.0.0.1:2379 \
        --advertise-client-urls https://10.0.0.1:2379 --cert-file etcd.pem \
        --key-file etcd-key.pem > /var/log/etcd.log 2>&1 &
    within 30 etcdctl --endpoints https://10.0.0.1:2379 --cacert ca.pem endpoint health
}
sign() {
    openssl req "${key[@]}" -keyout "$1-key.pem" -subj "/CN=$1" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 \
        -extfile <(echo "$2") -out "$1.pem"
}
after_user() {
    echo rootpassword | etcdctl user add root --interactive=false
    etcdctl user grant-role root root
    etcdctl auth enable
    cp ca.pem /etc/leasehold/ca.pem
    sed 's|, "https://10.0.0.[23]:2379"||g' "$dir/configuration" > /etc/leasehold.toml
    start_daemon
    within 30 says member leasehold status
    etcdctl --user leasehold:a-secret get --prefix /leasehold/v1/ --keys-only
    says 'permission denied' etcdctl --user leasehold:a-secret get /registry
}

# etcd has the options of the page.
before_compaction() {
    # shellcheck disable=SC2046
    start_etcd $(cat "$dir/options")
    for value in 1 2 3; do etcdctl put key "$value"; done
}
after_compaction() {
    says 'has been compacted' etcdctl get key --rev=2
    [ -z "$(etcdctl alarm list)" ]
}

before_backup() {
    start_etcd
    mkdir -p /var/backups
}
after_backup() {
    etcdctl snapshot status /var/backups/leasehold.db
}

before_restore() {
    before_backup
    etcdctl snapshot save /var/backups/leasehold.db
    kill "$etcd"
    wait "$etcd" || true
}
# The two other members are not here: tests/it/cluster/restored.rs restores three.
after_restore() { [ -d /var/lib/etcd/member ]; }

before_lab() { :; }
# The table of the page.
after_lab() {
    kill -STOP "$(cat lab/etcd-m1.pid)"
    deploy/lab/pod lab n1 one-member-hangs
    kill -STOP "$(cat lab/etcd-m1.pid)" "$(cat lab/etcd-m2.pid)"
    deploy/lab/pod lab n1 no-majority
    kill -CONT "$(cat lab/etcd-m1.pid)" "$(cat lab/etcd-m2.pid)"
    kill -9 "$(cat lab/n3.pid)"
    within 90 says gone leasehold node list --socket lab/n1/leasehold.sock
    deploy/lab/pod lab n1 web --end
    deploy/lab/down lab
    [ ! -e lab ]
}

before_call() {
    start_daemon
    ip netns add c1
}
after_call() { says c1 leasehold allocations; }

before_containerd() { start_daemon; }
after_containerd() { is_copied containerd /etc/cni/net.d/containerd.conflist; }
before_crio() { start_daemon; }
after_crio() { is_copied crio /etc/cni/net.d/crio.conflist; }
before_nerdctl() { start_daemon; }
after_nerdctl() { is_copied nerdctl /etc/cni/net.d/nerdctl.conflist; }
before_podman() { start_daemon; }
after_podman() { is_copied podman /etc/cni/net.d/pods.conflist; }
before_nomad() { :; }
after_nomad() { is_copied nomad /opt/cni/config/pods.conflist; }
is_copied() { cmp "deploy/examples/runtimes/$1.conflist" "$2"; }
