"""Gathers what tools/gpu_checks.sh has measured: OUT/results.json; the exit codes of its parts on stdin."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main(out: Path, lines: list[str]) -> int:
    """Writes the file; 1 if a part failed."""
    codes = {name: int(code) for name, code in (line.split() for line in lines)}
    results: dict[str, Any] = {
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax")},
        "gpu": _gpu(),
        "exit_codes": codes,
    }
    for name in codes:
        path = out / f"{name}.json"
        if path.is_file():
            results[name] = json.loads(path.read_text())
    log = out / "training" / "metrics.jsonl"
    if log.is_file():
        results["training"] = [json.loads(line) for line in log.read_text().splitlines()]
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"{out / 'results.json'}: {', '.join(f'{n} {c}' for n, c in sorted(codes.items()))}")
    return int(any(codes.values()))


def _gpu() -> str | None:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.stdin.read().splitlines()))
