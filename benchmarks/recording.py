"""What recording costs a search, and how long the dashboard needs to open the study."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from common import write_table

from ghnas.engine.run import create_run
from ghnas.engine.runs import find_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--run", default=None, help="of a finished search; default: the latest")
    options = parser.parse_args()
    run = find_run(options.results, options.run)
    trials = run.study().get_trials(deepcopy=False)
    finished = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    wall = (max(finished) - min(finished)).total_seconds()
    records, size_of_batch = run.read(), run.manifest.batch_size
    with tempfile.TemporaryDirectory() as folder:
        copy = create_run(Path(folder), run.manifest)
        began = time.monotonic()
        for start in range(0, len(records), size_of_batch):
            batch = records[start : start + size_of_batch]
            copy.write(batch)
            copy.note_progress(start + len(batch), 0.0)
        recording = time.monotonic() - began
        size = copy.study_path.stat().st_size
        opened, megabytes = _open_dashboard(copy.storage_url)
    write_table(
        "recording",
        f"Recording {len(records):,} candidates, and opening them in the dashboard",
        ("what", "measured"),
        [
            ("the search, first batch recorded to last", f"{wall:.0f} s"),
            (f"recording alone, batches of {size_of_batch}", f"{recording:.1f} s"),
            ("share of the search", f"{100 * recording / wall:.1f} %"),
            ("journal", f"{size / 1e6:.1f} MB"),
            ("`optuna-dashboard` started, until the study's page has its data", f"{opened:.1f} s"),
            ("what the browser is sent", f"{megabytes:.0f} MB"),
        ],
    )


def _open_dashboard(storage: str) -> tuple[float, float]:
    """Seconds from the start of the process to the study's trials as JSON, and their size."""
    began = time.monotonic()
    script = Path(sys.executable).with_name("optuna-dashboard")
    server = subprocess.Popen([script, storage, "--port", "18080"], stderr=subprocess.DEVNULL)
    try:
        url = "http://127.0.0.1:18080/api/studies"
        while True:
            try:
                studies = json.load(urllib.request.urlopen(url, timeout=60))["study_summaries"]
                break
            except OSError:
                time.sleep(0.05)
        answer = urllib.request.urlopen(f"{url}/{studies[0]['study_id']}", timeout=120).read()
        return time.monotonic() - began, len(answer) / 1e6
    finally:
        server.kill()


if __name__ == "__main__":
    main()
