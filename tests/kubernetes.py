"""Tests of deploy/kubernetes and deploy/helm; `tests/deploy kubernetes` runs it.

Every overlay is rendered by kustomize (in kubectl) and the chart by helm, the result is checked
against the schemas of Kubernetes, and the chart has to make what the overlay own-etcd makes.
Needs the tools of tests/tools; the first argument is their directory.
"""
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

VERSION = "1.36"
OVERLAYS = ["autoscaled", "containerd", "monitored", "multus", "node-capacity", "own-etcd", "pod-events", "trial", "uninstall"]
# Kinds of other projects: the schemas of Kubernetes do not have them.
FOREIGN = {"NetworkAttachmentDefinition", "PodMonitor", "PrometheusRule"}
ENDPOINTS = "etcd.endpoints={https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379}"
tools = sys.argv[1]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def objects(text):
    found = [of for of in yaml.safe_load_all(text) if of]
    named = {f"{of['kind']}/{of['metadata']['name']}": of for of in found}
    assert len(named) == len(found), "two objects of one name"
    return named


def kustomize(path):
    return objects(run(f"{tools}/kubectl", "kustomize", f"deploy/kubernetes/{path}"))


def helm(*args):
    return objects(run(f"{tools}/helm", "template", "leasehold", "deploy/helm/leasehold", *args))


def validate(name, all):
    for object in all.values():
        if object["kind"] not in FOREIGN:
            try:
                kubernetes_validate.validate(object, VERSION, strict=True)
            except Exception as error:
                sys.exit(f"{name}: {object['kind']} {object['metadata']['name']}: {error}")


def daemon(all):
    pod = all["DaemonSet/leasehold"]["spec"]["template"]["spec"]
    return next(of for of in pod["containers"] if of["name"] == "daemon")


def plain(all):
    """Without what the two tools name differently: the namespace, the hash at the end of the name
    of a ConfigMap and the annotation in its place, and the order of lists of objects."""
    def sort(value):
        if isinstance(value, dict):
            return {key: sort(of) for key, of in value.items()}
        if isinstance(value, list):
            value = [sort(of) for of in value]
            if value and isinstance(value[0], dict):
                value.sort(key=lambda of: json.dumps(of, sort_keys=True))
        return value

    result = {}
    for object in all.values():
        text = re.sub(r'"(leasehold-(?:config|conflist|etcd))-[a-z0-9]{10}"', r'"\1"',
                      json.dumps(object))
        object = sort(json.loads(text))
        object["metadata"].pop("namespace", None)
        object.get("spec", {}).get("template", {}).get("metadata", {}).pop("annotations", None)
        if object["kind"] != "Namespace":
            result[f"{object['kind']}/{object['metadata']['name']}"] = object
    return result


# The validation can fail.
broken = kustomize("base")["DaemonSet/leasehold"]
broken["spec"]["template"]["spec"]["hostNetwrok"] = True
try:
    kubernetes_validate.validate(broken, VERSION, strict=True)
    sys.exit("a wrong field conforms")
except kubernetes_validate.ValidationError:
    pass

assert sorted(os.listdir("deploy/kubernetes/overlays")) == OVERLAYS
for overlay in ["base"] + [f"overlays/{name}" for name in OVERLAYS]:
    validate(overlay, kustomize(overlay))

