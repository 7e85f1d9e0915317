from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import nn

from stilla.errors import CompatibilityError
from stilla.models.counterparts import Counterparts, counterparts
from stilla.models.parts import chosen
from stilla.recipe import Width
from stilla.students import Student, by_layers, by_width, entire, first_units, fresh, given
from tests.equivalence.setting import bert
from tests.families import FAMILIES


def built(name: str) -> hf.PreTrainedModel:
    return next(family for family in FAMILIES if family.name == name).build()


def of(student: Student, teacher: nn.Module, **options: object) -> Counterparts:
    return counterparts(student.model, teacher, student.origins, student.slices, **options)  # type: ignore[arg-type]


# --- parts by name ---


def test_parts_are_found_by_what_the_model_is() -> None:
    model = bert(16, 3)
    assert {name.rpartition(".layer.")[0] for name in chosen(model, ["layers"], "x")} == {"bert.encoder"}
    assert {name.split(".")[3] for name in chosen(model, ["layers.0-1"], "x")} == {"0", "1"}
    assert all(name.startswith("bert.embeddings.") for name in chosen(model, ["embeddings"], "x"))
    assert chosen(model, ["head"], "x") == ("classifier.weight", "classifier.bias")
    assert chosen(model, ["bert.pooler"], "x") == ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
    assert chosen(model, ["*.attention.self.query.bias"], "x") == tuple(
        f"bert.encoder.layer.{index}.attention.self.query.bias" for index in range(3))
    assert chosen(model, None, "x") == tuple(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("pattern", ["layers.1-5", "layers.3", "layers.0-3"])
def test_layers_behind_the_last_are_refused_and_not_left_out(pattern: str) -> None:
    last = pattern[-1]
    with pytest.raises(CompatibilityError, match=rf"freeze: '{pattern}' goes to layer {last} of Bert.*layers.0 to layers.2"):
        chosen(bert(16, 3), ["head", pattern], "freeze")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "embeddings"), [
    ("gpt2", {"transformer.wte.weight", "transformer.wpe.weight"}), ("llama", {"model.embed_tokens.weight"}),
    ("vit", {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings",
             "vit.embeddings.patch_embeddings.projection.weight", "vit.embeddings.patch_embeddings.projection.bias"}),
])
def test_embeddings_are_what_lies_before_the_layers(name: str, embeddings: set[str]) -> None:
    assert embeddings <= set(chosen(built(name), ["embeddings"], "x"))
    layers = set(chosen(built(name), ["layers"], "x"))
    assert layers
    assert not layers & set(chosen(built(name), ["embeddings"], "x"))


@pytest.mark.slow
def test_a_head_that_shares_its_weights_is_known_by_their_first_name() -> None:
    model = built("gpt2")
    if model.config.tie_word_embeddings:
        assert chosen(model, ["head"], "x") == ("transformer.wte.weight",)


@pytest.mark.slow
def test_what_matches_nothing_is_refused_all_at_once() -> None:
    with pytest.raises(CompatibilityError) as refused:
        chosen(bert(16, 2), ["embedings", "layers.2", "head"], "student.freeze")
    first, second = refused.value.problems
    assert first.startswith("student.freeze: 'embedings' matches no weight of BertForSequenceClassification; expected "
                            "embeddings, ")
    assert first.endswith("Did you mean embeddings?")
    assert "'layers.2'" in second
    assert "layers.0 to layers.1" in second


# --- counterparts ---


def test_layers_of_a_student_that_was_cut_answer_to_those_they_came_from() -> None:
    teacher = bert(16, 4)
    student = by_layers(teacher, {"keep": [1, 2]})
    assert student.layer_map["layers"] == (1, 3)  # what the last is to say is another thing
    found = of(student, teacher)
    assert len(found.found) == len(list(student.model.parameters()))
    assert not found.lacking
    for one in found.found:
        ours = student.model.get_parameter(one.name)
        assert torch.equal(one.value(ours), ours), one.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "swin", "llama", "vit"])
def test_a_copy_answers_to_its_teacher_with_every_weight(name: str) -> None:
    teacher = built(name)
    student = entire(teacher)
    found = of(student, teacher)
    assert not found.lacking
    assert all(torch.equal(one.value(ours), ours) for one in found.found
               for ours in [student.model.get_parameter(one.name)])


@pytest.mark.slow
def test_a_narrower_student_answers_to_the_slices_that_it_kept() -> None:
    teacher = bert(32, 4)
    whole = by_layers(teacher, {"keep": [0, 2]})
    cut = by_width(whole.model, Width(ffn=0.5, rounds=1), first_units)  # type: ignore[arg-type]
    student = Student(cut.of(whole.model), whole.layer_map, whole.copied, cut.slices)  # type: ignore[arg-type]
    found = of(student, teacher)
    assert not found.lacking
    assert any(one.kept for one in found.found)
    assert all(torch.equal(one.value(ours), ours) for one in found.found
               for ours in [student.model.get_parameter(one.name)])


def test_a_given_student_answers_to_the_layers_it_is_compared_with() -> None:
    teacher, model = bert(16, 4), bert(16, 2)
    found = of(given(model, teacher), teacher)
    theirs = dict(teacher.named_parameters())
    (one,) = [one for one in found.found if one.name == "bert.encoder.layer.0.output.dense.weight"]
    assert one.theirs is theirs["bert.encoder.layer.1.output.dense.weight"]


@pytest.mark.slow
def test_what_has_another_shape_is_left_out_and_said() -> None:
    teacher = bert(32, 2)
    student = fresh(teacher, {"intermediate_size": 16})
    found = of(student, teacher)
    assert all(".intermediate." in name or name.endswith("output.dense.weight") for name in found.lacking)
    assert "without a counterpart: bert.encoder.layer.0.intermediate.dense.weight" in found.described(student.model)


def test_tables_of_other_tokens_answer_to_nothing() -> None:
    teacher, model = bert(16, 2), bert(16, 2)
    found = of(given(model, teacher), teacher, tokens=False)
    assert found.lacking == ("bert.embeddings.word_embeddings.weight",)


def test_nothing_to_compare_is_refused() -> None:
    teacher = bert(32, 2)
    with pytest.raises(CompatibilityError, match=r"x: nothing of layers has a counterpart in BertForSequenceClass.*: "
                                                 r"`bert\.encoder.*` has the shape \(16, 16\), not \(32, 32\)"):
        of(given(bert(16, 2), teacher), teacher, parts=["layers"], place="x")


@pytest.mark.slow
def test_what_is_not_trained_is_not_compared() -> None:
    teacher, model = bert(16, 2), bert(16, 2)
    model.bert.embeddings.requires_grad_(False)
    names = {one.name for one in of(given(model, teacher), teacher).found}
    assert not any(name.startswith("bert.embeddings") for name in names)
    with pytest.raises(CompatibilityError, match="none of it is trained"):
        of(given(model, teacher), teacher, parts=["embeddings"])
