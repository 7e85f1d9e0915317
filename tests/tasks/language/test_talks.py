"""Conversations as data write them, and what of them a chat template is given, what is learnt and what is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stilla.errors import CompatibilityError, DataError
from stilla.tasks.language import conversations
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.sections import CausalLMData
from stilla.tasks.language.talks import Talk
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks.tiny_lm import byte_tokenizer

CHATML = ("{% if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}"
          "{% for m in messages %}<|{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}|>{{ m.content }}"
          "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>"
          "{% endfor %}"
          "<end>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")
LLAMA = ("{{ bos_token }}{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
         "{{ raise_exception('unknown role ' + m.role) }}{% endif %}[{{ m.role }}]\n\n{{ m.content | trim }}</s>{% endfor %}"
         "{% if add_generation_prompt %}[assistant]\n\n{% endif %}")
MISTRAL = ("{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
           "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
           "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}")
MARKED = ("{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<end>"
          "{% endgeneration %}{% else %}{{ m.content }}<end>{% endif %}{% endfor %}"
          "{% if add_generation_prompt %}<|assistant|>{% endif %}")
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(arguments: Any, name: str = "weather") -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


class Shown:
    """What becomes of rows: `whole` and `learnt` by row, `asked` and `references` of those that are asked for."""

    def __init__(self, split: Dataset, template: str, **section: Any) -> None:
        tokenizer = byte_tokenizer(template=template)
        tokenizer.model_max_length = 10_000
        self.split = split
        self.task = CausalLM.understand(CausalLMData(train="x", max_length=10_000, **section), {"train": split})
        made = self.task.prepare(split, tokenizer, None, training=True)
        batch = made.collate(range(len(made)))
        assert batch.labels is not None
        self.keys = made.keys.tolist()
        self.whole = [tokenizer.decode(ids[there.bool()]) for ids, there in
                      zip(batch.student["input_ids"], batch.student["attention_mask"])]
        self.learnt = [tokenizer.decode(row[row != NO_ROW]) for row in batch.labels]
        asked = self.task.asked(split, tokenizer)
        given = asked.tokens.batch(range(len(asked)))
        self.asked = [tokenizer.decode(ids[there.bool()]) for ids, there in zip(given["input_ids"], given["attention_mask"])]
        self.references = asked.references


def shown(*rows: dict[str, Any] | list[dict[str, Any]], template: str = CHATML, **section: Any) -> Shown:
    listed = [row if isinstance(row, dict) else {"messages": row} for row in rows]
    return Shown(Dataset.from_list(listed), template, **section)


def file_of(folder: Path, *rows: dict[str, Any]) -> Dataset:
    """As `datasets` reads JSON lines: messages with unequal keys as JSON."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))


# --- how data write them ---


def test_keys_that_a_table_fills_with_none_are_never_shown_to_the_template() -> None:
    named = [{"role": "user", "content": "hi", "name": "Bob"}, assistant("yes")]
    made = shown(named)
    assert made.whole == ["<|user Bob|>hi<end>\n<|assistant|>yes<end>\n"]
    told = "{% for m in messages %}<{{ m.role }}>{{ m.keys() | list }}{{ m.content }}{% endfor %}"
    assert "name" not in shown([user("hi"), assistant("yes")], named, template=told).whole[0]


@pytest.mark.parametrize("more", [{"name": "Bob"}, {"weight": 1}, {"reasoning_content": "hm"}, {"tool_calls": []}])
def test_messages_with_unequal_keys_are_conversations(tmp_path: Path, more: dict[str, Any]) -> None:
    split = file_of(tmp_path, *[{"messages": [user("q"), assistant("a", **more)]}] * 3)
    assert "Json" in str(split.features)
    for section in ({}, {"messages": "messages"}):
        made = Shown(split, CHATML.replace("{% if m.name %} {{ m.name }}{% endif %}", ""), **section)
        assert made.learnt == ["a<end>\n"] * 3


def test_contents_that_read_as_json_stay_texts(tmp_path: Path) -> None:
    """A column of contents in two types is JSON to `datasets`, which would read `007` as the number 7."""
    rows = [{"messages": [user(one), assistant(two)]} for one, two in
            (("007", "1e3"), ('{"a": 1}', "[1, 2]"), ("null", "true"), ("hi", [{"type": "text", "text": "yes"}]))]
    made = Shown(file_of(tmp_path, *rows), CHATML)
    assert [one.removesuffix("<end>\n") for one in made.learnt] == ["1e3", "[1, 2]", "true", "yes"]
    assert made.whole[0] == "<|user|>007<end>\n<|assistant|>1e3<end>\n"
    assert made.whole[1].startswith('<|user|>{"a": 1}<end>')


