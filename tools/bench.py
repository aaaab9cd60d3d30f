"""The figures of the README, measured on this machine: `make bench`.

- `berth --help` beside `python -c pass` and `hf --help` (from the engine's environment), in turn, medians;
- sizing: a thousand plans, `berth size` beside `python -c pass`, bytes read of a large model (tools/bench_sizing.py);
- rendering and linting stacks of up to 500 services (tools/bench_render.py);
- delivery: upload, download, rerun and image beside the usual programs (tools/bench_delivery.py);
- a thousand services watched: first status, memory, idle processor (tools/bench_cluster.py);
- diagnosis: logs of 100 MB and 200 MB, seconds and peak memory (tools/bench_diagnose.py);
- the main job's stages, first run (empty state, no compiled kernels) and second run;
- peak resident memory of `berth` itself, read from /proc while it serves.

A benchmark and no test: nothing here passes or fails. Linux only (/proc).
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_cluster import bench_cluster
from bench_delivery import bench_delivery
from bench_diagnose import bench_diagnose
from bench_render import bench_render
from bench_sizing import bench_sizing

ROOT = Path(__file__).parents[1]
SPEC = ROOT / "examples" / "harbor" / "berth.yaml"
BERTH = Path(sys.executable).with_name("berth")
ROUNDS = 15


def main() -> None:
    """Measure everything and print it."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    python = engine_python()
    start_times(python)
    bench_sizing(BERTH, wall)
    bench_render(BERTH, wall)
    bench_delivery()
    bench_diagnose(BERTH)
    bench_cluster(BERTH)
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
        state = Path(folder)
        (state / "runtimes").symlink_to(python.parents[3])
        for title in ("first run", "second run"):
            main_job(title, state)


def engine_python() -> Path:
    """The interpreter of the installed engine."""
    listed = subprocess.run([BERTH, "runtime", "list", "-o", "json"], capture_output=True, text=True, check=True)
    return Path(json.loads(listed.stdout)["runtimes"][0]["python"])


def start_times(engine: Path) -> None:
    """Median wall time of three commands, run in turn so that a slow moment hits all of them."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "berth --help": [str(BERTH), "--help"],
        "hf --help": [str(engine.with_name("hf")), "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():  # once unmeasured: files into memory
        wall(command)
    for _ in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(wall(command))
    bare = statistics.median(times["python -c pass"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:16} {median * 1000:6.0f} ms   {median / bare:5.1f} x python -c pass   (n={ROUNDS})")


def wall(command: list[str]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main_job(title: str, state: Path) -> None:
    """One run of the main job, kept serving until its memory has been read."""
    command = [BERTH, "up", "-o", "json", "--state", str(state), str(SPEC)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("the streams were opened as pipes")
        for line in process.stderr:
            if "serving; Ctrl-C" in line:
                break
        memory = peak_kib(process.pid)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        document = json.loads(process.stdout.read())
    report(title, document, memory)


def peak_kib(pid: int) -> int:
    """Peak resident memory of a process, KiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def report(title: str, document: dict, memory: int) -> None:
    """Print one run's figures."""
    print(f"\n{title}: {document['seconds']:.0f} s to the report; berth itself {memory / 1024:.0f} MiB at its peak")
    for service in document["services"]:
        stages = ", ".join(f"{stage['stage']} {stage['seconds']:.1f}" for stage in service["stages"])
        speed = f"first token {service['timeToFirstTokenSeconds']:.3f} s, {service['tokensPerSecond']:.0f} tokens/s"
        print(f"  {service['name']}: {stages}; {speed}")
    print(f"  recovery {document['recovery']:.3f}")


if __name__ == "__main__":
    main()
