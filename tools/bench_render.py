"""Rendering and linting large stacks: `berth render` and `berth lint` as whole commands, for 125, 250 and 500 services.

Beside `python -c pass` and as ratios of one run; part of `make bench`.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

COUNTS = (125, 250, 500)
ROUNDS = 5
HEAD = """\
apiVersion: modelberth.dev/v1alpha1
kind: Stack
metadata: {name: many, namespace: models}
platform: {kind: rhoai, version: "3.5"}
pools:
  - {name: quad, gpu: NVIDIA-L4, count: 4, nodes: 1000, instanceType: g6.12xlarge}
storage: {s3: {endpoint: "http://minio.store.svc:9000", bucket: models, credentials: {secret: minio-connection}}}
delivery: {image: "registry.example.com/platform/modelberth:0.1.0"}
models:
"""
MODEL = """\
  - name: model-{number}
    variants:
      - name: bf16
        service: service-{number}
        source: hf://owner/model-{number}
        weights: s3://models/model-{number}/
        pool: quad
        tensorParallelSize: 4
        dtype: bfloat16
        maxModelLen: 32768
        gpuMemoryUtilization: 0.9
        engineArgs: {{tool-call-parser: mistral, enable-auto-tool-choice: true}}
"""


def bench_render(berth: Path, wall: Callable[[list[str]], float]) -> None:
    """Measure and print.

    Args:
        berth: the command.
        wall: seconds of one run of a command.
    """
    with tempfile.TemporaryDirectory(prefix="berth-render-") as folder:
        for count in COUNTS:
            spec, target = Path(folder) / f"{count}.yaml", Path(folder) / f"tree-{count}"
            spec.write_text(HEAD + "".join(MODEL.format(number=number) for number in range(count)))
            first, again, lint = [], [], []
            for _ in range(ROUNDS):
                shutil.rmtree(target, ignore_errors=True)
                first.append(wall([str(berth), "render", str(spec), "-o", str(target)]))
                again.append(wall([str(berth), "render", str(spec), "-o", str(target)]))
                lint.append(wall([str(berth), "lint", str(target)]))
            medians = [statistics.median(each) for each in (first, again, lint)]
            print(f"{count} services: rendered {medians[0]:.2f} s, again {medians[1]:.2f} s, linted {medians[2]:.2f} s")
