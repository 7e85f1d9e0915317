"""Static students: a table of vectors made from a teacher, as sentence-transformers reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.errors import CompatibilityError, RecipeError
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval import static
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.told import embed
from tests import tiny
from tests.tasks.retrieval.setting import folder, loaded, search, sentences, spelling, texts
from tests.tasks.retrieval.test_runs import recipe

SAID = [*sentences(6, 7), "unheard the", " ".join(sentences(12, 8))]


def made(teacher: Loaded, width: int | None = None) -> Loaded:
    return Loaded(static.made_from(teacher, width), static.reader_of(teacher.processor), "made")


def by_hand(teacher: Loaded) -> NDArray[Any]:
    """Every token by itself through the teacher, centred, and weighted by how rare it is."""
    words = teacher.processor.tokenizer
    with torch.no_grad():
        model: Any = teacher.model
        vectors = np.concatenate([model(torch.tensor([[2, one, 3]]))["sentence_embedding"].double().numpy()
                                  for one in range(len(words))])
    often = 1 / (np.arange(len(words)) + 2)
    often /= often.sum()
    centred: NDArray[Any] = vectors - vectors.mean(0)
    return centred * (1e-4 / (1e-4 + often))[:, None]


def test_a_table_has_the_teachers_vector_of_each_token_centred_and_weighted(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path / "teacher"))
    table = static.made_from(teacher, None).embedding.weight.detach().numpy()
    np.testing.assert_allclose(table, by_hand(teacher), atol=1e-6)


def test_fewer_numbers_are_the_principal_components(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path / "teacher"))
    whole, few = by_hand(teacher), static.made_from(teacher, 5).embedding.weight.detach().double().numpy()
    often = 1 / (np.arange(len(few)) + 2)
    centred = whole / (1e-4 / (1e-4 + often / often.sum()))[:, None]
    kept = few / (1e-4 / (1e-4 + often / often.sum()))[:, None]
    best = (np.linalg.svd(centred, compute_uv=False)[:5] ** 2).sum()
    assert (kept**2).sum() == pytest.approx(best, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {}, {"normalised": False}, {"prompts": {"query": "the ", "all": "new "}, "default": "all"}],
                         ids=["plain", "of any length", "prompts"])
def test_sentence_transformers_gives_the_same_vectors(tmp_path: Path, options: dict[str, Any]) -> None:
    library = pytest.importorskip("sentence_transformers")
    student = made(loaded(folder(tmp_path / "teacher", **options)), 8)
    student.model.save_pretrained(tmp_path / "made")
    student.processor.save_pretrained(tmp_path / "made")
    theirs = library.SentenceTransformer(str(tmp_path / "made"), device="cpu")
    assert type(theirs[0]).__name__ == "StaticEmbedding"
    again = loaded(tmp_path / "made")
    asked: list[tuple[list[Kind | None], Any]] = [
        ([None] * len(SAID), theirs.encode), (["query"] * len(SAID), theirs.encode_query)]
    for kinds, encode in asked:
        ours = embed(student, SAID, kinds)
        np.testing.assert_allclose(ours, encode(SAID), atol=1e-6)
        np.testing.assert_allclose(embed(again, SAID, kinds), ours, atol=1e-7)
    # read to the end, however much is read of others
    np.testing.assert_allclose(embed(student, SAID, [None] * len(SAID), 4), theirs.encode(SAID), atol=1e-6)


def test_a_table_that_sentence_transformers_wrote_is_read(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    theirs = library.SentenceTransformer(modules=[StaticEmbedding(tiny.tokenizer(), embedding_dim=6)], device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    np.testing.assert_allclose(embed(loaded(tmp_path / "theirs"), SAID, [None] * len(SAID)), theirs.encode(SAID), atol=1e-6)


def test_a_table_in_fewer_rows_than_tokens_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}]))
    save_file({"embeddings": torch.zeros(2, 3), "mapping": torch.zeros(9)}, tmp_path / "model.safetensors")
    with pytest.raises(CompatibilityError, match=r"model\.safetensors has \['embeddings', 'mapping'\]"):
        loaded(tmp_path)


def test_a_subword_tokenizer_and_padding_change_nothing(tmp_path: Path) -> None:
    student = made(loaded(spelling(tmp_path / "teacher")))
    together = embed(student, SAID, [None] * len(SAID))
    alone = np.concatenate([embed(student, [one], [None]) for one in SAID])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("student", [{"static": True, "layers": 2}, {"static": True, "lora": {"r": 2}},
                                     {"static": True, "vocabulary": "data"}, {"static": True, "size": 0.3}])
def test_a_table_stands_alone_in_a_recipe(tmp_path: Path, student: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="static: a table of vectors has no layers"):
        from_options({"task": "embedding", "teacher": "x", "student": student, "data": {"train": "t.jsonl"}, "output": "run"})


def test_other_tasks_have_no_tables(tmp_path: Path) -> None:
    files = tiny.texts(tmp_path / "data", train=30, validation=12, test=12)
    asked = {"task": "text-classification", "teacher": tiny.bert(tmp_path / "bert"), "student": {"static": True},
             "data": {**files, "label": "topic"}, "output": str(tmp_path / "run")}
    problems = check(from_options(asked)).problems
    assert any(re.search(r"student\.static: is for task: embedding", one) for one in problems), problems


@pytest.mark.slow
def test_a_check_asks_no_teacher_about_each_token_and_says_what_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path, student={"static": True})
    table = static.any_of_its_shape(loaded(asked["teacher"]), None)
    assert table.embedding.weight.shape == static.made_from(loaded(asked["teacher"]), None).embedding.weight.shape
    assert static.any_of_its_shape(loaded(asked["teacher"]), 5).width == 5
    monkeypatch.setattr(static, "_of_tokens", lambda *_: pytest.fail("the teacher is asked"))
    found = check(from_options(asked))
    assert not found.problems
    assert found.estimate is not None
    assert found.estimate.seconds["tokens"].high > 0


@pytest.mark.slow
def test_a_table_is_distilled_exported_and_measured_like_any_student(tmp_path: Path) -> None:
    asked = recipe(tmp_path, student={"static": True}, data={"test": search(tmp_path / "search")}, export=["onnx"])
    run = stilla.distill(asked)
    student = loaded(run.student)
    inputs = student.processor.tokenizer(SAID, padding=True, return_tensors="pt")
    file = OnnxModel(run.folder / "export/onnx/model.onnx")
    np.testing.assert_allclose(file(dict(inputs)), embed(student, SAID, [None] * len(SAID)), atol=1e-5)
    start = static.made_from(loaded(asked["teacher"]), None).embedding.weight
    assert not torch.allclose(student.model.state_dict()["embedding.weight"], start, atol=1e-4)
    assert run.scores.student.cost.parameters == start.numel()
    stages = json.loads((run.folder / "stages.json").read_text())
    stilla.distill(asked)  # finished: nothing is done again
    assert json.loads((run.folder / "stages.json").read_text()) == stages
    assert evaluate_run(run.folder, texts(tmp_path / "others.jsonl", 20, 21)).metric == "teacher_cosine"
    again = stilla.distill({**asked, "student": {"model": str(run.student)}, "output": str(tmp_path / "again"), "export": []})
    assert type(loaded(again.student).model).__name__ == "StaticModel"
