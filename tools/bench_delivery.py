"""The delivery's part of `make bench`: weights to S3 and back, and into a registry, beside the usual programs.

- upload and download of random bytes in three valid safetensors shards, one server for all (`rclone serve s3`);
- rerun: `berth ship` with hashes unknown and known, and `ship` and `fetch` of what is complete;
- oci: a third of the bytes in two shards, built into an image and pushed to Debian's registry, beside olot and skopeo.

Source, store and destination are folders of one filesystem. Every client runs as a whole process, in turn with the
others and in another order each round; the bytes it left are compared outside of the timing. Ratios are medians of the
rounds' own ratios. Alone: `.venv/bin/python tools/bench_delivery.py [--gib 3] [--rounds 3] [--only upload,oci]`.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_peers import (
    OLOT,
    ROOT,
    Client,
    Failed,
    Usage,
    base_layout,
    check,
    digests,
    is_there,
    measure,
    pushed,
    registry,
    s3_clients,
    write_model,
)
from bench_sizing import environment
from modelberth.adapters.s3_server import S3Server, start_server

BERTH = Path(sys.executable).with_name("berth")
PEERS = ROOT / ".venv-peers"
PARTS = ("upload", "download", "rerun", "oci")
GIB = 1 << 30
BUCKET = "bench"
OURS, FLOOR = "berth", "cp with fsync"
Results = dict[str, list[Usage]]


@dataclass
class Bench:
    """One session: its folder, how much it moves, how often, and the environments it makes for clients."""

    work: Path
    gib: float
    rounds: int
    peers: Path
    server: S3Server
    states: int = 0

    def environment(self, state: Path | None = None) -> dict[str, str]:
        """What a client needs and nothing of the user's own settings; for berth a state that nothing is known in."""
        ours = ("BERTH_", "RCLONE_", "S3_", "STORAGE_", "REGISTRY_")
        base = environment(self.server.endpoint, self.server)
        kept = {name: value for name, value in base.items() if not name.startswith(ours)}
        return kept | {
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_REGION": "us-east-1",
            "S3_ENDPOINT_URL": self.server.endpoint,
            "RCLONE_CONFIG": os.devnull,
            "TMPDIR": str(self.work),
            "BERTH_STATE": str(state or self.new_state()),
        }

    def new_state(self) -> Path:
        """A folder for `BERTH_STATE` that is not there yet."""
        self.states += 1
        return self.work / f"state-{self.states}"

    def run(self, command: list[str], state: Path | None = None) -> Usage:
        """Measure one client."""
        return measure(command, self.environment(state), self.work / "client.log")

    def stored(self, target: str) -> Path:
        """The folder that holds the objects of `bucket/prefix`."""
        return self.work / "store" / target


def bench_delivery(
    gib: float = 3, rounds: int = 3, only: tuple[str, ...] = PARTS, folder: Path | None = None, peers: Path = PEERS
) -> None:
    """Measure and print everything.

    Args:
        gib: GiB of the model.
        rounds: times that every client runs.
        only: the parts to measure.
        folder: holds source, store and destination; needs four times the bytes.
        peers: the environment with s5cmd, kserve-storage and olot.
    """
    folder = folder or choose_folder(int(4 * gib * GIB))
    print(f"\ndelivery: {gib:g} GiB, n={rounds}, in {folder}; peak memory is that of a client's largest process")
    with tempfile.TemporaryDirectory(prefix="berth-bench-", dir=folder) as made:
        work = Path(made)
        (work / "store" / BUCKET).mkdir(parents=True)
        server = start_server(work / "store", work / "s3.log")
        try:
            bench = Bench(work, gib, rounds, peers, server)
            if {"upload", "download", "rerun"} & set(only):
                bench_s3(bench, only)
            if "oci" in only:
                bench_oci(bench)
        finally:
            server.stop()


