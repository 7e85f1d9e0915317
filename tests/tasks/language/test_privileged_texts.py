"""Teachers of texts that read another source, prompt or conversation before the same answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Translation

import stilla
from stilla.data import joined
from stilla.errors import CompatibilityError, DataError, RecipeError
from stilla.evaluate.generate import of_all
from stilla.recipe import ModelSource
from stilla.recipe.models import Teacher
from stilla.signals import Batch, Side
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.sections import CausalLMData, Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks import pairs
from tests.tasks.tiny_lm import CHAT, WORDS, byte_tokenizer, folder, llama

ROWS = {"source": ["cat dog", "sun", "tea map red big"], "target": ["tac god two", "nus one", "aet pam der gib four"],
        "other": ["red red sun", "map dog cat tea", "big"]}


def whole(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[one] for one in range(len(prepared))])


def tokens(inputs: Any) -> list[list[int]]:
    return [row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"])]


def logits(task: Any, model: Any, batch: Batch, side: Side) -> torch.Tensor:
    with torch.no_grad():
        said = task.signals(model(**batch[side.value]), batch, side).logits
    return said.logits


# --- a source ---


def seq2seq(rows: Any = ROWS, told: Any = None, length: int | None = None, **section: Any) -> Seq2Seq:
    split = rows if isinstance(rows, Dataset) else Dataset.from_dict(rows)
    named = {"source": "source", "target": "target", **section}
    task = Seq2Seq.understand(Seq2SeqData(train="x", **named), {"train": split})
    task = task.taught_from({"source": ("other",)} if told is None else told, {"train": split})
    return task if length is None else task.taught_at_length(length)


@pytest.mark.parametrize("family", pairs.FAMILIES)
def test_a_teacher_reads_its_own_source_of_the_same_target(family: str) -> None:
    split, model = Dataset.from_dict(ROWS), pairs.model(family)
    task, one = seq2seq(), pairs.processor(family)
    prepared = task.prepare(split, one, one, training=True)
    batch = whole(prepared)
    assert tokens(batch.student) == [one.tokenizer(text)["input_ids"] for text in ROWS["source"]]
    assert tokens(batch.teacher) == [one.tokenizer(text)["input_ids"] for text in ROWS["other"]]
    assert torch.equal(batch.teacher["decoder_input_ids"], batch.student["decoder_input_ids"])
    assert not prepared.aligned
    # as a model answers that has no other source
    alone = Seq2Seq.understand(Seq2SeqData(train="x", source="other", target="target"), {"train": split})
    there = whole(alone.prepare(split, one, None, training=True))
    torch.testing.assert_close(logits(task, model, batch, Side.TEACHER), logits(alone, model, there, Side.STUDENT))
    by_itself = whole(task.of_teacher().prepare(split, one, None, training=False))
    assert torch.equal(by_itself.student["input_ids"], there.student["input_ids"])
    assert [task.segments(batch)[row].content for row in range(3)] == [one.content for one in alone.segments(there)]
    student = whole(task.prepare(split, one, None, training=True))
    assert tokens(student.student) == tokens(batch.student)


def test_the_same_column_is_none() -> None:
    task = seq2seq(told={"source": ("source",)})
    assert task == seq2seq(told={})
    assert task.of_teacher() is task


def test_padding_has_no_influence_on_what_a_teacher_says_of_its_own_source() -> None:
    split, model = Dataset.from_dict(ROWS), pairs.model("t5")
    task, one = seq2seq(), pairs.processor("t5")
    prepared = task.prepare(split, one, one, training=True)
    together = logits(task, model, whole(prepared), Side.TEACHER)
    apart = [logits(task, model, prepared.collate([row]), Side.TEACHER) for row in range(3)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-6, rtol=1e-5)


def test_a_teacher_reads_more_of_a_source_than_its_student() -> None:
    split, one = Dataset.from_dict(ROWS), pairs.processor("t5")
    task = seq2seq(told={}, length=5, max_length=3)
    batch = whole(task.prepare(split, one, one, training=True))
    assert [len(row) for row in tokens(batch.student)] == [3, 2, 3]
    assert [len(row) for row in tokens(batch.teacher)] == [3, 2, 5]
    alone = whole(task.of_teacher().prepare(split, one, None, training=True))
    assert tokens(alone.student) == tokens(batch.teacher)
    assert batch.labels is not None
    assert alone.labels is not None
    assert alone.labels.tolist() == batch.labels.tolist()  # as much of a target as the student writes


def test_a_prefix_and_a_language_belong_to_the_source_that_is_read() -> None:
    split, made = Dataset.from_dict(ROWS), pairs.processor("t5")
    task = seq2seq(told={"source": ("other",), "prefix": ("big ",)}, prefix="red ")
    batch = whole(task.prepare(split, made, made, training=True))
    assert tokens(batch.student) == [made.tokenizer(f"red {text}")["input_ids"] for text in ROWS["source"]]
    assert tokens(batch.teacher) == [made.tokenizer(f"big {text}")["input_ids"] for text in ROWS["other"]]
    with pytest.raises(DataError, match=r"teacher\.data\.source_language: nobody says in which language students read"):
        seq2seq(told={"source": ("other",), "source_language": ("xx_XX",)})
    with pytest.raises(DataError, match=r"teacher\.data\.prefix: got \['a', 'b'\]; expected one text"):
        seq2seq(told={"prefix": ("a", "b")})


@pytest.mark.parametrize("given", [True, False])
def test_only_the_teachers_tokenizer_is_told_the_teachers_language(tmp_path: Path, given: bool) -> None:
    from transformers import NllbTokenizer

    folder = tmp_path / "teacher"
    pairs.model("mbart", vocabulary=300).save_pretrained(folder)
    vocabulary = {token: number for number, token in enumerate((*pairs.VOCABULARY[:4], *pairs.WORDS))}
    NllbTokenizer(vocab=vocabulary, merges=[], src_lang="eng_Latn", tgt_lang="deu_Latn").save_pretrained(folder)
    told = {"source": ("other",), "source_language": ("fra_Latn",)}
    task = seq2seq(told=told, source_language="eng_Latn", target_language="deu_Latn")
    teacher = task.of_teacher().load(ModelSource(model=str(folder)), labelled=True)
    student = task.load(ModelSource(model=str(folder)), labelled=True) if given else task.seeing(teacher, None)  # type: ignore[arg-type]
    assert teacher.processor.tokenizer.src_lang == "fra_Latn"
    assert student.processor.tokenizer.src_lang == "eng_Latn"
    assert student.processor.start == teacher.processor.start


@pytest.mark.parametrize(("told", "words"), [
    ({"sources": ("other",)}, r"teacher\.data: got 'sources'; expected source, prefix or source_language"),
    ({"source": ("target",)}, r"teacher\.data: 'target' is the label"),
    ({"source": ("others",)}, r"teacher\.data: data\.train: there is no column 'others'.*Did you mean other"),
    ({"source": ("other", "source")}, r"teacher\.data\.source: got 2 columns; expected one"),
])
def test_sources_that_are_not_there(told: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        seq2seq(told=told)


def test_a_field_within_a_column_of_languages() -> None:
    rows = [{"a": a, "b": b, "c": c} for a, b, c in zip(*ROWS.values())]
    split = Dataset.from_dict({"translation": rows}, features=Features({"translation": Translation(["a", "b", "c"])}))
    task = seq2seq(split, {"source": ("translation.c",)}, source="translation.a", target="translation.b")
    one = pairs.processor("t5")
    batch = whole(task.prepare(split, one, one, training=True))
    assert tokens(batch.teacher) == [one.tokenizer(text)["input_ids"] for text in ROWS["other"]]
    assert set(task.beside(split).column_names) == {"translation.a", "translation.b", "translation.c"}
    assert task.unlabelled(split, {}).column_names == ["translation.a", "translation.c", "translation.b"]


def test_unlabelled_sources_need_both() -> None:
    task, pool = seq2seq(), Dataset.from_dict({"source": ["sun"], "other": ["red"]})
    assert task.unlabelled(pool, {}).column_names == ["source", "other", "target"]
    asked = task.teaching().asked(joined(None, task.unlabelled(pool, {})), pairs.processor("t5"))
    assert tokens(asked.tokens.batch([0])) == [pairs.tokenizer("t5")("red")["input_ids"]]
    with pytest.raises(DataError, match=r"which column is 'other'\?"):
        task.unlabelled(pool.remove_columns("other"), {})


def test_a_source_that_one_of_them_lacks_is_read_by_neither() -> None:
    rows = {**ROWS, "other": ["red", "", "big"]}
    with pytest.raises(DataError, match=r"data\.train: 'other' is null or empty in 1 of 3"):
        seq2seq(rows)
    task, split, one = seq2seq(rows, broken="skip"), Dataset.from_dict(rows), pairs.processor("t5")
    for asked in (task, task.of_teacher()):
        assert asked.prepare(split, one, None, training=False).keys.tolist() == [0, 2]
        assert asked.asked(split, one).keys.tolist() == [0, 2]


def test_a_length_is_a_number_and_a_column_a_name() -> None:
    made = Teacher.model_validate({"model": "x", "data": {"source": "other", "max_length": 9}})
    assert (made.columns, made.longest) == ({"source": ("other",)}, 9)
    for data in ({"source": 9}, {"max_length": "other"}):
        with pytest.raises(ValueError, match=r"(source|max_length): got .*; expected (the name of a column|a number)"):
            Teacher.model_validate({"model": "x", "data": data})


# --- what stands before an answer ---


ASKED = {"question": ["who", "why not", "?"], "answer": ["a cat", "it is", "no"],
         "hint": ["the old cat sat on the mat", "", "never"]}
ANSWERED = {"prompt": "question", "completion": "answer"}


def talk(asked: str, answer: str, system: str | None = None) -> list[dict[str, str]]:
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


TALKS = {"short": [talk(*one) for one in zip(ASKED["question"], ASKED["answer"])],
         "long": [talk(*one) for one in zip(ASKED["question"], ASKED["answer"], ASKED["hint"])]}


def lm(
    rows: dict[str, Any] = ASKED, told: dict[str, tuple[str, ...]] | None = None, length: int | None = None,
    **section: Any,
) -> CausalLM:
    splits = {"train": Dataset.from_dict(rows)}
    task = CausalLM.understand(CausalLMData.model_validate({"train": "x", **section}), splits)
    task = task.taught_from(told or {}, splits)
    return task if length is None else task.taught_at_length(length)


PROMPT = (ASKED, {"context": ("hint",)}, {**ANSWERED}, {**ANSWERED, "context": "hint"})
TALK = (TALKS, {"messages": ("long",)}, {"messages": "short"}, {"messages": "long"})
TEXT = {"text": ["the old cat sat on the mat and ran", "a dog", "then the new dog slept under the log"]}


@pytest.mark.parametrize(("rows", "told", "own", "theirs"), [PROMPT, TALK])
@pytest.mark.parametrize("training", [True, False])
def test_a_teacher_reads_its_own_prompt_before_the_same_answer(
    rows: Any, told: Any, own: Any, theirs: Any, training: bool
) -> None:
    tokenizer, model, split = byte_tokenizer(template=CHAT), llama(max_position_embeddings=512), Dataset.from_dict(rows)
    tokenizer.model_max_length = 512
    task = lm(rows, told, **own).adapted_to(Loaded(model, tokenizer, "x"))
    prepared = task.prepare(split, tokenizer, tokenizer, training=training)
    assert not prepared.aligned
    batch = whole(prepared)
    alone = {name: lm(rows, **section) for name, section in (("student", own), ("teacher", theirs))}
    there = {name: whole(one.prepare(split, tokenizer, None, training=training)) for name, one in alone.items()}
    for side in Side:
        assert torch.equal(batch[side.value]["input_ids"], there[side.value].student["input_ids"])
        expected = logits(alone[side.value], model, there[side.value], Side.STUDENT)
        torch.testing.assert_close(logits(task, model, batch, side), expected, atol=1e-6, rtol=1e-5)
    assert batch.teacher["input_ids"].shape[1] > batch.student["input_ids"].shape[1]
    said = [task.signals(model(**batch[side.value]), batch, side).labels for side in Side]
    assert torch.equal(said[0], said[1])
    # stored as of one that reads nothing else, by what the teacher reads and where its answers stand
    stored = [(one.content, one.rows) for one in task.segments(batch)]
    assert stored == [(one.content, one.rows) for one in alone["teacher"].segments(there["teacher"])]
    by_itself = whole(task.of_teacher().prepare(split, tokenizer, None, training=training))
    assert torch.equal(by_itself.student["input_ids"], batch.teacher["input_ids"])
    assert torch.equal(whole(task.prepare(split, tokenizer, None, training=training)).student["input_ids"],
                       batch.student["input_ids"])


@pytest.mark.parametrize(("rows", "told", "own", "theirs"), [PROMPT, TALK])
def test_padding_has_no_influence_on_what_is_said_of_its_own_prompt(rows: Any, told: Any, own: Any, theirs: Any) -> None:
    tokenizer, model = byte_tokenizer(template=CHAT), llama(max_position_embeddings=512).double()
    tokenizer.model_max_length = 512
    prepared = lm(rows, told, **own).prepare(Dataset.from_dict(rows), tokenizer, tokenizer, training=True)
    task = lm(rows, told, **own)
    together = logits(task, model, whole(prepared), Side.TEACHER)
    apart = [logits(task, model, prepared.collate([row]), Side.TEACHER) for row in range(3)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-6, rtol=1e-5)
    part = whole(prepared).part(slice(1, 3))
    torch.testing.assert_close(logits(task, model, part, Side.TEACHER), torch.cat(apart[1:]), atol=1e-6, rtol=1e-5)


def test_a_teacher_that_reads_the_same_before_it_says_what_it_says_without() -> None:
    rows = {**ASKED, "again": ASKED["question"]}
    tokenizer, model, split = byte_tokenizer(), llama(), Dataset.from_dict(rows)
    plain, told = lm(rows, **ANSWERED), lm(rows, {"prompt": ("again",)}, **ANSWERED)
    batches = [whole(one.prepare(split, tokenizer, tokenizer, training=True)) for one in (plain, told)]
    said = [logits(one, model, batch, Side.TEACHER) for one, batch in zip((plain, told), batches)]
    assert torch.equal(said[0], said[1])
    assert lm(rows, {"prompt": ("question",)}, **ANSWERED) == plain


def test_rows_are_the_tokens_that_both_have_room_for(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer, split = byte_tokenizer(), Dataset.from_dict(ASKED)
    task = lm(told={"prompt": ("question",)}, length=40, max_length=8, **ANSWERED)
    batch = whole(task.prepare(split, tokenizer, tokenizer, training=True))
    assert batch.labels is not None
    # <s>, `why not` and one token more fill a student's eight
    assert (batch.labels != NO_ROW).sum(1).tolist() == [4, 3]
    assert (batch["words"]["teacher"] >= 0).sum(1).tolist() == [4, 3]
    assert "1 of 3 examples are left out" in caplog.text
    tokenizer.model_max_length = 512
    longer = lm(told={"context": ("hint",)}, length=500, max_length=20, **ANSWERED)
    batch = whole(longer.prepare(split, tokenizer, tokenizer, training=True))
    assert (batch.labels != NO_ROW).sum(1).tolist() == [6, 6, 3]  # of prompts of more than 200 tokens
    with pytest.raises(DataError, match="no token can be predicted in any of the 3 examples"):
        lm(told={"context": ("hint",)}, max_length=20, **ANSWERED).prepare(split, tokenizer, tokenizer, training=True)


@pytest.mark.parametrize(("told", "section", "length", "reads", "words"), [
    ("hint", {"max_length": 20}, None, 512, r"behind the first 20 that the teacher reads; raise teacher\.data\.max_length\."),
    ("hint", {"max_length": 20}, 40, 512, r"behind the first 40 that the teacher reads; raise teacher\.data\.max_length\."),
    ("hint", {}, None, 60, r"behind the first 60 that the teacher reads; the teacher reads no more: let less stand before"),
    ("hint", {"max_length": 2}, 400, 512, r"behind the first 2; raise data\.max_length\."),
    (None, {"max_length": 2}, None, 512, r"behind the first 2; raise data\.max_length\."),
    (None, {}, None, 2, r"behind the first 2; a model reads no more: let less stand before what is learnt\."),
])
def test_who_has_no_room_for_what_is_learnt_is_named(
    told: str | None, section: dict[str, Any], length: int | None, reads: int, words: str
) -> None:
    tokenizer, split = byte_tokenizer(), Dataset.from_dict(ASKED)
    tokenizer.model_max_length = reads
    task = lm(told={"context": (told,)} if told else None, length=length, **section, **ANSWERED)
    with pytest.raises(DataError, match=words):
        task.prepare(split, tokenizer, tokenizer, training=True)
    if told and section.get("max_length") != 2:  # a teacher that is measured, and one that writes
        with pytest.raises(DataError, match=words):
            task.of_teacher().prepare(split, tokenizer, None, training=False)
        with pytest.raises(DataError, match=rf"no prompt leaves .* within \d+ tokens; {words.partition('; ')[2]}"):
            task.of_teacher().asked(split, tokenizer)


def test_it_is_said_that_the_teacher_alone_is_asked_in_alpacas_words(caplog: pytest.LogCaptureFixture) -> None:
    said = ("teacher.data: the teacher is asked with 'question' and 'hint' as one prompt in Alpaca's words "
            "(docs/language-models.md), and its student with 'question' as it stands")
    lm(told={"context": ("hint",)}, **ANSWERED)
    assert caplog.messages == [said]
    caplog.clear()
    lm({**ASKED, "more": ASKED["hint"]}, {"context": ("more",)}, context="hint", **ANSWERED)  # both are
    lm(told={"prompt": ("hint",)}, **ANSWERED)  # nobody is
    lm(TALKS, {"messages": ("long",)}, messages="short")
    assert not [one for one in caplog.messages if one.startswith("teacher.data")]


def test_models_that_have_room_for_other_examples_learn_nothing() -> None:
    rows = {"question": ["x" * 30, "y"], "other": ["x", "y" * 30], "answer": ["it is", "no"]}
    tokenizer = byte_tokenizer()
    task = lm(rows, {"prompt": ("other",)}, 21, max_length=20, **ANSWERED)
    with pytest.raises(DataError, match=r"room for the same; raise data\.max_length or raise teacher\.data\.max_length\."):
        task.prepare(Dataset.from_dict(rows), tokenizer, tokenizer, training=True)


def test_texts_are_asked_of_all_models_or_of_none(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer, split = byte_tokenizer(), Dataset.from_dict({**ASKED, "other": ["x" * 30, "y", "z"]})
    task = lm(split.to_dict(), {"prompt": ("other",)}, max_length=20, **ANSWERED)
    both = [one.asked(split, tokenizer) for one in (task, task.of_teacher())]
    assert [one.keys.tolist() for one in both] == [[0, 1, 2], [1, 2]]
    asked = of_all(both)
    assert [one.keys.tolist() for one in asked] == [[1, 2], [1, 2]]
    assert [one.references for one in asked] == [["it is", "no"]] * 2
    assert [tokenizer.decode(row) for row in tokens(asked[0].tokens.batch([0, 1]))] == ["<s>why not", "<s>?"]
    assert "1 of 3 examples are asked of no model" in caplog.text
    with pytest.raises(DataError, match=r"no example is asked of all models.*and teacher\.data\.max_length where"):
        of_all([both[0], replace(both[1], keys=both[1].keys + 5)])


def test_a_teacher_reads_what_stands_before_a_piece_of_plain_text() -> None:
    tokenizer, model, split = byte_tokenizer(), llama().double(), Dataset.from_dict(TEXT)
    task = lm(TEXT, length=20, max_length=9)
    prepared = task.prepare(split, tokenizer, tokenizer, training=True)
    assert not prepared.packed
    batch, said = whole(prepared), {}
    spoken = task.signals(model(**batch.teacher), batch, Side.TEACHER)
    assert spoken.labels is not None
    assert batch.labels is not None
    assert torch.equal(spoken.labels, batch.labels[batch.labels != NO_ROW])
    text = [[*tokenizer(one)["input_ids"], tokenizer.eos_token_id] for one in TEXT["text"]]
    assert len(spoken.labels) == sum(len(one) - 1 for one in text)  # every token once
    with torch.no_grad():
        for document, ids in enumerate(text):
            for start in range(0, len(ids) - 1, 8):
                end = min(start + 9, len(ids))
                begin = max(0, end - 20)
                read = model(input_ids=torch.tensor([ids[begin:end]])).logits[0]
                said[document, start] = read[start - begin : end - begin - 1]
    torch.testing.assert_close(spoken.logits.logits, torch.cat(list(said.values())), atol=1e-6, rtol=1e-5)
    alone = whole(task.of_teacher().prepare(split, tokenizer, None, training=False))
    assert torch.equal(alone.student["input_ids"], batch.teacher["input_ids"])
    plain = lm(TEXT, max_length=9)
    assert plain.taught_at_length(9) is plain
    with pytest.raises(DataError, match=r"teacher\.data\.max_length: got 8, and a piece of plain text has up to 9 tokens"):
        lm(TEXT, length=8, max_length=9)


def test_answers_have_to_be_the_same() -> None:
    rows = {**TALKS, "other": [talk("who", "a dog"), *TALKS["long"][1:]]}
    tokenizer = byte_tokenizer(template=CHAT)
    task = lm(rows, {"messages": ("other",)}, messages="short")
    with pytest.raises(CompatibilityError, match="what is learnt of row 0 is said otherwise in what the teacher reads"):
        task.prepare(Dataset.from_dict(rows), tokenizer, tokenizer, training=True)


@pytest.mark.parametrize(("rows", "told", "section", "words"), [
    (TEXT, {"text": ("text",)}, {}, r"teacher\.data\.text: every token of plain text is learnt"),
    (ASKED, {"text": ("hint",)}, ANSWERED, r"teacher\.data: got 'text'; expected prompt or context"),
    (ASKED, {"prompt": ("answer",)}, ANSWERED, r"teacher\.data: 'answer' is the label"),
    (ASKED, {"prompt": ("question", "hint")}, ANSWERED, r"teacher\.data\.prompt: got 2 columns; expected one"),
    (ASKED, {"prompt": ("hints",)}, ANSWERED, r"there is no column 'hints'.*Did you mean hint"),
    ({**TALKS, "hint": ASKED["hint"]}, {"messages": ("hint",)}, {"messages": "short"},
     r"teacher\.data\.messages: 'hint' of data\.train holds .*; expected lists of"),
    (TALKS, {"prompt": ("long",)}, {"messages": "short"}, r"teacher\.data: got 'prompt'; expected messages or tools"),
    (ASKED, {"context": ("hint",)}, {**ANSWERED, "pack": True}, r"data\.pack: the teacher reads something else"),
])
def test_what_a_teacher_cannot_read_before_an_answer(rows: Any, told: Any, section: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        lm(rows, told, **section)


def test_unlabelled_prompts_and_conversations_need_both() -> None:
    task, tokenizer = lm(told={"context": ("hint",)}, **ANSWERED), byte_tokenizer(template=CHAT)
    tokenizer.model_max_length = 512
    pool = Dataset.from_dict({"question": ["so"], "hint": ["old"]})
    bound = task.unlabelled(pool, {})
    assert bound.column_names == ["question", "hint", "answer"]
    with pytest.raises(DataError, match=r"which column is 'hint'\?"):
        task.unlabelled(pool.remove_columns("hint"), {})
    (asked,) = tokens(task.teaching().asked(joined(None, bound), tokenizer).tokens.batch([0]))
    assert "### Input:\nold" in tokenizer.decode(asked)
    talking = lm(TALKS, {"messages": ("long",)}, messages="short")
    bound = talking.unlabelled(Dataset.from_dict(TALKS), {})
    assert set(bound.column_names) == {"short", "long"}
    asked = talking.teaching().asked(joined(talking.beside(Dataset.from_dict(TALKS)), bound), tokenizer)
    assert "the old cat sat" in tokenizer.decode(tokens(asked.tokens.batch([3]))[0])
    written = talking.answered(bound, ["yes", "no", "it"], [False] * 3)
    batch = whole(talking.prepare(written, tokenizer, tokenizer, training=True))
    assert batch.labels is not None
    assert [tokenizer.decode(row[row != NO_ROW]) for row in batch.labels] == ["yes<end>\n", "no<end>\n", "it<end>\n"]


def test_what_a_teacher_cannot_read_of_unlabelled_examples_is_named_by_its_own_column() -> None:
    prompts = {"question": ["so", None, "how", None], "hint": [None, "old", "mat", None]}
    task = lm(told={"prompt": ("hint",)}, **ANSWERED)
    with pytest.raises(DataError) as found:
        task.usable(task.unlabelled(Dataset.from_dict(prompts), {}))
    assert "data.unlabelled: 'question' or 'answer' are null or empty in 2 of 4 examples: rows 1, 3" in str(found.value)
    assert "data.unlabelled: 'hint' or 'answer' are null or empty in 1 of 4 examples: row 0" in str(found.value)
    silent = {"short": TALKS["short"], "long": [*TALKS["long"][:2], [{"role": "user", "content": None}]]}
    talking = lm(TALKS, {"messages": ("long",)}, messages="short")
    with pytest.raises(DataError, match=r"data\.unlabelled: 'long' has a message of 'user' .* in 1 of 3 examples"):
        talking.usable(talking.unlabelled(Dataset.from_dict(silent), {}))


def test_a_prompt_that_one_of_them_lacks_is_read_by_neither() -> None:
    rows = {**ASKED, "other": ["x", None, "y"]}
    with pytest.raises(DataError, match=r"'other' or 'answer' are null or empty in 1 of 3"):
        lm(rows, {"prompt": ("other",)}, **ANSWERED)
    task, tokenizer = lm(rows, {"prompt": ("other",)}, broken="skip", **ANSWERED), byte_tokenizer()
    for asked in (task, task.of_teacher()):
        assert asked.prepare(Dataset.from_dict(rows), tokenizer, None, training=False).keys.tolist() == [0, 2]
        assert asked.asked(Dataset.from_dict(rows), tokenizer).keys.tolist() == [0, 2]


# --- a whole run ---


def run_of(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """The teacher translates what its student reads in the other order."""
    folder = tmp_path / "teacher"
    if not folder.exists():
        pairs.trained("bart").save_pretrained(folder)
        pairs.tokenizer("bart").save_pretrained(folder)
        files = pairs.files(tmp_path / "data", train=40, validation=16, test=16)
        for file in map(Path, files.values()):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            file.write_text("".join(json.dumps({"easy": one["source"], "target": one["target"], "none": "cat",
                                                "source": " ".join(reversed(one["source"].split()))}) + "\n" for one in rows))
    data = {split: str(tmp_path / "data" / f"{split}.jsonl") for split in ("train", "validation", "test")}
    return {"task": "seq2seq", "data": {**data, "source": "source", "target": "target"},
            "teacher": {"model": str(folder), "data": {"source": "easy"}},
            "student": {"layers": {"encoder": 1, "decoder": 1}},
            "distill": {"max_steps": 4, "batch_size": 8, "precision": "float32", "learning_rate": 1e-3},
            "evaluate": {"resamples": 100, "speed": False, "generation": {"max_new_tokens": 7}},
            "output": str(tmp_path / "run"), **changes}


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "top_k"])
def test_a_run_whose_teacher_reads_another_source(tmp_path: Path, cache: str) -> None:
    recipe = run_of(tmp_path, cache=cache)
    run = stilla.distill(recipe)
    assert run.scores.teacher["bleu"] > 0.5  # what it was trained on; the words turned around it has never seen
    assert run.scores.teacher.quality["test"]["perplexity"].value < 2
    if cache != "none":
        return
    for other in ({"source": "none"}, {}):
        with pytest.raises(RecipeError, match=r"teacher\.data"):
            stilla.distill({**recipe, "teacher": {**recipe["teacher"], "data": other}, "allow_weak_teacher": True})
    again = stilla.evaluate_run(run.folder, recipe["data"]["validation"])
    assert again.teacher["bleu"] > 0.5


@pytest.mark.slow
def test_texts_that_the_teacher_writes_are_those_of_its_own_source(tmp_path: Path) -> None:
    recipe = run_of(tmp_path, completions="teacher")
    run = stilla.distill(recipe)
    from stilla.stages.completions import SCHEMA
    from stilla.stages.parts import Parts

    rows = Parts(run.folder / "completions", SCHEMA).rows()
    said = [json.loads(line)["target"] for line in Path(recipe["data"]["train"]).read_text().splitlines()]
    assert sum(row["text"] == said[row["key"]] for row in rows) > len(rows) / 2


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "hidden"])
def test_a_run_whose_teacher_reads_a_passage_before_the_answer(tmp_path: Path, cache: str) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 512
    teacher = folder(tmp_path / "teacher", llama(max_position_embeddings=512), tokenizer)
    rows = [{"question": f"{one}?", "answer": f"a {one}", "hint": f"the {two}"} for one in WORDS for two in WORDS[:2]]
    files = {}
    for split, some in (("train", rows), ("validation", rows[:8]), ("test", rows[8:16])):
        files[split] = str(tmp_path / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(one) + "\n" for one in some))
    run = stilla.distill({
        "task": "causal-lm", "data": {**files, **ANSWERED, "max_length": 16},
        "teacher": {"model": teacher, "data": {"context": "hint", "max_length": 400}}, "student": {"layers": 2},
        "distill": {"epochs": 2, "batch_size": 8, "accumulate": 2, "precision": "float32"}, "cache": cache,
        "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True, "output": str(tmp_path / "run")})
    told = lm({name: [row[name] for row in rows[8:16]] for name in rows[0]}, **ANSWERED, context="hint", max_length=400)
    task, model = told.adapted_to(Loaded(llama(), tokenizer, "x")), llama(max_position_embeddings=512)
    batch = whole(task.prepare(Dataset.from_list(rows[8:16]), tokenizer, None, training=False))
    assert batch.labels is not None
    own = logits(task, model, batch, Side.STUDENT)[:, : task.classes]
    expected = float(torch.nn.functional.cross_entropy(own, batch.labels[batch.labels != NO_ROW]).exp())
    assert run.scores.teacher.quality["test"]["perplexity"].value == pytest.approx(expected, rel=1e-4)
    assert run.scores.student.kl["test"] > 0
