"""A fresh student: the teacher's architecture and labels, other sizes, random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf
from torch import nn

from stilla.errors import CompatibilityError
from stilla.students import fresh
from tests.families import CLIP, SMALL, VISION

LABELS = {0: "no", 1: "perhaps", 2: "yes"}


def bert() -> hf.PreTrainedModel:
    return hf.BertForSequenceClassification(hf.BertConfig(**SMALL, num_hidden_layers=4, id2label=LABELS))


def test_the_fields_asked_for_change_and_all_others_are_the_teachers() -> None:
    teacher = bert()
    student = fresh(teacher, {"hidden_size": 8, "num_hidden_layers": 2}).model
    assert type(student) is type(teacher)
    assert not student.training
    changed = {name for name, value in teacher.config.to_dict().items() if student.config.to_dict()[name] != value}
    assert changed - {"dtype"} == {"hidden_size", "num_hidden_layers"}
    assert student.config.id2label == LABELS
    assert student.classifier.weight.shape == (3, 8)


def test_sizes_that_follow_from_each_other_have_to_be_named_all() -> None:
    teacher = hf.DebertaV2ForSequenceClassification(hf.DebertaV2Config(**SMALL, num_hidden_layers=1))
    words = r"with hidden_size=8 cannot be run: .*left as it was: .*pooler_hidden_size=16"
    with pytest.raises(CompatibilityError, match=words):
        fresh(teacher, {"hidden_size": 8})
    both = fresh(teacher, {"hidden_size": 8, "pooler_hidden_size": 8}).model
    assert both.classifier.weight.shape[1] == 8


def test_the_layer_map_is_the_automatic_one() -> None:
    assert fresh(bert(), {"num_hidden_layers": 2}).layer_map == {"layers": (1, 3)}


def test_weights_are_random_from_the_callers_seed_and_none_are_the_teachers() -> None:
    teacher = bert()
    students = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        students.append(fresh(teacher, {"num_hidden_layers": 2}).model.classifier.weight)
    assert torch.equal(students[0], students[1])
    assert not torch.equal(students[0], students[2])
    assert not torch.equal(students[0], teacher.classifier.weight)


def test_general_names_of_fields_are_understood() -> None:
    teacher = hf.DistilBertModel(hf.DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=24, n_layers=4))
    student = fresh(teacher, {"num_hidden_layers": 1, "dim": 8}).model
    assert (student.config.n_layers, student.config.hidden_size) == (1, 8)


def test_fields_that_a_model_asks_for_and_its_configs_class_does_not_have_are_taken() -> None:
    small = {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "num_hidden_layers": 1}
    teacher = hf.DebertaV2ForTokenClassification(hf.DebertaV2Config(**small))
    assert not hasattr(teacher.config, "position_buckets")
    student = fresh(teacher, {"position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True}).model
    assert student.deberta.encoder.rel_embeddings.weight.shape[0] == 8
    assert type(student.config).from_dict(student.config.to_dict()).position_buckets == 4
    with pytest.raises(CompatibilityError, match=r"no such field. Did you mean position_buckets\?"):
        fresh(teacher, {"position_bucket": 4})


def test_sub_configs_are_changed_where_they_are() -> None:
    teacher = hf.CLIPModel(hf.CLIPConfig(**CLIP))
    student = fresh(teacher, {"text_config": {"num_hidden_layers": 2}, "projection_dim": 6})
    assert student.layer_map == {"text": (1, 3), "vision": (0, 1, 2)}
    assert student.model.text_projection.out_features == 6


@pytest.mark.parametrize(("depth", "pattern"), [(2, "fs"), (3, "fss"), (5, "fssff")])
def test_lists_with_one_entry_per_layer_follow_the_depth(depth: int, pattern: str) -> None:
    special = {f"{name}_token_id": 1 for name in ("bos", "eos", "cls", "sep", "pad")}
    config = hf.ModernBertConfig(**SMALL, **special, num_hidden_layers=4, global_attn_every_n_layers=3)
    student = fresh(hf.ModernBertModel(config), {"num_hidden_layers": depth}).model
    assert "".join(kind[0] for kind in student.config.layer_types) == pattern


def test_a_list_that_is_given_stays_as_it_is() -> None:
    config = hf.Gemma2Config(**SMALL, num_hidden_layers=4, num_key_value_heads=2, head_dim=8)
    kinds = ["full_attention", "full_attention"]
    student = fresh(hf.Gemma2Model(config), {"num_hidden_layers": 2, "layer_types": kinds}).model
    assert student.config.layer_types == kinds


def test_models_that_could_be_backbones_can_be_shortened() -> None:
    teacher = hf.BeitForImageClassification(hf.BeitConfig(**VISION, num_hidden_layers=4))
    assert fresh(teacher, {"num_hidden_layers": 2}).layer_map == {"layers": (1, 3)}


def test_a_student_of_a_teacher_in_half_precision_is_in_float32(tmp_path: Path) -> None:
    bert().to(torch.bfloat16).save_pretrained(tmp_path)
    teacher = hf.BertForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in fresh(teacher, {"num_hidden_layers": 1}).model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"hiden_size": 8},
            "student config: hiden_size: BertConfig has no such field. Did you mean hidden_size?",
        ),
        ({"_name_or_path": "x"}, "has no such field"),
        ({"num_labels": 2}, "num_labels: the labels are the teacher's"),
        ({"id2label": {0: "a"}}, "id2label: the labels are the teacher's"),
        ({"model_type": "gpt2"}, "the architecture is the teacher's"),
        ({"hidden_size": "8"}, "hidden_size: got '8'; expected a value like the teacher's, 16"),
        ({"num_hidden_layers": True}, "num_hidden_layers: got True"),
        ({"is_decoder": 1}, "is_decoder: got 1"),
        ({"hidden_size": 9}, "cannot be built with hidden_size=9: .*9.*2"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers"),
        ({"hiden_size": 8, "num_labels": 3}, "(?s)2 problems.*hiden_size.*num_labels"),
    ],
)
def test_fields_that_cannot_be_meant_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(CompatibilityError, match=message):
        fresh(bert(), config)


def test_a_sub_config_asks_for_a_mapping() -> None:
    teacher = hf.CLIPModel(hf.CLIPConfig(**CLIP))
    with pytest.raises(CompatibilityError, match=r"text_config: got 3; expected .*a mapping of CLIPTextConfig's"):
        fresh(teacher, {"text_config": 3})
    with pytest.raises(CompatibilityError, match=r"text_config.num_layers: CLIPTextConfig has no such field"):
        fresh(teacher, {"text_config": {"num_layers": 3}})


def test_a_model_outside_hugging_face_is_refused_with_the_way_out() -> None:
    with pytest.raises(CompatibilityError, match=r"Linear is not a Hugging Face model.*student: {model: "):
        fresh(nn.Linear(1, 1), {})