def choose_folder(needed: int) -> Path:
    """Memory where it is large enough, so that no disk is measured, else the folder for temporary files."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= needed:
        return memory
    return Path(tempfile.gettempdir())


# --- S3 ----------------------------------------------------------------------------------------------------


def bench_s3(bench: Bench, only: tuple[str, ...]) -> None:
    """The parts whose store is S3."""
    source = bench.work / "source"
    expected = write_model(source, int(bench.gib * GIB), 3)
    every = s3_clients(BERTH, bench.peers, bench.server.endpoint, bench.work / "store")
    clients = {client.name: client for client in every if is_there(client.name, client.probe, client.missing)}
    if "upload" in only:
        uploads(bench, clients, source, expected)
    if "download" in only:
        downloads(bench, clients, source, expected)
    if "rerun" in only and {OURS, FLOOR} <= clients.keys():
        reruns(bench, clients, source, expected)
    shutil.rmtree(source)


def uploads(bench: Bench, clients: dict[str, Client], source: Path, expected: dict[str, str]) -> None:
    """Every client to a prefix of its own."""

    def case(client: Client, command: Callable[[Path, str], list[str]]) -> Callable[[int], Usage]:
        def upload(number: int) -> Usage:
            target = f"{BUCKET}/{client.name.split()[0].strip(',')}-{number}"
            try:
                usage = bench.run(command(source, target))
                check(digests(bench.stored(target)), expected)
            finally:
                shutil.rmtree(bench.stored(target), ignore_errors=True)
            return usage

        return upload

    cases = {name: case(client, client.upload) for name, client in clients.items() if client.upload}
    results = in_turn(cases, bench.rounds)
    table("upload", bench.gib, results)
    goal("as fast as s5cmd, or faster", results, "s5cmd", lambda usage: usage.seconds)
    goal("a quarter of the CPU of s5cmd, or less (4x)", results, "s5cmd", lambda usage: usage.cpu)


def downloads(bench: Bench, clients: dict[str, Client], source: Path, expected: dict[str, str]) -> None:
    """Every client from the same prefix to a folder of its own."""
    target, destination = f"{BUCKET}/model", bench.work / "destination"
    store_model(bench, clients, source, target)

    def case(client: Client) -> Callable[[int], Usage]:
        def download(_number: int) -> Usage:
            try:
                usage = bench.run(client.download(target, destination))
                check(digests(destination), expected)
            finally:
                shutil.rmtree(destination, ignore_errors=True)
            return usage

        return download

    results = in_turn({name: case(client) for name, client in clients.items()}, bench.rounds)
    shutil.rmtree(bench.stored(target))
    table("download", bench.gib, results)
    for peer, times in (("kserve-storage", "2x"), ("s5cmd", "1.5x"), ("rclone", "1.5x")):
        goal(f"{times} faster than {peer}", results, peer, lambda usage: usage.seconds)
    floor(results, OURS)


def store_model(bench: Bench, clients: dict[str, Client], source: Path, target: str) -> None:
    """What all download: shipped by berth, so that it has the mark that `berth fetch` asks for."""
    for name in (OURS, "boto3, tuned"):
        if name in clients and (upload := clients[name].upload):
            try:
                bench.run(upload(source, target))
            except Failed as error:
                print(f"  {name} could not store the model: {error}")
            else:
                return
    raise SystemExit("error: nothing could store the model to download")


def reruns(bench: Bench, clients: dict[str, Client], source: Path, expected: dict[str, str]) -> None:
    """Berth alone: what it knows already, and what is there already."""
    ours, plain = clients[OURS], clients[FLOOR]
    if ours.upload is None:
        return
    names = "ship, hashes unknown", "ship, hashes known", "ship again", "fetch", "fetch again", FLOOR
    results: Results = {name: [] for name in names}
    destination = bench.work / "destination"
    for number in range(bench.rounds):
        first, second, state = f"{BUCKET}/unknown-{number}", f"{BUCKET}/known-{number}", bench.new_state()
        try:
            taken = [bench.run(ours.upload(source, first), state)]
            shutil.rmtree(bench.stored(first))
            taken += [bench.run(ours.upload(source, second), state) for _ in ("known", "again")]
            check(digests(bench.stored(second)), expected)
            taken += [bench.run(ours.download(second, destination), state) for _ in ("fetch", "again")]
            check(digests(destination), expected)
            shutil.rmtree(destination)
            taken.append(bench.run(plain.download(second, destination)))
        except Failed as error:
            print(f"  berth is left out of the reruns: {error}")
            return
        finally:
            for folder in (destination, bench.stored(first), bench.stored(second)):
                shutil.rmtree(folder, ignore_errors=True)
        for name, usage in zip(names, taken, strict=True):
            results[name].append(usage)
    table("berth alone", bench.gib, results, base="ship, hashes unknown")
    for again in ("ship again", "fetch again"):
        print(f"- {again} of what is complete: {median(results[again], 'seconds'):.2f} s; goal under 1 s")
    floor(results, "fetch")


# --- images ------------------------------------------------------------------------------------------------


def bench_oci(bench: Bench) -> None:
    """A folder to an image in a registry."""
    olot, skopeo = bench.peers / "bin" / "olot", shutil.which("skopeo") or "skopeo"
    if not is_there("oci", ["docker-registry", "--version"], "apt-get install docker-registry"):
        return
    source, size = bench.work / "source", bench.gib / 3
    expected = set(write_model(source, int(size * GIB), 2).values())
    host_folder, layout = bench.work / "registry", bench.work / "layout"
    with registry(host_folder, bench.environment()) as host:

        def case(command: list[str]) -> Callable[[int], Usage]:
            def push(_number: int) -> Usage:
                base_layout(layout)
                try:
                    usage = bench.run(command)
                    check(expected - pushed(host_folder / "store"), set())
                finally:
                    shutil.rmtree(host_folder / "store", ignore_errors=True)  # else the next one finds its blobs there
                    shutil.rmtree(layout)
                return usage

            return push

        def with_olot(name: str, flag: str) -> list[str]:
            return ["sh", "-c", OLOT, "sh", str(olot), skopeo, str(layout), str(source), f"{host}/{name}:1", flag]

        cases = {}
        if is_there(OURS, [str(BERTH), "ship", "--help"], "a berth that has it"):
            cases[OURS] = case([str(BERTH), "ship", str(source), f"oci://{host}/berth:1"])
        if is_there("olot", [str(olot), "--help"], "make peers") and is_there(
            "olot", [skopeo, "--version"], "apt-get install skopeo"
        ):
            cases["olot + skopeo"] = case(with_olot("olot", ""))
            cases["olot + skopeo, not compressed"] = case(with_olot("plain", "--preserve-digests"))
        results = in_turn(cases, bench.rounds)
    shutil.rmtree(source)
    table("image built and pushed", size, results)
    for peer in list(cases)[1:]:
        goal(f"1.5x faster than {peer}", results, peer, lambda usage: usage.seconds)


# --- turns and tables --------------------------------------------------------------------------------------


def in_turn(cases: dict[str, Callable[[int], Usage]], rounds: int) -> Results:
    """Run all cases in each round, another one first each time. One that fails is named and left out."""
    results: Results = {name: [] for name in cases}
    for number in range(rounds):
        names = list(results)
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            try:
                results[name].append(cases[name](number))
            except Failed as error:
                print(f"  {name} is left out: {error}")
                del results[name]
    return results


def table(title: str, gib: float, results: Results, base: str = OURS) -> None:
    """Medians as a Markdown table, with ratios to one of the rows."""
    if not results:
        return
    print(f"\n| {title}, {gib:.2g} GiB | wall s | CPU s | peak MiB | wall / {base} | CPU / {base} |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, usages in results.items():
        wall, cpu, peak = (median(usages, field) for field in ("seconds", "cpu", "peak"))
        ours = results.get(base)
        ratios = [f"{ratio(usages, ours, field):.2f}" if ours else "-" for field in ("seconds", "cpu")]
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {' | '.join(ratios)} |")
    print()


def median(usages: list[Usage], field: str) -> float:
    """Median of one field."""
    return statistics.median(getattr(usage, field) for usage in usages)


def ratio(usages: list[Usage], others: list[Usage], field: str) -> float:
    """Median of the rounds' ratios of one field."""
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(usages, others, strict=True))


def goal(title: str, results: Results, peer: str, of: Callable[[Usage], float]) -> None:
    """How a goal beside a peer came out."""
    if peer in results and OURS in results:
        times = statistics.median(of(a) / of(b) for a, b in zip(results[peer], results[OURS], strict=True))
        print(f"- goal: {title}; measured {times:.2f}x")


def floor(results: Results, name: str) -> None:
    """A verified download beside writing the same bytes with fsync."""
    if name in results and FLOOR in results:
        times = ratio(results[name], results[FLOOR], "seconds")
        print(f"- goal: within 1.25x of writing the same bytes with fsync; measured {times:.2f}x")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description="Delivery beside its peers.")
    parser.add_argument("--gib", type=float, default=3, help="GiB of the model")
    parser.add_argument("--rounds", type=int, default=3, help="times that every client runs")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--folder", type=Path, help="holds source, store and destination: four times the bytes")
    parser.add_argument("--peers", type=Path, default=PEERS, help="the environment with s5cmd, kserve-storage and olot")
    options = parser.parse_args()
    only = tuple(options.only.split(","))
    if unknown := set(only) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    bench_delivery(options.gib, options.rounds, only, options.folder, options.peers)


if __name__ == "__main__":
    main()
