"""Scenarios for the API server with Python's stock client.

Run by python.rs as `python -c <this> <kubeconfig> <scenario>`; prints `done` at the end of a scenario.
"""

import datetime
import json
import sys
import threading

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException


def service(name, **spec):
    ports = [client.V1ServicePort(name="http", port=80, target_port=8080)]
    return client.V1Service(
        metadata=client.V1ObjectMeta(name=name, labels={"of": "test"}),
        spec=client.V1ServiceSpec(ports=ports, selector={"app": name}, **spec),
    )


def crud(core):
    created = core.create_namespaced_service("default", service("web", type="NodePort"))
    assert created.spec.cluster_ip.startswith("10.96."), created.spec.cluster_ip
    assert 30000 <= created.spec.ports[0].node_port <= 32767, created.spec.ports
    assert created.spec.ports[0].protocol == "TCP", created.spec.ports
    names = [item.metadata.name for item in core.list_namespaced_service("default", label_selector="of=test").items]
    assert names == ["web"], names
    patched = core.patch_namespaced_service("web", "default", {"spec": {"sessionAffinity": "ClientIP"}})
    assert patched.spec.session_affinity_config.client_ip.timeout_seconds == 10800, patched.spec
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    core.patch_namespaced_service_status("web", "default", status)
    read = core.read_namespaced_service("web", "default")
    assert read.status.load_balancer.ingress[0].ip == "192.0.2.1", read.status
    read.spec.ports[0].port = 81
    replaced = core.replace_namespaced_service("web", "default", read)
    assert replaced.spec.ports[0].port == 81 and replaced.spec.cluster_ip == created.spec.cluster_ip, replaced.spec
    core.delete_namespaced_service("web", "default")
    assert core.list_namespaced_service("default", label_selector="of=test").items == []
    assert [node.metadata.name for node in core.list_node().items] == []


def watching(core):
    def change():
        for step in range(5):
            data = {"step": str(step)}
            body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c", labels={"of": "test"}), data=data)
            if step == 0:
                core.create_namespaced_config_map("default", body)
            else:
                core.replace_namespaced_config_map("c", "default", body)
        core.delete_namespaced_config_map("c", "default")

    start = core.list_namespaced_config_map("default", label_selector="of=test").metadata.resource_version
    writer = threading.Thread(target=change)
    writer.start()
    seen, revisions, watcher = [], [], watch.Watch()
    stream = watcher.stream(
        core.list_namespaced_config_map, "default", label_selector="of=test", resource_version=start, timeout_seconds=20
    )
    for event in stream:
        seen.append((event["type"], event["object"].data["step"]))
        revisions.append(int(event["object"].metadata.resource_version))
        if event["type"] == "DELETED":
            watcher.stop()
    writer.join()
    expected = [("ADDED", "0")] + [("MODIFIED", str(step)) for step in range(1, 5)] + [("DELETED", "4")]
    assert seen == expected, seen
    assert revisions == sorted(set(revisions)), revisions


def pages(core):
    for index in range(7):
        metadata = client.V1ObjectMeta(name=f"c{index}", labels={"of": "test"})
        core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=metadata))
    names, token, sizes = [], None, []
    while True:
        page = core.list_namespaced_config_map("default", label_selector="of=test", limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        sizes.append(len(page.items))
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"c{index}" for index in range(7)], names
    assert sizes == [3, 3, 1], sizes


def election(_core):
    """Candidates that read, wait for each other, and write: the revision lets one through."""
    leases = client.CoordinationV1Api()
    spec = client.V1LeaseSpec(holder_identity="", lease_duration_seconds=15, lease_transitions=0)
    leases.create_namespaced_lease("default", client.V1Lease(metadata=client.V1ObjectMeta(name="leader"), spec=spec))
    candidates, rounds = 4, 5
    barrier, won, lock = threading.Barrier(candidates), [], threading.Lock()

    def campaign(name):
        for term in range(rounds):
            lease = leases.read_namespaced_lease("leader", "default")
            barrier.wait(20)
            lease.spec.holder_identity = name
            lease.spec.lease_transitions += 1
            lease.spec.renew_time = datetime.datetime.now(datetime.timezone.utc)
            try:
                leases.replace_namespaced_lease("leader", "default", lease)
                with lock:
                    won.append((term, name))
            except ApiException as error:
                assert error.status == 409, error
            barrier.wait(20)

    threads = [threading.Thread(target=campaign, args=(f"candidate-{index}",)) for index in range(candidates)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [term for term, _ in won] == list(range(rounds)), won
    lease = leases.read_namespaced_lease("leader", "default")
    assert lease.spec.lease_transitions == rounds, lease.spec
    assert lease.spec.holder_identity == won[-1][1], lease.spec


def errors(core):
    def refused(call, *arguments):
        try:
            call(*arguments)
        except ApiException as error:
            return error.status, json.loads(error.body)
        raise AssertionError("it should have been refused")

    code, status = refused(core.read_namespaced_service, "web", "default")
    assert code == 404 and status["kind"] == "Status" and status["reason"] == "NotFound", status
    assert status["details"]["name"] == "web" and status["details"]["kind"] == "services", status
    bad = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 0, "targetPort": 1}]}}
    code, status = refused(core.create_namespaced_service, "default", bad)
    assert code == 422 and status["reason"] == "Invalid", status
    cause = status["details"]["causes"][0]
    assert cause["reason"] == "FieldValueInvalid" and cause["field"] == "spec.ports[0].port", status
    core.create_namespaced_service("default", service("web"))
    code, status = refused(core.create_namespaced_service, "default", service("web"))
    assert code == 409 and status["reason"] == "AlreadyExists", status


def main():
    kubeconfig, scenario = sys.argv[1:]
    config.load_kube_config(kubeconfig)
    scenarios = {"crud": crud, "watch": watching, "pages": pages, "election": election, "errors": errors}
    scenarios[scenario](client.CoreV1Api())
    print("done")


main()