def test_sharegpts_speakers_have_roles() -> None:
    made = shown({"conversations": [
        {"from": "system", "value": "be short"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"},
        {"from": "observation", "value": "42"}, {"from": "GPT", "value": "no"}]})
    assert made.whole == ["<|system|>be short<end>\n<|user|>hi<end>\n<|assistant|>yes<end>\n<|tool|>42<end>\n"
                          "<|assistant|>no<end>\n"]
    assert made.learnt == ["yes<end>\nno<end>\n"]
    assert made.task.source_of(made.split, 0).splitlines() == ["system: be short", "user: hi", "assistant: yes", "tool: 42"]
    with pytest.raises(DataError, match=r"has a speaker 'function_call' \(`from`\), who is none of human, user, gpt"):
        shown({"conversations": [{"from": "human", "value": "hi"}, {"from": "function_call", "value": "{}"},
                                 {"from": "gpt", "value": "no"}]})


def test_a_column_of_any_name_that_holds_conversations_is_one() -> None:
    assert shown({"dialog": [user("hi"), assistant("yes")], "id": "x1"}).learnt == ["yes<end>\n"]
    with pytest.raises(DataError, match=r"which column are the conversations\? one or two could be it.*data\.messages"):
        shown({"one": [user("hi"), assistant("yes")], "two": [user("hi"), assistant("no")]})


def test_content_in_parts_is_their_text() -> None:
    parts = [{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}]
    assert shown([user([parts[0]]), assistant(parts)]).learnt == ["yes<end>\n"]
    with pytest.raises(DataError, match=r"has content that is no text \(image_url, text\) in 1 of 1"):
        shown([user([{"type": "image_url", "text": None}, {"type": "text", "text": "what?"}]), assistant(parts)])


def test_prompts_and_completions_may_be_lists_of_messages() -> None:
    row = {"prompt": [user("hi"), assistant("yes"), user("so?")], "completion": [assistant("no")]}
    for section in ({}, {"prompt": "prompt", "completion": "completion"}):
        made = shown(row, **section)
        assert made.whole == ["<|user|>hi<end>\n<|assistant|>yes<end>\n<|user|>so?<end>\n<|assistant|>no<end>\n"]
        assert made.learnt == ["no<end>\n"]
        assert made.asked == [made.whole[0].removesuffix("no<end>\n")]
    assert made.task.resolved(made.task.section).completion == "completion"
    with pytest.raises(DataError, match=r"'prompt' holds messages and the other text; expected both"):
        shown({**row, "completion": "no"}, prompt="prompt", completion="completion")


def test_an_answer_that_was_written_takes_the_place_of_the_last() -> None:
    for row in ({"messages": [user("hi"), assistant("yes"), user("so?"), assistant(None, tool_calls=[call({"a": 1})])]},
                {"conversations": [{"from": "human", "value": "so?"}, {"from": "gpt", "value": "x"}], "id": "a"},
                {"prompt": [user("hi"), assistant("yes"), user("so?")], "completion": [assistant("no")]}):
        made = shown(row, row)
        tokenizer = byte_tokenizer(template=CHATML)
        written = made.task.answered(made.split, ["never", "never e"], [False, True])
        again = made.task.prepare(written, tokenizer, None, training=True)
        labels = again.collate([0, 1]).labels
        assert labels is not None
        said = [tokenizer.decode(one[one != NO_ROW]) for one in labels]
        assert said == [made.learnt[0].replace("no<end>", "never<end>") if "prompt" in row else
                        "yes<end>\nnever<end>\n" if "messages" in row else "never<end>\n", "never e"]


# --- which turns are learnt ---


@pytest.mark.parametrize("template", [CHATML, MARKED], ids=["by rendering", "by its marks"])
def test_turns_of_weight_nought_are_read_and_not_learnt(template: str) -> None:
    made = shown([user("hi"), assistant("bad", weight=0), user("again"), assistant("good", weight=1), user("and?"),
                  assistant("worse", weight=0)], template=template)
    assert "bad" in made.whole[0]
    assert made.learnt[0].strip() == "good<end>"
    assert made.references == ["good"]
    assert made.asked[0].endswith("again<end>\n<|assistant|>" if template == CHATML else "again<end><|assistant|>")


@pytest.mark.parametrize(("talk", "said"), [
    ([user("hi"), assistant("yes", weight=0)], "the weight of every assistant's turn is 0"),
    ([user("hi"), assistant("yes", weight=0.5)], r"has a turn of weight 0\.5; known are 0 .* and 1"),
    ([user("hi"), assistant("no", train=False), assistant("yes")], "has a turn with `train: false`; write `weight: 0`"),
    ([user("hi")], "in which an assistant speaks"),
    ([{"role": "system", "content": "be short"}], "in which an assistant speaks"),
    ([user("hi"), assistant(" ")], "a turn of the assistant that says nothing"),
    ([user("hi"), assistant(None)], "a message of 'assistant' without content"),
    ([user(None), assistant("yes")], "a message of 'user' without content"),
])
def test_conversations_with_nothing_to_learn_are_refused_or_left_out(talk: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=rf"data\.train: 'messages' .*{said}.* in 1 of 2 examples"):
        shown(talk, [user("hi"), assistant("yes")])
    assert shown(talk, [user("hi"), assistant("yes")], broken="skip").keys == [1]


def test_different_faults_are_told_apart() -> None:
    with pytest.raises(DataError, match=r"(?s)2 problems.*says nothing in 1 of 3.*an assistant speaks in 2 of 3"):
        shown([user("hi"), assistant("")], [user("hi")], [user("so")])


def test_an_assistant_that_begins_is_learnt_from_its_first_word() -> None:
    made = shown([assistant("welcome"), user("hi"), assistant("yes")], [assistant("welcome")])
    assert made.learnt == ["welcome<end>\nyes<end>\n", "welcome<end>\n"]
    assert made.asked[1] == "<|assistant|>"
    assert shown([assistant("welcome"), user("hi"), assistant("yes")], template=LLAMA).learnt == ["welcome</s>yes</s>"]


@pytest.mark.parametrize("template", [CHATML, MARKED], ids=["by rendering", "by its marks"])
def test_no_word_of_the_assistant_is_lost_to_a_tokenizer_that_drops_spaces(template: str) -> None:
    """Words alone are tokens: turns begin and end with spaces that are in none, and `>` and a space come before them."""
    words = ["<", ">", "|", "user", "assistant", "end", "hi", "you", "yes", "sir", "no"]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(["?", *words])}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?", eos_token="<end>", pad_token="?")
    tokenizer.chat_template = template
    talk = Talk((user("hi"), assistant(" yes sir "), user("you hi"), assistant("\nno ")), (1, 3))
    ids, wanted = conversations.Template(tokenizer).tokens(talk, 0)
    said = tokenizer.convert_ids_to_tokens(ids[wanted])
    assert said == ["yes", "sir", "<end>", "no", "<end>"]


