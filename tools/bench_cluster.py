"""A thousand services on a cluster: seconds to the first status; memory and processor share of a watch at rest.

The cluster is the API server double of the tests, in a process of its own. Part of `make bench`.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

COUNT = 1000
IDLE_SECONDS = 20.0


def serve(folder: str, ready: multiprocessing.synchronize.Event, over: multiprocessing.synchronize.Event) -> None:
    """The double with all services, until it is over."""
    from kube_server import KubeServer
    from serving_scenes import NAMESPACE, Scene

    with KubeServer() as server:
        for number in range(COUNT):
            Scene(server, f"service-{number}").ready()
        server.kubeconfig(Path(folder), namespace=NAMESPACE)
        ready.set()
        over.wait()


def bench_cluster(berth: Path) -> None:
    """Print the figures."""
    ready, over = multiprocessing.Event(), multiprocessing.Event()
    with tempfile.TemporaryDirectory() as folder:
        server = multiprocessing.Process(target=serve, args=(folder, ready, over))
        server.start()
        ready.wait()
        config = f"{folder}/kubeconfig"
        begun = time.monotonic()
        done = subprocess.run([berth, "status", "--kubeconfig", config, "-o", "json"], capture_output=True, check=True)
        seconds = time.monotonic() - begun
        assert len(json.loads(done.stdout)["services"]) == COUNT
        share, size = _watch(berth, config)
        over.set()
        server.join()
    print(f"status of {COUNT:,} services  {seconds:.2f} s")
    print(f"watch of {COUNT:,} services   {size:.0f} MB, {share:.1%} of a core when nothing changes")


def _watch(berth: Path, config: str) -> tuple[float, float]:
    """Processor share over an idle time, and resident memory in MB."""
    command = [str(berth), "watch", "--forever", "-o", "jsonl", "--kubeconfig", config]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(COUNT):
            process.stdout.readline()
        before = _ticks(process.pid)
        time.sleep(IDLE_SECONDS)
        used = _ticks(process.pid) - before
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        process.terminate()
    return used / 100 / IDLE_SECONDS, pages * 4096 / 1e6


def _ticks(pid: int) -> int:
    """Processor time of a process in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    bench_cluster(Path(sys.executable).with_name("berth"))
