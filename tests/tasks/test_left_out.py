"""Columns are found by their names, and what belongs to an example is never left out without a word."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from stilla.errors import DataError
from stilla.tasks import find
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.prompts import alpaca
from stilla.tasks.language.sections import CausalLMData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.text.text_classification import TextClassification
from tests.tasks.tiny_lm import byte_tokenizer


def understood(kind: str, columns: dict[str, Any], **section: Any) -> Any:
    split = Dataset.from_dict(columns)
    task = find(kind)
    return task.understand(task.data_section(train="x", **section), {"train": split})


def prose(word: str, count: int = 4) -> list[str]:
    return [f"{word} number {number}" for number in range(count)]


def read(columns: dict[str, Any], **section: Any) -> tuple[CausalLM, str, str]:
    """The task, all of the first example, and what is learnt of it."""
    split, tokenizer = Dataset.from_dict(columns), byte_tokenizer()
    tokenizer.model_max_length = 5000
    task = CausalLM.understand(CausalLMData(train="x", max_length=5000, pack=False, **section), {"train": split})
    batch = task.prepare(split, tokenizer, None, training=True).collate([0])
    assert batch.labels is not None
    labels = batch.labels[0]
    return task, tokenizer.decode(batch.student["input_ids"][0]), tokenizer.decode(labels[labels != NO_ROW])


# --- Alpaca's and Dolly's data ---

ALPACA = {"instruction": ["Translate."], "input": ["cheese"], "output": ["fromage"]}
WITH = ("Below is an instruction that describes a task, paired with an input that provides further context. Write a response "
        "that appropriately completes the request.\n\n### Instruction:\nTranslate.\n\n### Input:\ncheese\n\n### Response:\n")
WITHOUT = ("Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
           "### Instruction:\nTranslate.\n\n### Response:\n")


@pytest.mark.parametrize(("columns", "names"), [
    (ALPACA, ("instruction", "input", "output")),
    ({"instruction": ["Translate."], "context": ["cheese"], "response": ["fromage"], "category": ["closed_qa"]},
     ("instruction", "context", "response")),
    ({**ALPACA, "text": [f"{WITH}fromage"]}, ("instruction", "input", "output")),
])
def test_instructions_and_what_belongs_to_them_are_alpacas_prompt(
    columns: dict[str, Any], names: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    task, whole, learnt = read(columns)
    assert whole == f"<s>{WITH}fromage</s>"
    assert learnt == "fromage</s>"
    assert "written as one prompt in Alpaca's words" in caplog.text
    assert "left out" not in caplog.text
    section = task.resolved(task.section)
    assert (section.prompt, section.context, section.completion) == names
    split = Dataset.from_dict(columns)
    again = CausalLM.understand(section, {"train": split})
    assert again.source_of(split, 0) == WITH
    assert byte_tokenizer().decode(again.asked(split, _long()).tokens.ids) == f"<s>{WITH}"


def _long() -> Any:
    made = byte_tokenizer()
    made.model_max_length = 5000
    return made


@pytest.mark.parametrize("nothing", ["", " \n", None])
def test_an_instruction_alone_is_alpacas_other_prompt(nothing: str | None) -> None:
    columns = {name: [value[0]] * 2 for name, value in ALPACA.items()}
    assert read({**columns, "input": [nothing, "cheese"]})[1] == f"<s>{WITHOUT}fromage</s>"
    assert alpaca("Translate.", nothing) == WITHOUT


def test_alpacas_prompt_is_the_one_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "language-models.md").read_text(encoding="utf-8")
    assert f"```text\n{alpaca('{instruction}', '{input}')}```" in page


def test_what_belongs_to_a_prompt_can_be_named() -> None:
    columns = {"q": ["Translate."], "c": ["cheese"], "a": ["fromage"]}
    assert read(columns, prompt="q", completion="a", context="c")[1] == f"<s>{WITH}fromage</s>"
    assert read(columns, prompt="q", completion="a")[1] == "<s>Translate.fromage</s>"
    with pytest.raises(DataError, match=r"data\.context: .* name data\.prompt and data\.completion too"):
        read(columns, context="c", text="q")
    with pytest.raises(DataError, match=r"data\.tools: only conversations offer tools"):
        read(columns, prompt="q", completion="a", tools="c")


# --- language models ---


@pytest.mark.parametrize("pair", [("prompt", "completion"), ("prompt", "response"), ("question", "answer"),
                                  ("query", "response"), ("Instruction", "Output"), ("input", "output")])
def test_pairs_are_prompts_and_completions(pair: tuple[str, str]) -> None:
    task, whole, learnt = read({pair[0]: ["what?"], pair[1]: [" 42"], "id": ["a b"]})
    assert (whole, learnt) == ("<s>what? 42</s>", " 42</s>")
    assert task.layout.columns == pair


@pytest.mark.parametrize(("columns", "said"), [
    ({"system": prose("be"), "prompt": prose("q"), "response": prose("a")}, "'system' left out.*data.completion"),
    ({"question": prose("q"), "context": prose("c"), "answer": prose("a")}, "'context' left out.*data.context"),
    ({"question": prose("q"), "answers": [["42"]] * 4}, "'question' would be read, and 'answers' left out"),
    ({"question": prose("q"), "answers": [{"text": ["42"], "answer_start": [1]}] * 4}, "'answers' left out"),
    ({"question": prose("q"), "choices": [["a", "b"]] * 4, "answer": ["a"] * 4}, "'choices' left out"),
    ({"question": prose("q"), "answer": [1, 2, 3, 4]}, "'question' would be read, and 'answer' left out"),
    ({"instruction": prose("i"), "input": [1, 2, 3, 4], "output": prose("o")}, "'input' left out"),
    ({"text": prose("t"), "response": prose("r")}, "'response' left out"),
    ({"question": prose("q"), "hint": prose("h")}, "'hint' left out"),
    ({"prompt": prose("q"), "completion": prose("a"), "instruction": prose("i")}, "'instruction' left out"),
    ({"prompt": prose("q"), "completion": prose("a"), "response": prose("r")}, "which columns are the prompt and its compl"),
    ({"prompt": prose("q"), "chosen": prose("a"), "rejected": prose("r")}, "'chosen' and 'rejected' are preferences"),
    ({"messages": [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]] * 4, "system": prose("s")},
     "'messages' would be read, and 'system' left out"),
    ({"messages": [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]] * 4,
      "chat_template_kwargs": [{"enable_thinking": False}] * 4}, "'chat_template_kwargs' left out"),
])
def test_what_a_language_model_would_not_read_is_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        understood("causal-lm", columns)


def test_what_the_recipe_names_is_all_that_is_meant() -> None:
    columns = {"system": prose("be"), "prompt": prose("q"), "response": prose("a")}
    assert understood("causal-lm", columns, prompt="prompt", completion="response").layout.columns == ("prompt", "response")
    preferences = {"prompt": prose("q"), "chosen": prose("a"), "rejected": prose("r")}
    assert read(preferences, prompt="prompt", completion="chosen")[2] == "a number 0</s>"
    assert understood("causal-lm", {"question": prose("q"), "answers": [["42"]] * 4}, text="question").layout.source == "text"


def test_a_prompt_that_a_conversation_says_too_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    talks = [[{"role": "user", "content": one}, {"role": "assistant", "content": "a"}] for one in prose("q")]
    assert understood("causal-lm", {"prompt": prose("q"), "messages": talks, "prompt_id": prose("x")}).layout.columns == (
        "messages",)
    assert not caplog.records
    with pytest.raises(DataError, match="'prompt' left out"):
        understood("causal-lm", {"prompt": prose("another"), "messages": talks})


def test_what_may_go_with_a_text_is_said(caplog: pytest.LogCaptureFixture) -> None:
    columns = {"id": ["1", "2"], "url": ["a b", "c"], "title": ["one", "two"], "text": ["a b", "c d"], "more": ["e f", "g h"]}
    for kind in ("causal-lm", "masked-lm"):
        caplog.clear()
        understood(kind, columns)
        assert [record.getMessage() for record in caplog.records] == [
            "data: left out beside 'text': 'title' and 'more'"]
    caplog.clear()
    understood("causal-lm", columns, text="text")
    assert not caplog.records


def test_what_is_empty_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    columns = {"prompt": ["q"], "completion": ["a"], "system": [""], "context": [None], "history": json.loads("[[]]")}
    assert understood("causal-lm", columns).layout.columns == ("prompt", "completion")
    assert not caplog.records


# --- classes of texts ---


def of_classes(*names: str, **more: Any) -> dict[str, Any]:
    return {**{name: prose(name, 40) for name in names}, "label": ["yes", "no"] * 20, **more}


@pytest.mark.parametrize("pair", [("question", "answer"), ("question", "context"), ("query", "response"),
                                  ("claim", "evidence"), ("premise", "hypothesis")])
def test_usual_pairs_are_read_whole(pair: tuple[str, str]) -> None:
    task = understood("text-classification", of_classes(*pair))
    assert isinstance(task, TextClassification)
    assert task.text == pair


@pytest.mark.parametrize(("columns", "lost"), [
    (of_classes("query", "thread"), "thread"), (of_classes("text", "remark"), "remark"),
    (of_classes("question", "context", "answer"), "context"), (of_classes("text", context=["a"] * 40), "context"),
    (of_classes("text", choices=[["a", "b"]] * 40), "choices"),
])
def test_a_second_text_that_no_list_names_is_asked_for(columns: dict[str, Any], lost: str) -> None:
    with pytest.raises(DataError, match=rf"'{lost}' left out.*Set data\.text: one column, or two for pairs"):
        understood("text-classification", columns)
    assert understood("text-classification", columns, text=next(iter(columns))).text


def test_what_is_known_about_a_text_is_no_second_one(caplog: pytest.LogCaptureFixture) -> None:
    columns = of_classes("text", label_text=["yes", "no"] * 20, author=prose("author", 40), doc_id=prose("id", 40))
    assert understood("text-classification", columns).text == ("text",)
    assert not caplog.records
    caplog.set_level(logging.WARNING)
    aspects = of_classes("text", title=prose("title", 40), aspect=["the food", "the room"] * 20, code=["x1"] * 40)
    assert understood("text-classification", aspects).text == ("text",)
    assert caplog.messages == ["data: left out beside 'text': 'title', 'aspect' and 'code'"]


# --- translations ---


@pytest.mark.parametrize(("columns", "lost"), [
    ({"question": prose("q"), "context": prose("c"), "answer": prose("a")}, "context"),
    ({"instruction": prose("i"), "input": prose("x"), "output": prose("y")}, "instruction"),
    ({"source": prose("s"), "target": prose("t"), "hint": prose("h")}, "hint"),
    ({"document": prose("d"), "summary": prose("s"), "question": prose("q")}, "question"),
])
def test_what_an_encoder_would_not_read_is_refused(columns: dict[str, Any], lost: str) -> None:
    with pytest.raises(DataError, match=rf"'{lost}' left out.*Set data\.source and data\.target"):
        understood("seq2seq", columns)
    names = [name for name in columns if name != lost]
    task = understood("seq2seq", columns, source=names[0], target=names[1])
    assert isinstance(task, Seq2Seq)
    assert task.columns == tuple(names)