def test_the_space_before_a_word_is_a_part_of_its_token() -> None:
    words = ["?", "<|user|>", "<|assistant|>", "<end>", "▁hi", "▁yes", "▁sir"]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made.add_special_tokens(words[1:4])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?", eos_token="<end>", pad_token="?")
    tokenizer.chat_template = CHATML.replace("|>{{", "|> {{").replace("<|assistant|>{%", "<|assistant|> {%").replace("\n", "")
    ids, wanted = conversations.Template(tokenizer).tokens(Talk((user("hi"), assistant("yes sir")), (1,)), 0)
    assert tokenizer.convert_ids_to_tokens(ids[wanted]) == ["▁yes", "▁sir", "<end>"]


def test_several_templates_without_a_default_are_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"one": CHATML, "tool_use": CHATML}
    with pytest.raises(CompatibilityError, match="multiple chat templates with no default"):
        conversations.Template(tokenizer)
    tokenizer.chat_template = {"default": LLAMA, "tool_use": CHATML}
    template = conversations.Template(tokenizer)
    talk = (user("hi"), assistant("yes"))
    said = [tokenizer.decode(template.tokens(Talk(talk, (1,), tools), 0)[0]) for tools in ((), (WEATHER,))]
    assert said[0].startswith("<s>[user]")
    assert said[1].startswith("<tools>")


