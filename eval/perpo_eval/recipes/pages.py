"""A recipe's pages of PDF files: read them, take a part of them, teach the model by them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from perpo.common.hints import did_you_mean
from perpo.data import data_sha256, read_questions, write_jsonl
from perpo.errors import PerpoError
from perpo.models.checkpoints import files_digest
from perpo.prepare.pdf.build import build, documents_of
from perpo_eval.recipes.arguments import pdf_arguments, stage_key, teaching_arguments
from perpo_eval.recipes.recipe import DataFile, PagesPart, PdfPages, Recipe, SampledData
from perpo_eval.recipes.stage import Stage

TAUGHT = "taught"
"""The folder of the model that a recipe teaches first."""


def reading_pdfs(output: Path, folder: str, source: PdfPages) -> Stage:
    """Return the stage that does what perpo-data pdf does, in its folder."""
    arguments = pdf_arguments(source.folder, source.settings, output / folder, f"the pages {folder}")

    def work() -> dict[str, Any]:
        build(arguments)
        return {}

    def key() -> dict[str, Any]:
        paths = documents_of(source.folder)
        names = [path.relative_to(source.folder).as_posix() for path in paths]
        return {"settings": source.settings, "names": names, "pdfs": files_digest(paths)}

    return Stage("data", output, folder, key, work)


def taking_part(output: Path, folder: str, part: PagesPart, pages: DataFile) -> Stage:
    """Return the stage that writes some of the questions about pages."""

    def work() -> dict[str, Any]:
        questions = read_questions(pages.file)
        taken = questions[part.start : part.start + part.count]
        if len(taken) < part.count:
            raise PerpoError(
                f"{folder} needs {part.start + part.count} pages for training, and '{part.of}' has {len(questions)}",
                f"add PDF files, or make start or count smaller; {pages.file.parent / 'report.json'} says which pages "
                "were left out, and why",
            )
        write_jsonl(output / folder / "questions.jsonl", taken)
        return {}

    return Stage("data", output, folder, lambda: asdict(part) | {"data": data_sha256(pages.file)}, work)


def teaching(recipe: Recipe, output: Path, data: DataFile) -> Stage:
    """Return the stage that teaches the recipe's model."""
    assert recipe.teach is not None
    arguments = teaching_arguments(recipe, recipe.teach, data.file, data.image_root, output / TAUGHT)

    def work() -> dict[str, Any]:
        from perpo.train.run import train

        train(arguments)
        return {}

    return Stage("data", output, TAUGHT, lambda: stage_key(arguments, data_sha256(data.file)), work)


def check_pages(recipe: Recipe, where: str) -> None:
    """Refuse names of pages that are none, and a teaching that could not run.

    Raises:
        PerpoError: As said.
    """
    pages = {name: kind for name, kind in recipe.data.items() if isinstance(kind, PdfPages)}
    for name, source in recipe.data.items():
        if isinstance(source, PagesPart) and source.of not in pages:
            raise PerpoError(
                f"{where}: data: {name} is a part of '{source.of}', which is no pages of PDF files",
                did_you_mean(source.of, pages),
            )
    if recipe.evaluate.get("data") in set(recipe.data) - set(pages):
        raise PerpoError(
            f"{where}: evaluate: data: '{recipe.evaluate['data']}' is no pages of PDF files",
            "give these, tiny, hub, or a folder of rows",
        )
    if recipe.teach is not None:
        data = {name: kind for name, kind in recipe.data.items() if not isinstance(kind, SampledData)}
        if recipe.teach.data not in data:
            raise PerpoError(
                f"{where}: teach: the data '{recipe.teach.data}' do not exist, or are sampled",
                did_you_mean(recipe.teach.data, data),
            )
        teaching_arguments(recipe, recipe.teach, Path("nowhere"), Path("nowhere"), Path("nowhere"))
