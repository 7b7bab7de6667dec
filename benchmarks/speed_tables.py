"""The tables of benchmarks/speed.py, made from its figures and nothing else."""

from __future__ import annotations

from typing import Any

from benchmarks.tables import table

BATCHES = (1, 4, 16)
SIZES = ("640x480", "1920x1080")


def threads_in_words(n: int) -> str:
    return "one thread" if n == 1 else f"{n} threads"


def _ms(row: dict[str, Any], share: int = 1) -> str:
    return f"{row['ms'] / share:.2f} ({row['best_ms'] / share:.2f})"


def _per_second(ms: float, images_each: int = 1) -> str:
    rate = 1000 * images_each / ms
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _rate(row: dict[str, Any], images_each: int = 1) -> str:
    return f"{_per_second(row['ms'], images_each)} ({_per_second(row['best_ms'], images_each)})"


def _size(size: str) -> str:
    return size.replace("x", "×")


def _by_subject(figures: dict[str, Any]) -> dict[tuple[str, int], dict[str, dict[str, Any]]]:
    """Rows of figures by backend and threads, then by task."""
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in figures["rows"]:
        found.setdefault((row["backend"], row["threads"]), {})[row["task"]] = row
    return found


def words_of_machine(figures: dict[str, Any]) -> str:
    """One paragraph: machine, versions, and what was done."""
    m = figures["machine"]
    chips = f" with {', '.join(m['instructions'])}" if m["instructions"] else ""
    used = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    several = "cores" if m["cores"] > 1 else "core"
    return (
        f"{m['cpu']}{chips}, {m['cores']} {several}, {m['memory_gib']} GiB, {m['system']}; {used}. "
        "Medians, in brackets that of the best round."
    )


def warnings(figures: dict[str, Any]) -> list[str]:
    """Sentences on what makes the figures less than they seem."""
    said = []
    load, n = figures["machine"]["load_before"], figures["machine"]["cores"]
    if load is not None and load > 0.5:
        said.append(f"The machine was busy before: load average {load:g}, cores {n}.")
    for row in figures["rows"]:
        if row.get("threads", 1) == 1 and row["cores"] > 1.15:
            who = row["backend"]
            said.append(f"{who}, {row['task']}: one thread was asked for, {row['cores']:g} cores were busy.")
    return said


def keypoint_table(figures: dict[str, Any]) -> str:
    head = ["backend", "threads", *(f"batch {n}" for n in BATCHES), "network alone, batch 1"]
    rows = [
        [backend, str(n), *(_ms(tasks[f"keypoints {b}"], b) for b in BATCHES), _ms(tasks["network"])]
        for (backend, n), tasks in _by_subject(figures).items()
    ]
    return table(head, rows)


def picture_table(figures: dict[str, Any]) -> str:
    faces = figures["faces"]
    head = ["backend", "threads", f"detector on {_size(SIZES[0])}, ms"]
    head += [f"{_size(size)} with {faces[size]} faces, images/s" for size in SIZES]
    rows = [
        [backend, str(n), _ms(tasks["detector"]), *(_rate(tasks[f"predict {size}"]) for size in SIZES)]
        for (backend, n), tasks in _by_subject(figures).items()
    ]
    return table(head, rows)


def start_table(figures: dict[str, Any]) -> str:
    head = ["backend", "import, s", "load, s", "first call, s", "longest first call, s", "peak memory, MiB"]
    keys = ("import_s", "load_s", "first_call_s", "longest_first_call_s")
    rows = [
        [row["backend"], *(f"{row[key]:.2f}" for key in keys), f"{row['memory_mib']:.0f}"]
        for row in figures["starts"]
    ]
    return table(head, rows)


def training_table(figures: dict[str, Any]) -> str:
    by_task = {row["task"]: row for row in figures["training"]}
    rows = [["loader alone", "", _rate(by_task["loader"], by_task["loader"]["batch_size"])]]
    for task, row in by_task.items():
        what, _, precision = task.partition(" ")
        processes = f"{row['workers']} loader process{'' if row['workers'] == 1 else 'es'}"
        words = {"network": "network alone: forward, backward, update", "both": f"both, {processes}"}
        if what in words:
            rows.append([words[what], precision, _rate(row, row["batch_size"])])
    return table(["one thread", "precision", "images/s"], rows, texts=2)


def report(figures: dict[str, Any]) -> str:
    """All tables, as a page of Markdown."""
    parts = [words_of_machine(figures), *warnings(figures)]
    tables = {
        "Keypoints at known boxes, ms a face": keypoint_table if figures["rows"] else None,
        "Detector, and whole pictures": picture_table if figures["rows"] else None,
        "Start-up in a fresh process, all cores": start_table if figures["starts"] else None,
        "Training, train.py keypoints": training_table if figures["training"] else None,
    }
    for title, made_by in tables.items():
        if made_by is not None:
            parts += [f"### {title}", made_by(figures)]
    if figures["skipped"]:
        named = (f"- {each['name']}: {each['reason']}" for each in figures["skipped"])
        parts += ["### Skipped", "\n".join(named)]
    return "\n\n".join(parts)


def summary(figures: dict[str, Any]) -> str:
    """The short table for README.md: medians, one thread beside all cores."""
    subjects = _by_subject(figures)
    numbers = sorted({n for _, n in subjects})
    rows = []

    def add(title: str, backend: str, task: str, unit: str) -> None:
        cells = []
        for n in numbers:
            row = subjects.get((backend, n), {}).get(task)
            value = row and (f"{row['ms']:.2f}" if unit == "ms" else _per_second(row["ms"]))
            cells.append(f"{value} {unit}" if value else "")
        rows.append([title, *cells])

    backends = list(dict.fromkeys(backend for backend, _ in subjects))
    for backend in backends:
        add(f"keypoints of one face at a known box, {backend}", backend, "keypoints 1", "ms")
    if backends:
        first = min(backends, key=lambda backend: subjects[backend, numbers[0]]["keypoints 1"]["ms"])
        add(f"face detector, {_size(SIZES[0])}, {first}", first, "detector", "ms")
        for size in SIZES:
            title = f"whole picture, {_size(size)}, {figures['faces'][size]} faces, {first}"
            add(title, first, f"predict {size}", "images/s")
    lines = table(["", *(threads_in_words(n) for n in numbers)], rows)
    where = words_of_machine(figures).partition("Medians")[0]
    return f"{lines}\n\n{where}Medians; made by `{figures['command']}`."