def test_an_empty_question_is_one() -> None:
    assert shown([user(""), assistant("yes")]).whole == ["<|user|><end>\n<|assistant|>yes<end>\n"]


def test_two_turns_of_a_user_are_the_templates_business() -> None:
    talk = [user("hi"), user("you"), assistant("yes")]
    assert shown(talk).learnt == ["yes<end>\n"]
    with pytest.raises(DataError, match=r"refuses conversation 0: Conversation roles must alternate user/assistant"):
        shown(talk, template=MISTRAL)


def test_what_a_template_refuses_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    made = shown([user("hi"), user("you"), assistant("yes")], [user("hi"), assistant("no")], template=MISTRAL, broken="skip")
    assert made.keys == [1]
    assert made.references == ["no"]
    assert "1 of 2 conversations are left out; the first: data.messages: the chat template refuses conversation 0:" in (
        caplog.text)


# --- ends ---


def test_beginnings_and_ends_that_messages_write_too_stand_once() -> None:
    made = shown([user("hi"), assistant("yes</s>")], [user("hi"), assistant("no")], template=LLAMA)
    assert made.whole[0] == "<s>[user]\n\nhi</s>[assistant]\n\nyes</s>"
    assert made.learnt == ["yes</s>", "no</s>"]
    bare = "{{ bos_token }}{% for m in messages %}{{ m.content }}|{% endfor %}"
    made = shown([user("<s>hi"), assistant("yes")], template=bare)
    assert made.whole == ["<s>hi|yes|"]
    assert made.asked == ["<s>hi|"]


def test_a_template_without_a_beginning_gets_none_from_the_tokenizer() -> None:
    assert not shown([user("hi"), assistant("yes")]).whole[0].startswith("<s>")


# --- tools ---


TALK = [user("rain?"), assistant(None, tool_calls=[call({"city": "Rome"})]),
        {"role": "tool", "content": '{"rain": false}', "tool_call_id": "1", "name": "weather"}, assistant("no")]
CALLED = '<call>weather {"city": "Rome"}</call><end>\n'


@pytest.mark.parametrize("tools", [[WEATHER], json.dumps([WEATHER]), [json.dumps(WEATHER)]],
                         ids=["lists", "JSON text", "a list of JSON texts"])
def test_tools_are_handed_to_the_template(tools: Any) -> None:
    made = shown({"messages": [user("hi"), assistant("yes")], "tools": tools})
    assert made.whole[0].startswith(f"<tools>[{json.dumps(WEATHER)}]</tools>\n<|user|>hi")
    assert made.asked[0].startswith("<tools>")
    assert made.learnt == ["yes<end>\n"]
    assert made.task.resolved(made.task.section).tools == "tools"
    renamed = shown({"messages": [user("hi"), assistant("yes")], "mine": tools}, messages="messages", tools="mine")
    assert renamed.whole == made.whole


def test_tools_of_different_shapes_hold_no_keys_of_each_other() -> None:
    other = {"type": "function", "function": {"name": "time", "parameters": {
        "type": "object", "properties": {"zone": {"type": "integer"}}}}}
    rows = [{"messages": [user("hi"), assistant("yes")], "tools": [one]} for one in (WEATHER, other)]
    made = shown(*rows, {"messages": [user("hi"), assistant("yes")], "tools": []})
    assert [one.partition("</tools>")[0] for one in made.whole[:2]] == [f"<tools>[{json.dumps(one)}]" for one in (
        WEATHER, other)]
    assert "<tools>" not in made.whole[2]


def test_a_template_without_a_place_for_tools_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"data\.tools: the chat template has no place for tools"):
        shown({"messages": [user("hi"), assistant("yes")], "tools": [WEATHER]}, template=LLAMA)


def test_tools_that_are_no_schemas_are_refused() -> None:
    with pytest.raises(DataError, match="has tools that are no list of schemas, and no JSON text of one in 1 of 1"):
        shown({"messages": [user("hi"), assistant("yes")], "tools": "weather"})


@pytest.mark.parametrize("from_file", [False, True], ids=["structs", "JSON"])
def test_calls_are_learnt_and_their_results_read(from_file: bool, tmp_path: Path) -> None:
    split = file_of(tmp_path, {"messages": TALK}) if from_file else Dataset.from_list([{"messages": TALK}])
    made = Shown(split, CHATML.replace("{{ m.content }}", "{{ m.content or '' }}"))
    assert made.learnt == [f"{CALLED}no<end>\n"]
    assert '<|tool weather|>{"rain": false}<end>' in made.whole[0]
    assert made.asked[0].endswith('{"rain": false}<end>\n<|assistant|>')


