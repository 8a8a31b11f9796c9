"""The command behind ``make demo`` and ``make serve``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.demo.ask import Answers, Question, ask, image_questions, text_questions
from deploy.demo.pictures import Strip, save, shade
from deploy.demo.server import Running, serving
from export.zoo.data import LEVELS, digits, text
from pxserve import Client

PAGE_COLUMNS = 160  # where the output is no terminal

TRY_NEXT = """
Serving on {target}; metrics on http://{metrics}/metrics. Try, in another terminal:

  .venv/bin/pxserve models --target {target}
  .venv/bin/pxserve sample digits-diffusion -n 16 --label 3 --seed 7 --out grid.png --target {target}
  .venv/bin/pxserve likelihood digits-gan --data digits.npy --target {target}
  .venv/bin/pxserve sample text-autoregressive --prompt "The import statement" --target {target}
  curl -s http://{metrics}/metrics | grep pxserve_

Ctrl-C drains and stops.
"""


def main() -> int:
    """Parse the flags; 0 when every question was answered or refused with a reason."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures")
    parser.add_argument("--serve-only", action="store_true", help="serve until Ctrl-C instead of asking")
    flags = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=PAGE_COLUMNS)
    if flags.serve_only:
        return serve(flags.models, console)
    flags.out.mkdir(parents=True, exist_ok=True)
    console.print(f"starting the server on {flags.models}/ ...")
    with serving(flags.models, log=flags.out / "server.log") as server:
        console.print(f"ready after {server.start_s:.1f} s on {server.target}")
        with Client(server.target) as client:
            show(question_all(client, console), flags.out, console)
    return 0


def serve(models: Path, console: Console) -> int:
    """Serve on the documented addresses until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with serving(models, "127.0.0.1:8500", "127.0.0.1:8502") as server:
        console.print(TRY_NEXT.format(target=server.target, metrics=server.metrics), markup=False)
        wait(server)
    return 0


def wait(server: Running) -> None:
    """Until the server ends or somebody interrupts."""
    try:
        server.process.wait()
    except KeyboardInterrupt:
        return


def question_all(client: Client, console: Console) -> dict[str, Answers]:
    """Ask every model, with a progress bar."""
    models = [model.name for model in client.list_models()]
    questions = {name: list(questions_for(client, name)) for name in models}
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    answers: dict[str, Answers] = {}
    with Progress(*columns, console=console) as progress:
        total = progress.add_task("asking", total=sum(map(len, questions.values())))
        for name in models:
            answers[name] = Answers()
            for question in questions[name]:
                progress.update(total, description=f"{name}: {question.operation}")
                ask(name, question, answers[name])
                progress.advance(total)
    return answers


def questions_for(client: Client, name: str) -> Iterator[Question]:
    """Handwriting for image models, prose for text models; neither was trained on."""
    data = client.get_model(name).data
    if data is not None and data.kind == "tokens":
        texts = [row.decode(errors="replace") for row in text().test[:4]]
        return text_questions(client, name, texts)
    return image_questions(client, name, digits().test.images)


def show(answers: dict[str, Answers], out: Path, console: Console) -> None:
    """Print the table, write the pictures."""
    table = Table(title="p(x), asked nine ways", show_lines=False)
    for heading in ("model", "operation", "method", "kind or reason", "answer"):
        table.add_column(heading, overflow="fold")
    table.add_column("ms", justify="right")
    for name, given in answers.items():
        for line in given.lines:
            cells = (line.model, line.operation, line.method, line.kind, line.value)
            table.add_row(*cells, f"{line.milliseconds:.0f}")
        table.add_section()
        strips = strips_of(given.results)
        if strips:
            save(strips, out / f"{name}.png", LEVELS)
        elif "sample" in given.results:
            (out / f"{name}.txt").write_text("\n\n".join(given.results["sample"].text))
    console.print(table)
    console.print(f"pictures: {', '.join(sorted(path.name for path in out.glob('*.png')))} in {out}/")


def strips_of(results: dict[str, Any]) -> list[Strip]:
    """Samples; a hidden lower half and its completions; reconstructions; interpolations."""
    images = digits().test.images
    strips: list[Strip] = []
    sample = results.get("sample")
    if sample is not None and sample.data.ndim == 4:
        strips += [("samples", list(sample.data[:8])), ("", list(sample.data[8:16]))]
    if "inpaint" in results and results["inpaint"].data.ndim == 5:
        strips += completions(images, results["inpaint"])
    if "reconstruct" in results and results["reconstruct"].data.ndim == 4:
        pairs = zip(images, results["reconstruct"].data, strict=False)
        strips.append(("given, reconstructed", [picture for pair in pairs for picture in pair]))
    if "interpolate" in results:
        strips += [("interpolation", list(row)) for row in results["interpolate"].data]
    return strips


def completions(images: NDArray[np.uint8], result: Any) -> list[Strip]:
    """Per image: what was given, four completions, the truth."""
    observed = np.zeros(images.shape[1:], np.bool_)
    observed[:, : images.shape[2] // 2] = True
    return [
        ("given, four completions, truth", [shade(image, observed, LEVELS), *completed, image])
        for image, completed in zip(images, result.data, strict=False)
    ]


if __name__ == "__main__":
    sys.exit(main())
