"""A thousand services on a cluster, a workload each: seconds to the first status; a watch at rest and with changes.

The cluster is the API server double of the tests, in a process of its own. Part of `make bench`.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

COUNT = 1000
LOOK_SECONDS = 20.0
CHANGES_A_SECOND = 5


def serve(folder: str, ready: Event, busy: Event, over: Event) -> None:
    """The double with all services, until it is over; once it is to be busy, a pod changes five times a second."""
    from kube_server import KubeServer
    from serving_scenes import NAMESPACE, Scene

    with KubeServer() as server:
        for number in range(COUNT):
            scene = Scene(server, f"service-{number}")
            scene.ready()
            server.put(_workload(scene.pod, NAMESPACE))
        server.kubeconfig(Path(folder), namespace=NAMESPACE)
        ready.set()
        busy.wait()
        number = 0
        while not over.wait(1 / CHANGES_A_SECOND):
            number += 1
            scene = Scene(server, f"service-{number % COUNT}")
            scene.put_pod(engine={"restartCount": number, "state": {"running": {}}})


def _workload(pod: str, namespace: str) -> dict[str, object]:
    about = {"name": f"pod-{pod}", "namespace": namespace, "ownerReferences": [{"kind": "Pod", "name": pod}]}
    admitted = [{"type": "Admitted", "status": "True", "lastTransitionTime": "2026-11-25T09:00:00Z"}]
    return {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "spec": {"queueName": "all"},
            "metadata": about, "status": {"conditions": admitted}}  # fmt: skip


def bench_cluster(berth: Path) -> None:
    """Print the figures."""
    ready, busy, over = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Event()
    with tempfile.TemporaryDirectory() as folder:
        server = multiprocessing.Process(target=serve, args=(folder, ready, busy, over))
        server.start()
        ready.wait()
        config = f"{folder}/kubeconfig"
        begun = time.monotonic()
        done = subprocess.run([berth, "status", "--kubeconfig", config, "-o", "json"], capture_output=True, check=True)
        seconds = time.monotonic() - begun
        assert len(json.loads(done.stdout)["services"]) == COUNT
        idle, changing, size = _watch(berth, config, busy)
        over.set()
        server.join()
    print(f"status of {COUNT:,} services  {seconds:.2f} s")
    print(f"watch of {COUNT:,} services   {size:.0f} MB; of a core: {idle:.1%} when nothing changes, "
          f"{changing:.1%} with {CHANGES_A_SECOND} changes a second")  # fmt: skip


def _watch(berth: Path, config: str, busy: Event) -> tuple[float, float, float]:
    """Processor share over a time without and one with changes, and resident memory in MB."""
    command = [str(berth), "watch", "--forever", "-o", "jsonl", "--kubeconfig", config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        for _ in range(COUNT):
            process.stdout.readline()
        reading = Thread(target=process.stdout.read, daemon=True)
        reading.start()
        idle = _share(process.pid)
        busy.set()
        changing = _share(process.pid)
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        process.terminate()
        reading.join()
    return idle, changing, pages * 4096 / 1e6


def _share(pid: int) -> float:
    before = _ticks(pid)
    time.sleep(LOOK_SECONDS)
    return (_ticks(pid) - before) / 100 / LOOK_SECONDS


def _ticks(pid: int) -> int:
    """Processor time of a process in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    bench_cluster(Path(sys.executable).with_name("berth"))