def test_a_call_can_be_the_answer_that_is_asked_for() -> None:
    made = shown(TALK[:2], template=CHATML.replace("{{ m.content }}", "{{ m.content or '' }}"))
    assert made.asked == ["<|user|>rain?<end>\n<|assistant|>"]
    assert made.references == ['<call>weather {"city": "Rome"}</call><end>']


@pytest.mark.parametrize("arguments", [{"city": "Rome"}, '{"city": "Rome"}'], ids=["a mapping", "JSON text"])
@pytest.mark.parametrize("written", [
    "{{ c.function.arguments | tojson }}", "{{ c.function.arguments }}", "{{ '' + c.function.arguments }}",
    "{% set a = c.function.arguments %}{% if a is string %}{{ a }}{% else %}{{ a | tojson }}{% endif %}",
    "{% for k, v in c.function.arguments.items() %}{\"{{ k }}\": \"{{ v }}\"}{% endfor %}",
], ids=["tojson", "as it is", "text alone", "either", "by item"])
def test_arguments_come_as_the_template_wants_them(arguments: Any, written: str) -> None:
    template = CHATML.replace("{{ m.content }}", "{{ m.content or '' }}")
    template = template.replace("{{ c.function.arguments | tojson }}", written)
    made = shown([user("rain?"), assistant(None, tool_calls=[call(arguments)])], template=template)
    assert made.learnt == [CALLED]


def test_a_template_that_leaves_calls_out_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"does not write the calls of tools in turn 1 of conversation 0"):
        shown([user("rain?"), assistant("let me see", tool_calls=[call({"city": "Rome"})])], template=LLAMA)


# --- templates of no use ---


@pytest.mark.parametrize("template", [
    "hello", "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% endif %}{% endfor %}",
    "{% for m in messages %}<|{{ m.role }}|><end>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
], ids=["nothing", "users alone", "roles alone"])
def test_a_template_that_drops_what_the_assistant_says_is_refused(template: str) -> None:
    with pytest.raises(CompatibilityError, match=r"does not write what the assistant says in turn 1 of conversation 0"):
        shown([user("hi"), assistant("yes")], template=template)


def test_a_template_that_marks_nothing_is_refused() -> None:
    empty = MARKED.replace("{{ m.content }}<end>{% endgeneration %}", "{% endgeneration %}{{ m.content }}")
    with pytest.raises(CompatibilityError, match="marks nothing of conversation 0 as generated"):
        shown([user("hi"), assistant("yes")], template=empty)


def test_messages_that_a_template_leaves_out_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    deaf = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'critic' %}")
    made = shown([user("hi"), {"role": "critic", "content": "weak"}, assistant("yes")], template=deaf)
    assert made.learnt == ["yes<end>\n"]
    assert "the chat template leaves out what 'critic' says, in 1 of 1 messages" in caplog.text
    assert "'user'" not in caplog.text


def test_a_template_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "PATIENCE", 0.2)
    endless = ("{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
               "{% endfor %}")
    with pytest.raises(CompatibilityError, match=r"takes longer than 0\.2 s for conversation 0: it may never end"):
        shown([user("hi"), assistant("yes")], template=endless)


def test_a_template_that_writes_without_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "LONGEST", 10_000)
    with pytest.raises(CompatibilityError, match=r"writes 90,\d{3} characters of conversation 0; expected at most 10,000"):
        shown([user("hi"), assistant("yes")], template=CHATML + "{{ 'x' * 90000 }}")


@pytest.mark.parametrize(("template", "said"), [
    ("{{ raise_exception('no \x1b[31mred') }}", r"no \\x1b\[31mred"), ("{% if %}", "Expected an expression"),
    ("{{ messages[9].content.strip() }}", "has no element 9|is undefined"), ("{{ 1 / 0 }}", "division by zero"),
    ("{% for a in range(999999999) %}{% endfor %}", "Range too big"),
    ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
])
def test_what_a_template_raises_is_said_in_words(template: str, said: str) -> None:
    with pytest.raises(DataError, match=f"the chat template refuses conversation 0: .*(?:{said})"):
        shown([user("hi"), assistant("yes")], template=template)
