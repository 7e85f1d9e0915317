from pathlib import Path

import pytest
import torch

from stilla import data
from stilla.check import check
from stilla.recipe.file import from_options
from stilla.stages.starting import start_student
from stilla.tasks import find
from tests import tiny


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("student", [{"layers": 2}, {"config": {"num_hidden_layers": 1}}], ids=str)
def test_a_student_is_cut_from_the_weights_as_stored_whatever_the_teachers_precision(
    tmp_path: Path, precision: str, student: dict[str, object]
) -> None:
    def started(precision: str) -> torch.nn.Module:
        options = tiny.recipe(tmp_path, teacher={"model": str(tmp_path / "start"), "precision": precision}, student=student)
        recipe = from_options(options)
        task = find(recipe.task).understand(recipe.data, data.load(recipe.data, seed=0))
        torch.manual_seed(0)
        teacher = task.load(recipe.teacher, labelled=True)
        torch.manual_seed(1)
        return start_student(recipe.student, task, teacher, recipe.teacher)[0].model

    tiny.bert(tmp_path / "start")
    whole, low = started("float32").state_dict(), started(precision).state_dict()
    assert whole.keys() == low.keys()
    assert all(torch.equal(whole[name], low[name]) for name in whole)
    assert {value.dtype for value in low.values() if value.is_floating_point()} == {torch.float32}


def test_a_student_that_has_too_few_embeddings_for_the_teachers_tokens_is_refused(tmp_path: Path) -> None:
    teacher = tiny.bert(tmp_path / "teacher")
    (problem,) = check(from_options(tiny.recipe(tmp_path, teacher=teacher, student={"config": {"vocab_size": 7}}))).problems
    assert problem.startswith("student.config: an embedding for 7 tokens, and the teacher's tokenizer goes up to ")
    assert "Leave vocab_size out" in problem
