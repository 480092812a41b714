"""What the Optuna dashboard shows of a run beside its trials: a note that explains the columns,
and drawings of the best candidates."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import optuna_dashboard
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

from ghnas.engine.run import Run
from ghnas.engine.storage import writing
from ghnas.engine.trials import Trial
from ghnas.reports.drawing import as_svg, draw
from ghnas.reports.tables import contents, describe_order, ranking_table

DRAWN = 5
"""Candidates whose cells are drawn."""

EXPLAINED = {
    "accuracy": "zero-shot accuracy on validation images, in [0, 1]: with predicted weights, "
    "without any training",
    "loss": "zero-shot cross-entropy on validation images, in nats, lower is better",
    "composite": "zero-shot loss, separability and size together, higher is better",
    "predicted": "what is expected of a full training, from published ones: 0 is a middling "
    "candidate, 1 better than 84 %",
    "params": "trainable parameters",
    "flops": "multiply-adds x 2, for one image",
    "latency": "seconds for a batch, as predicted from measured networks",
}


def artifact_store(run: Run) -> FileSystemArtifactStore | None:
    """Where a run keeps the drawings; None if it has none yet."""
    folder = run.path / "artifacts"
    return FileSystemArtifactStore(str(folder)) if folder.is_dir() else None


def annotate(run: Run, ranked: Sequence[Trial]) -> None:
    """Write the note of a run's study and attach drawings of its best candidates; a drawing that
    is there already is not attached again.

    Args:
        run: With scored candidates; no other process searches in it.
        ranked: Its candidates, best first; the first few are enough.

    Raises:
        UserError: If the disk is full or the folder not writable.
    """
    best, study = ranked[:DRAWN], run.study()
    with writing(run.path), tempfile.TemporaryDirectory() as folder:
        (run.path / "artifacts").mkdir(exist_ok=True)
        store = FileSystemArtifactStore(str(run.path / "artifacts"))
        known = {item.filename: item.artifact_id for item in get_all_artifact_meta(study)}
        for item in best:
            path = Path(folder) / f"{item.name}.svg"
            if path.name not in known:
                path.write_text(as_svg(draw(item.architecture)))
                known[path.name] = upload_artifact(
                    artifact_store=store, file_path=str(path), study_or_trial=study
                )
        drawings = {item.name: known[f"{item.name}.svg"] for item in best}
        pictures = [
            f"![{name}](/artifacts/{study._study_id}/{drawing})"
            for name, drawing in drawings.items()
        ]
        optuna_dashboard.save_note(study, note(run, best, pictures))


def note(run: Run, best: Sequence[Trial], pictures: Sequence[str] = ()) -> str:
    """What the columns mean and what was found, in Markdown.

    Args:
        run: The search.
        best: Its best candidates.
        pictures: Of them, in Markdown.
    """
    names = run.manifest.objectives
    lines = [f"- **{name}**: {EXPLAINED.get(name, 'a training-free proxy')}" for name in names]
    lines += [
        f"- **{name}** (attribute): {EXPLAINED[name]}"
        for name in ("accuracy", "params", "flops")
        if name not in names
    ]
    lines += [
        "- **same_as** (attribute): the earlier trial with the same architecture",
        "- parameters of a trial: the choices of the space; a trial is shown with "
        "`ghnas show trial-N`",
    ]
    shown = ranking_table(run, best)
    head, rows = contents(shown)
    cut = (row[:-1] for row in (head, ["---"] * len(head), *rows))  # it is drawn below
    table = [f"| {' | '.join(row)} |" for row in cut]
    order = run.order
    trust = [describe_order(order)] if order else []
    drawn = [f"**{item.name}**\n\n{picture}" for item, picture in zip(best, pictures, strict=False)]
    parts = [
        ["## Columns"],
        lines,
        ["## The best"],
        table,
        [str(shown.caption)],
        trust,
        ["\n\n".join(drawn)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)
