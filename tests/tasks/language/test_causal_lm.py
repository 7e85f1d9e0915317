"""Causal language models: from columns to the tokens that are predicted, and what is refused."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource
from stilla.rows import row_measures
from stilla.signals import Batch
from stilla.tasks import of_model
from stilla.tasks.base import Loaded, Prepared, Side
from stilla.tasks.forward import listen
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.conversations import Template
from stilla.tasks.language.sections import CausalLMData
from stilla.tasks.language.talks import Talk
from stilla.tasks.language.vocabulary import refuse_other_tokens
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks.tiny_lm import CHAT, MARKED, bert_lm, bert_lm_tokenizer, byte_tokenizer, folder, llama

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "so?"}, {"role": "assistant", "content": "no"}]


def task_of(rows: list[dict[str, Any]], **section: Any) -> tuple[CausalLM, Dataset]:
    split = Dataset.from_list(rows)
    return CausalLM.understand(CausalLMData(train="x", **section), {"train": split}), split


def prepared(rows: list[dict[str, Any]], tokenizer: Any = None, training: bool = False, **section: Any) -> Prepared:
    task, split = task_of(rows, **section)
    return task.prepare(split, tokenizer or byte_tokenizer(), None, training=training)


def whole(made: Prepared) -> Batch:
    return made.collate(list(range(len(made))))


def learnt(made: Prepared, tokenizer: Any = None) -> list[str]:
    """The tokens that are predicted, as text, by example."""
    decode = (tokenizer or byte_tokenizer()).decode
    return [decode(row[row != NO_ROW]) for row in whole(made).labels]


# --- what is learnt ---


def test_all_of_a_text_is_learnt_and_its_end() -> None:
    made = prepared([{"text": "the cat"}, {"text": "a"}])
    assert learnt(made) == ["the cat</s>", "a</s>"]
    assert whole(made).student["input_ids"][0].tolist()[0] == 0


def test_of_a_prompt_nothing_is_learnt() -> None:
    made = prepared([{"prompt": "2+2=", "completion": "4"}, {"prompt": "say hello: ", "completion": "hello you"}])
    assert learnt(made) == ["4</s>", "hello you</s>"]


def test_a_cut_completion_has_no_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = prepared([{"prompt": "ab", "completion": "cdefgh"}, {"prompt": "0123456789", "completion": "x"}], max_length=6)
    assert learnt(made) == ["cde"]
    assert "2 of 2 examples are longer than 6 tokens" in caplog.text
    assert "1 of 2 examples are left out" in caplog.text


@pytest.mark.parametrize("template", [CHAT, MARKED], ids=["by rendering", "by its marks"])
def test_only_the_assistants_turns_are_learnt(template: str) -> None:
    tokenizer = byte_tokenizer(template=template)
    (said,) = learnt(prepared([{"messages": TALK}], tokenizer), tokenizer)
    assert said.replace("\n", "") == "yes<end>no<end>"


@pytest.mark.parametrize("template", [CHAT, MARKED], ids=["by rendering", "by its marks"])
def test_of_a_conversation_the_last_answer_is_asked_for(template: str) -> None:
    tokenizer = byte_tokenizer(template=template)
    left_open = [*TALK, {"role": "user", "content": "why?"}]
    task, split = task_of([{"messages": TALK}, {"messages": left_open}])
    asked = task.asked(split, tokenizer)
    batch = asked.tokens.batch([0, 1])
    said = [text.replace("\n", "") for text in tokenizer.batch_decode(batch["input_ids"])]  # one template trims them
    assert said == 2 * ["<user> hi<end><assistant> yes<end><user> so?<end><assistant> "]
    assert list(asked.references) == ["no", "no"]
    assert task.source_of(split, 1) == "user: hi\nassistant: yes\nuser: so?"


@pytest.mark.parametrize("template", [CHAT, MARKED], ids=["by rendering", "by its marks"])
def test_a_last_answer_that_was_written_is_learnt_and_has_no_end_where_it_was_cut(template: str) -> None:
    tokenizer = byte_tokenizer(template=template)
    task, split = task_of([{"messages": TALK}, {"messages": TALK}])
    written = task.answered(split, ["never", "never e"], [False, True])
    made = task.prepare(written, tokenizer, None, training=True)
    whole_talk, cut = learnt(made, tokenizer)
    assert whole_talk.replace("\n", "") == "yes<end>never<end>"
    assert cut == "never e"


def test_plain_text_asks_for_nothing() -> None:
    task, split = task_of([{"text": "the cat sat"}])
    assert "prompts and completions" in (task.unasked() or "")
    with pytest.raises(CompatibilityError, match=r"plain text asks for nothing.*data\.messages"):
        task.asked(split, byte_tokenizer())


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    forgetful = ("{% for message in messages %}<{{ message.role }}> {{ message.content if loop.last else '...' }}\n"
                 "{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}")
    with pytest.raises(CompatibilityError, match=r"turn 1 of conversation 0 otherwise.*generation"):
        prepared([{"messages": TALK}], byte_tokenizer(template=forgetful))


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="no chat template"):
        prepared([{"messages": TALK}])


def test_what_a_template_refuses_is_named() -> None:
    angry = "{{ raise_exception('no such role') }}"
    with pytest.raises(DataError, match="refuses conversation 3: no such role"):
        Template(byte_tokenizer(template=angry)).tokens(Talk(tuple(TALK), (1, 3)), 3)


def test_a_padding_token_that_is_the_end_of_text_hides_no_end() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    assert learnt(prepared([{"text": "the cat"}, {"text": "a"}], tokenizer), tokenizer) == ["the cat</s>", "a</s>"]


def test_long_texts_come_in_pieces_and_lose_nothing() -> None:
    made = prepared([{"text": "abcdefghij"}], max_length=4)
    assert "".join(learnt(made)) == "abcdefghij</s>"
    assert made.keys.tolist() == [0] * len(made)


# --- rows ---


def test_packed_and_alone_the_same_tokens_are_said_the_same() -> None:
    rows = [{"text": text} for text in ("the cat sat", "on", "a mat and slept", "eel")]
    task, split = task_of(rows, max_length=24)
    model, tokenizer = llama(), byte_tokenizer()
    model.config.use_cache = False
    found = []
    for training in (True, False):
        made = task.prepare(split, tokenizer, None, training=training)
        batch = whole(made)
        said = listen(model, task, batch, Side.STUDENT)
        pieces = task.segments(batch)
        nll = row_measures(said.logits, said.labels).nll
        found.append({piece.content: nll[piece.rows] for piece in pieces})
        assert task.counts(batch)["rows"] == len(nll)
        assert task.counts(batch)["examples"] == len(rows)
    packed, alone = found
    assert packed.keys() == alone.keys()
    assert len(packed) == len(rows)
    assert all(torch.allclose(packed[one], alone[one], atol=1e-5) for one in packed)


def test_padding_has_no_influence() -> None:
    task, split = task_of([{"text": "a"}, {"text": "the cat sat on the mat"}], pack=False)
    model = llama()
    made = task.prepare(split, byte_tokenizer(), None, training=True)
    said = [listen(model, task, made.collate(rows), Side.STUDENT) for rows in ([0], [0, 1])]
    alone, beside = (row_measures(one.logits, one.labels).nll for one in said)
    assert torch.allclose(alone, beside[: len(alone)], atol=1e-5)


def test_labels_of_transformers_own_collators_mean_the_same() -> None:
    model = llama()
    task = of_model(model)
    ids = torch.randint(3, 200, (2, 9))
    labels = ids.clone()
    labels[0, :4] = NO_ROW
    batch = Batch(student={"input_ids": ids}, teacher={"input_ids": ids}, labels=task.placed(labels))
    said = listen(model, task, batch, Side.STUDENT)
    nll = row_measures(said.logits, said.labels).nll
    with torch.no_grad():
        expected = model(input_ids=ids, labels=labels).loss
    assert nll.mean().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
def test_outputs_that_no_token_uses_change_nothing(tmp_path: Path) -> None:
    from stilla.tasks.language.token_exam import measured, unused_mass

    tokenizer = byte_tokenizer()
    used = len(tokenizer)
    small = llama(used)
    wide = llama(used + 50, tie_word_embeddings=False)
    wide.load_state_dict({name: value if value.shape == wide.state_dict()[name].shape else
                          torch.cat([value, torch.full((50, value.shape[1]), 3.0)])
                          for name, value in small.state_dict().items()}, strict=False)
    wide.lm_head.weight.data[:used] = small.lm_head.weight.data
    task, split = task_of([{"text": "the cat sat"}])
    task = task.adapted_to(Loaded(small, tokenizer, "small"))
    batch = whole(task.prepare(split, tokenizer, None, training=False))
    one, other = (listen(model, task, batch, Side.STUDENT) for model in (small, wide))
    assert torch.allclose(measured(task, one, batch), measured(task, other, batch), atol=1e-6)
    assert unused_mass(one, task, batch) == 0
    assert unused_mass(other, task, batch) > 0.1


# --- what is refused ---


def test_other_numbers_for_the_same_tokens_are_refused() -> None:
    one, other = byte_tokenizer(extra=["<x>", "<y>"]), byte_tokenizer(extra=["<y>", "<x>"])
    with pytest.raises(CompatibilityError, match=r"number 2 tokens differently: '<x>'.*completions: teacher"):
        refuse_other_tokens(one, other)
    with pytest.raises(CompatibilityError, match=r"259 tokens, the student's 261.*'<x>'"):
        refuse_other_tokens(one, byte_tokenizer())
    refuse_other_tokens(one, byte_tokenizer(extra=["<x>", "<y>"]))


@pytest.mark.parametrize(("rows", "section", "said"), [
    ([{"text": "a", "other": "b"}], {"text": ("text", "other")}, "expected one column"),
    ([{"a": "x", "b": "y"}], {"prompt": "a"}, "data.completion: a prompt and its completion come together"),
    ([{"a": "x", "b": "y"}], {"prompt": "a", "completion": "b", "text": ("a",)}, "expected one of text, prompt"),
    ([{"a": "x"}], {"messages": "a"}, "expected lists of {role, content}"),
    ([{"text": " "}, {"text": "x"}], {}, "'text' is null or empty in 1 of 2"),
    ([{"prompt": "a", "completion": ""}], {}, "'prompt' or 'completion' are null or empty in 1 of 1"),
    ([{"messages": [{"role": "user", "content": "x"}]}], {},
     "in which an assistant speaks in 1 of 1 examples .who speaks there: 'user'"),
    ([{"messages": [{"role": "user", "content": "x"}, {"role": "Assistant", "content": "y"}]}], {},
     "who speaks there: 'user' and 'Assistant'"),
    ([{"conversations": [{"speaker": "human", "says": "x"}, {"speaker": "gpt", "says": "y"}]}], {},
     r"'conversations' holds lists of {speaker, says}; expected lists of {role, content}.*Rename"),
    ([{"messages": '[{"role": "user", "content": "x"}]'}], {}, "conversations as JSON text.*not as strings"),
])
def test_data_that_cannot_be_learnt_are_refused(rows: list[dict[str, Any]], section: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said.replace("(", r"\(")):
        task_of(rows, **section)


def test_examples_of_several_documents_are_not_pooled() -> None:
    from stilla.objectives import Hidden

    rows = [{"text": "the cat"}, {"text": "a dog"}, {"text": "the mat"}]
    packed, alone = (prepared(rows, pack=pack, training=True) for pack in (True, False))
    assert packed.packed
    assert not alone.packed
    (problem,) = Hidden(pooling="mean").misfits(aligned=True, packed=packed.packed)
    assert "data.pack: false" in problem
    assert not Hidden(pooling="mean").misfits(aligned=True, packed=alone.packed)
    assert not Hidden().misfits(aligned=True, packed=packed.packed)


def test_broken_examples_are_left_out_if_asked_for() -> None:
    made = prepared([{"text": " "}, {"text": "x"}], broken="skip")
    assert made.keys.tolist() == [1]


def test_nothing_to_predict_is_refused() -> None:
    with pytest.raises(DataError, match="no token can be predicted"):
        prepared([{"prompt": "0123456789", "completion": "x"}], max_length=4)


def test_a_model_without_positions_is_refused_for_packing_and_taken_without(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=2, state_size=4,
                                         bos_token_id=0, eos_token_id=1, pad_token_id=2))
    source = ModelSource(model=folder(tmp_path / "mamba", model, byte_tokenizer()))
    task, _ = task_of([{"text": "x"}])
    with pytest.raises(CompatibilityError, match=r"data\.pack.*takes no position_ids"):
        task.load(source, labelled=True)
    task, _ = task_of([{"text": "x"}], pack=False)
    assert task.load(source, labelled=True).processor.eos_token_id == 1


def loss_of(place: str, precision: str) -> float:
    """Of a teacher of one sentence, loaded so."""
    task, split = task_of([{"text": "the cat sat on the mat"}])
    loaded = task.load(ModelSource(model=place, precision=precision), labelled=True)
    batch = whole(task.prepare(split, loaded.processor, None, training=False))
    with torch.no_grad():
        rows = listen(loaded.model, task, batch, Side.STUDENT)
    return row_measures(rows.logits, rows.labels).nll.mean().item()


@pytest.mark.slow
def test_precisions_of_a_teacher_that_only_answers(tmp_path: Path) -> None:
    place = folder(tmp_path / "llama", llama(), byte_tokenizer())
    said = [loss_of(place, precision) for precision in ("float32", "bfloat16", "int8")]
    assert np.ptp(said) < 0.05
    assert said[0] != said[1] != said[2]


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_teacher_in_four_bits_says_nearly_the_same(tmp_path: Path) -> None:
    # Of sides that bitsandbytes' fast kernels on a processor take: multiples of 64.
    sides = {"hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.1}
    place = folder(tmp_path / "llama", llama(**sides), byte_tokenizer())
    whole, small = loss_of(place, "float32"), loss_of(place, "4bit")
    assert whole != small
    assert small == pytest.approx(whole, abs=0.2)


@pytest.mark.slow
def test_a_model_that_sees_what_it_predicts_is_refused(tmp_path: Path) -> None:
    task, _ = task_of([{"text": "the cat sat"}] * 4, pack=False)
    source = ModelSource(model=folder(tmp_path, bert_lm(), bert_lm_tokenizer()))
    with pytest.raises(CompatibilityError, match=r"sees the tokens that it has to predict.*task: masked-lm"):
        task.load(source, labelled=True)