own = kustomize("overlays/own-etcd")
pod = own["DaemonSet/leasehold"]["spec"]["template"]["spec"]
assert pod["hostNetwork"] and not pod["automountServiceAccountToken"]
assert pod["priorityClassName"] == "system-node-critical"
assert pod["tolerations"] == [{"operator": "Exists"}]
for container in pod["initContainers"] + pod["containers"]:
    context = container["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]
    assert not context["allowPrivilegeEscalation"] and not context["privileged"]
    assert context["readOnlyRootFilesystem"] and container["resources"]["limits"]["memory"]
mounts = {mount["mountPath"]: mount for mount in daemon(own)["volumeMounts"]}
netns = mounts["/var/run/netns"]
assert netns["mountPropagation"] == "HostToContainer" and netns["readOnly"]
assert {"/var/lib/leasehold", "/run/leasehold", "/etc/machine-id"} <= mounts.keys()
# Addresses of a node that ran host-local must be seen, and their files removed.
assert not mounts["/var/lib/cni/networks"].get("readOnly")
assert mounts["/etc/cni/net.d"]["readOnly"]
assert daemon(own)["livenessProbe"]["httpGet"]["path"] == "/healthz"
assert daemon(own)["readinessProbe"]["httpGet"]["path"] == "/readyz"

whole = kustomize("overlays/monitored")
dashboards = whole["ConfigMap/leasehold-dashboards"]["data"]
assert sorted(dashboards) == sorted(of for of in os.listdir("dashboards") if of.endswith(".json"))
assert all(json.loads(text)["panels"] for text in dashboards.values())
assert "PrometheusRule/leasehold" in whole
# A variable is expanded only if it comes before; kubelet then asks the address of the node.
monitored = daemon(whole)
names = [of["name"] for of in monitored["env"]]
assert names.index("HOST_IP") < names.index("LEASEHOLD_LISTEN"), names
assert "host" not in monitored["readinessProbe"]["httpGet"]
asking = daemon(kustomize("overlays/containerd"))
[cri] = [of["value"] for of in asking["env"] if of["name"] == "LEASEHOLD_CRI"]
[mount] = [of for of in asking["volumeMounts"] if of["name"] == "containerd"]
assert cri.startswith(f"unix://{mount['mountPath']}/") and mount["readOnly"], (cri, mount)
trial = daemon(kustomize("overlays/trial"))
[url] = [of for of in trial["env"] if of["name"] == "LEASEHOLD_ETCD"]
assert "TRIAL_ETCD_SERVICE_HOST" in url["value"] and "valueFrom" not in url

# leasehold-kube may do what it needs, and no more.
autoscaled = kustomize("overlays/autoscaled")
kube = autoscaled["Deployment/leasehold-kube"]["spec"]["template"]["spec"]
[container] = kube["containers"]
context = container["securityContext"]
assert context["capabilities"] == {"drop": ["ALL"]} and context["readOnlyRootFilesystem"]
assert not context["allowPrivilegeEscalation"] and container["resources"]["limits"]["memory"]
assert kube["volumes"] == [
    {"name": "run", "hostPath": {"path": "/run/leasehold", "type": "Directory"}}]
assert container["image"] == daemon(autoscaled)["image"]
[rule] = autoscaled["ClusterRole/leasehold-kube"]["rules"]
assert rule == {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
for rule in autoscaled["Role/leasehold-kube"]["rules"]:
    assert rule["verbs"] == ["create"] or (
        rule["verbs"] == ["get", "update"] and len(rule["resourceNames"]) == 1), rule
# Events are asked for only where they are wanted.
assert not [name for name in autoscaled if name.endswith("-events")]
assert container["args"] == ["--grace=5m"], container["args"]
events = kustomize("overlays/pod-events")
[rule] = events["ClusterRole/leasehold-kube-events"]["rules"]
assert rule == {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch", "create"]}
[with_flag] = events["Deployment/leasehold-kube"]["spec"]["template"]["spec"]["containers"]
assert with_flag["args"] == ["--grace=5m", "--pod-events"], with_flag["args"]
# The same for the status of Node objects.
assert not [name for name in autoscaled if name.endswith("-capacity")]
told = kustomize("overlays/node-capacity")
[rule] = told["ClusterRole/leasehold-kube-capacity"]["rules"]
assert rule == {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]}
[telling] = told["Deployment/leasehold-kube"]["spec"]["template"]["spec"]["containers"]
assert telling["args"] == ["--grace=5m", "--node-capacity"], telling["args"]

multus = kustomize("overlays/multus")
containers = multus["DaemonSet/leasehold"]["spec"]["template"]["spec"]["containers"]
assert [of["name"] for of in containers] == ["daemon"]
networks = [of for of in multus.values() if of["kind"] == "NetworkAttachmentDefinition"]
assert {json.loads(of["spec"]["config"])["type"] for of in networks} == {
    "bridge", "ipvlan", "macvlan", "ptp"}
assert all(json.loads(of["spec"]["config"])["ipam"]["type"] == "my-ipam" for of in networks)

for args in [], ["--set", "monitoring=true"], ["--set", "etcd.tlsSecret="]:
    validate(f"helm {args}", helm("--set", ENDPOINTS, *args))
kube_args = ["--set", ENDPOINTS, "--set", "kube.enabled=true", "--namespace", "leasehold"]
with_kube = helm(*kube_args)
with_events = helm(*kube_args, "--set", "kube.podEvents=true")
with_capacity = helm(*kube_args, "--set", "kube.nodeCapacity=true")
validate("helm with leasehold-kube", with_events)
validate("helm for the scheduler", with_capacity)
pairs = [(own, helm("--set", ENDPOINTS)), (autoscaled, with_kube), (events, with_events),
         (told, with_capacity)]
for overlay, chart in pairs:
    overlay, chart = plain(overlay), plain(chart)
    assert overlay.keys() == chart.keys(), (overlay.keys(), chart.keys())
    for name in overlay:
        assert overlay[name] == chart[name], f"{name}\n{overlay[name]}\n{chart[name]}"
without = subprocess.run([f"{tools}/helm", "template", "leasehold", "deploy/helm/leasehold"],
                         capture_output=True, text=True)
assert without.returncode != 0 and "give the URLs" in without.stderr, without.stderr

for name in "leasehold.toml", "10-leasehold.conflist":
    files = [f"deploy/kubernetes/base/{name}", f"deploy/helm/leasehold/files/{name}"]
    assert len({open(file).read() for file in files}) == 1, files
bridge = open("deploy/kubernetes/conflists/bridge.conflist").read()
assert open("deploy/kubernetes/base/10-leasehold.conflist").read() == bridge

# What the documents have one type: manifests are rendered, and the objects of commands are there.
def blocks():
    for page in sorted(glob.glob("docs/*.md")):
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```", open(page).read(), re.M | re.S):
            yield page, language, text


rendered = {name: kustomize(f"overlays/{name}") for name in OVERLAYS}
# leasehold-kube makes these two by itself.
named = {"configmap/leasehold-kube-nodes", "lease/leasehold-kube"}
named |= {key.lower() for made in rendered.values() for key in made}
SECRETS = {of["secret"]["secretName"] for of in pod["volumes"] if "secret" in of}
tried = {"yaml": 0, "apply": 0, "exec": 0, "named": 0, "helm": 0}
for page, language, text in blocks():
    if language == "yaml" and "\nkind: " in text:
        validate(page, objects(text))
        tried["yaml"] += 1
    elif language == "yaml":
        # A kustomization, which is written at the root of the repository.
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree("deploy", f"{copy}/deploy")
            open(f"{copy}/kustomization.yaml", "w").write(text)
            made = objects(run(f"{tools}/kubectl", "kustomize", copy))
        validate(page, made)
        if "k3s" in text or "rancher" in text:
            volumes = {of["name"]: of for of in
                       made["DaemonSet/leasehold"]["spec"]["template"]["spec"]["volumes"]}
            paths = [volumes[name]["hostPath"]["path"] for name in ("cni-bin", "cni-conf")]
            assert all(path.startswith("/var/lib/rancher/k3s/") for path in paths), paths
        tried["yaml"] += 1
    if language != "console":
        continue
    for line in text.splitlines():
        if not line.startswith(("$ kubectl ", "$ helm ")):
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[0] == "helm":
            assert words[1:4] == ["install", "leasehold", "deploy/helm/leasehold"], line
            assert "DaemonSet/leasehold" in helm(*words[4:]), line
            tried["helm"] += 1
            continue
        if "-k" in words:
            path = words[words.index("-k") + 1]
            assert os.path.basename(path) in OVERLAYS, line
            tried["apply"] += 1
        for word in words:
            # KIND/NAME
            match = re.fullmatch(r"(ds|daemonset|deployment)/([\w-]+)", word)
            if match:
                kind = "daemonset" if match[1] == "ds" else match[1]
                assert f"{kind}/{match[2]}" in named, line
                tried["named"] += 1
        for kind in "daemonset", "lease", "configmap":
            if kind in words:
                assert f"{kind}/{words[words.index(kind) + 1]}" in named, line
                tried["named"] += 1
        if "secret" in words:
            assert words[words.index("generic") + 1] in SECRETS, (line, SECRETS)
            tried["named"] += 1
        if "exec" in words:
            program = words[words.index("--") + 1]
            containers = [of["name"] for of in pod["containers"]]
            assert program == "/leasehold" and words[words.index("-c") + 1] in containers, line
            tried["exec"] += 1
assert all(count > 0 for count in tried.values()), tried

# The commands of the containers are ones that the programs have.
if len(sys.argv) > 3:
    for container in pod["initContainers"] + pod["containers"]:
        subprocess.run([sys.argv[2], *container["args"], "--help"], check=True, capture_output=True)
    for container in with_flag, telling:
        assert container["command"] == ["/leasehold-kube"]
        subprocess.run([sys.argv[3], *container["args"], "--help"], check=True, capture_output=True)
