"""An API server double in this process, on real sockets: what `berth` needs of one, answered as a real one answers.

    with KubeServer() as server:
        config = server.kubeconfig(tmp_path)                 # a file for --kubeconfig
        server.put({"apiVersion": "v1", "kind": "Pod", ...}) # as a controller would
        server.set_status(ref, {...})
        server.write_log("ns", "pod", "container", "line\\n")  # previous=True for the run before
        server.listen_in_pod("ns", "pod", 8080, real_port)   # what a port-forward leads to
        server.deny("list", "pods")                          # RBAC
        server.fail(status=503, path="/api/v1/pods", times=2)

How it answers is pinned by the contract suite (tests/integration/kubernetes), which runs against a real API server as
well when MODELBERTH_TEST_KUBECONFIG names one. No controller, scheduler, kubelet or webhook is in it.
"""

from kube_server.server import KubeServer

__all__ = ["KubeServer"]
