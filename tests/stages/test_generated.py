"""Unlabelled texts that a language model writes: what it is shown, what of them is kept, and what a kill leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertLMHeadModel

from stilla.errors import CompatibilityError, DataError, RecipeError, StillaError
from stilla.recipe import Generate, Recipe
from stilla.recipe.file import from_options, read
from stilla.recipe.written import dump
from stilla.stages import generated, unlabelled
from stilla.stages.generated import COPY, EMPTY, SCHEMA, TWICE, Writing
from stilla.stages.parts import Parts
from stilla.stages.prompting import Prompts
from stilla.stages.sampling import Chance, sample
from stilla.stages.unlabelled import MEASURED, Pool
from stilla.tasks.base import Task
from stilla.tasks.retrieval.embedding import Embedding
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.text.sections import TextClassificationData, TokenClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.text.token_classification import TokenClassification
from tests.tasks import tiny_lm

LONG = "one two three four five six seven eight nine"
TEXTS = [f"{text} {number}" for number, text in enumerate(tiny_lm.sentences(20))]
SPLITS = {"train": Dataset.from_dict({"text": TEXTS, "label": ["SECRET", "b"] * 10, "note": ["SECRET"] * 20}),
          "validation": Dataset.from_dict({"text": ["Yes!", LONG], "label": ["SECRET", "b"]})}
TASK = TextClassification.understand(TextClassificationData(train="x", text=("text",), label=("label",)), SPLITS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A language model in which every byte is a token."""
    made = tiny_lm.llama(259, max_position_embeddings=256, num_hidden_layers=1)
    tokenizer = tiny_lm.byte_tokenizer()
    tokenizer.model_max_length = 256
    return tiny_lm.folder(tmp_path_factory.mktemp("lm"), made, tokenizer)


@pytest.fixture(scope="module")
def loaded(model: str) -> Writing:
    return Writing.of(section(model=model), TASK, SPLITS, None, 0)


def section(**changes: Any) -> Generate:
    return Generate(**{"model": "m", "count": 20, "max_new_tokens": 6, "batch_size": 1, **changes})


def writing(loaded: Writing, seed: int = 0, splits: Any = SPLITS, **changes: Any) -> Writing:
    """With the model that is loaded."""
    asked = section(**changes)
    return Writing(asked, loaded.model, generated.shown(asked, TASK, splits, None), seed)


def prompt(found: Writing, number: int) -> str:
    return str(found.model.processor.decode(found.prompts.tokens(found.prompts.drawn(number)[0])))


def recipe(**section: Any) -> Recipe:
    return from_options({"task": "text-classification", "teacher": "./t", "student": 1,
                         "data": {"train": "x", "unlabelled": {"generate": {"model": "./lm", **section}}}})


# --- what a model is shown ---


@pytest.mark.parametrize("changes", [{}, {"instruction": "Sentences."}])
def test_no_label_and_nothing_beside_the_text_reaches_a_prompt(loaded: Writing, changes: dict[str, str]) -> None:
    found = writing(loaded, **changes) if changes else loaded
    for number in range(20):
        said = prompt(found, number)
        shown = [line.removeprefix("Text: ") for line in said.splitlines() if "Text: " in line]
        assert "SECRET" not in said
        assert len({*shown}) == 4
        assert {line.removeprefix("<s>Text: ") for line in shown} <= {*TEXTS}
        assert said.endswith("\nText:")
        assert said.startswith("<s>Sentences.\n\nText: " if changes else "<s>Text: ")


def test_what_is_shown_is_drawn_for_every_text_by_seed_and_number(loaded: Writing) -> None:
    one, other = writing(loaded), writing(loaded, seed=1)
    assert [prompt(one, number) for number in range(9)] == [prompt(writing(loaded), number) for number in range(9)]
    assert len({prompt(each, number) for each in (one, other) for number in range(10)}) == 20
    assert {text for number in range(40) for text in one.prompts.drawn(number)[0]} == {*TEXTS}


def test_of_texts_that_do_not_fit_the_beginning_is_shown() -> None:
    found = Prompts(Generate(model="m", max_new_tokens=10), tiny_lm.byte_tokenizer(), ["a " * 400] * 4, 128, 0)
    ids = found.tokens(found.drawn(0)[0])
    assert 80 < len(ids) <= 118
    assert found.tokenizer.decode(ids).count("Text: a a a") == 4
    with pytest.raises(CompatibilityError, match=r"a prompt of 40 texts has .* tokens, and m has 128 positions, of which "
                                                 r"max_new_tokens takes 10. Show fewer \(shots\), or write shorter ones"):
        found.tokens(["a " * 400] * 40)


def test_lines_within_a_text_are_no_lines_of_the_prompt() -> None:
    found = Prompts(Generate(model="m"), tiny_lm.byte_tokenizer(), [], 512, 0)
    assert found.tokenizer.decode(found.tokens(["a\n\nb", "c"])) == "<s>Text: a b\nText: c\nText:"


def test_with_chat_the_model_is_asked_in_its_own_template() -> None:
    tokenizer = tiny_lm.byte_tokenizer(begin=False, template=tiny_lm.CHAT)
    found = Prompts(Generate(model="m", chat=True, instruction="Two questions."), tokenizer, [], 512, 0)
    said = tokenizer.decode(found.tokens(["how", "why"]))
    assert said.startswith("<user> Two questions.\n\nhow\nwhy\n\nWrite one more text of this kind.")
    assert said.endswith("<end>\n<assistant> ")
    assert found.text_of("\nwhere\nNow you know") == "where"
    assert not found.is_whole("\nwhere")
    assert found.is_whole("\nwhere\n")


def test_a_text_ends_with_its_line_or_with_what_a_cut_left_of_a_character() -> None:
    found = Prompts(Generate(model="m"), tiny_lm.byte_tokenizer(), [], 512, 0)
    assert found.text_of(" hello there \nText: another") == "hello there"
    assert found.text_of(" caf\ufffd") == "caf"
    whole = Prompts(Generate(model="m", prompt="none"), tiny_lm.byte_tokenizer(), [], 512, 0)
    assert whole.text_of("two\nlines\n") == "two\nlines"
    assert whole.tokens([]) == [0]


# --- how it writes ---


@pytest.mark.parametrize("changes", [{"top_p": 0.8, "temperature": 0.7}, {"prompt": "none"}])
def test_a_text_is_the_same_in_whatever_batch(loaded: Writing, changes: dict[str, Any]) -> None:
    found = writing(loaded, **changes)
    together = found.rows(range(5))
    assert len({len(found.prompts.tokens(found.prompts.drawn(number)[0])) for number in range(5)}) == (
        1 if "prompt" in changes else 5)  # so that some are padded
    assert together == [found.rows([number])[0] for number in range(5)]
    assert len({row["text"] for row in together}) > 2
    assert together != writing(loaded, seed=1, **changes).rows(range(5))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, None), (0.5, None), (2.0, 0.6)])
def test_tokens_are_drawn_by_their_probabilities(temperature: float, top_p: float | None) -> None:
    logits = np.random.default_rng(0).normal(size=6) * 2
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    if top_p is not None:
        order = np.argsort(-expected)
        kept = order[: int(np.searchsorted(np.cumsum(expected[order]), top_p)) + 1]
        expected = np.where(np.isin(np.arange(6), kept), expected, 0) / expected[kept].sum()
        assert len(kept) < 6
    draws = (torch.arange(10_000) + 0.5) / 10_000
    found = Chance(temperature, top_p).tokens(torch.tensor(logits).expand(10_000, 6), draws)
    assert np.bincount(found.numpy(), minlength=6) / 10_000 == pytest.approx(expected, abs=1.01e-4)


def test_a_text_stops_at_its_end(loaded: Writing) -> None:
    found = writing(loaded, max_new_tokens=40)
    prompts, steps = [[65, 66]] * 8, list[int]()

    def is_whole(text: str) -> bool:
        steps.append(len(text))
        return len(text) > 4

    draws = np.random.default_rng(0).random((8, 40))
    texts = sample(found.model.model, found.model.processor, prompts, draws, Chance(), is_whole)
    free = sample(found.model.model, found.model.processor, prompts, draws, Chance())
    assert len(steps) < 8 * 20
    assert all(one.ids[:5] == other.ids[:5] for one, other in zip(texts, free))
    assert max(len(one.ids) for one in texts) < 20 < max(len(one.ids) for one in free)


def test_a_killed_writing_goes_on_and_ends_with_the_same_bytes(
    loaded: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = writing(loaded, max_new_tokens=2, shots=1, count=9)
    found.write(tmp_path / "whole", found.inputs())
    real, calls = Parts.save, []

    def killed(self: Parts, rows: Any, number: int, mark: str) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self, rows, number, mark)

    monkeypatch.setattr(Parts, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        found.write(tmp_path / "killed", found.inputs())
    with pytest.raises(StillaError, match=r"part-00001\.parquet is missing; run again"):
        generated.read(TASK, SPLITS, None, tmp_path / "killed")
    first = (tmp_path / "killed" / "part-00000.parquet").stat().st_mtime_ns
    monkeypatch.setattr(Parts, "save", real)
    again = writing(loaded, max_new_tokens=2, shots=1, count=9)
    again.write(tmp_path / "killed", again.inputs())
    assert (tmp_path / "killed" / "part-00000.parquet").stat().st_mtime_ns == first
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert names == ["part-00000.parquet", "part-00001.parquet", "settings.json"]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_texts_depend_on_what_is_shown_and_on_no_label(loaded: Writing) -> None:
    plain = writing(loaded).inputs()
    others = {**SPLITS, "train": Dataset.from_dict({**SPLITS["train"][:], "label": ["b"] * 20})}
    fewer = {**SPLITS, "train": SPLITS["train"].select(range(19))}
    assert writing(loaded, splits=others).inputs() == plain
    assert writing(loaded, splits=fewer).inputs() != plain
    assert writing(loaded, splits=fewer, prompt="none").inputs() == writing(loaded, prompt="none").inputs()
    assert writing(loaded, seed=1).inputs() != plain


# --- which of them are learnt ---


def kept(texts: list[str], folder: Path, named: list[str] | None = None, **section: Any) -> Pool:
    rows = [{"key": number, "text": text, "cut": False} for number, text in enumerate(texts)]
    Parts(folder, SCHEMA).make([range(len(rows))], lambda batch: [rows[one] for one in batch], {}, title="")
    asked = recipe()
    assert asked.data.unlabelled is not None
    asked = asked.model_copy(update={"data": asked.data.model_copy(
        update={"unlabelled": asked.data.unlabelled.model_copy(update=section)})})
    found = unlabelled.read(asked, TASK, SPLITS, {} if named is None else {"a": Dataset.from_dict({"text": named})},
                            lambda given: generated.read(TASK, SPLITS, given, folder))
    assert found is not None
    return found


def test_what_is_empty_there_twice_a_copy_or_measured_on_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["new", "", "yes", "New!", f"zero {LONG} ten", TEXTS[3].upper(), "known", "other"]
    found = kept(texts, tmp_path, ["Known", "mine", "yes"])
    assert found.data["text"][:] == ["Known", "mine", "new", "other"]
    assert found.generated == 2
    assert found.left_out == {EMPTY: 1, TWICE: 1, COPY: 2, MEASURED: 3}
    assert "generated: 4 of 8 texts are kept, 1 left out (generated empty)" in capsys.readouterr().err
    assert "2 of 4 generated texts stand in validation or test data" in caplog.text


def test_what_a_model_wrote_of_the_test_data_stops_no_run(tmp_path: Path) -> None:
    found = kept(["new", "yes"], tmp_path / "a", overlap="refuse")
    assert (found.data["text"][:], found.generated) == (["new"], 1)
    with pytest.raises(DataError, match="1 of 2 examples stand in validation or test data"):
        kept(["new"], tmp_path / "b", ["yes", "mine"], overlap="refuse")


def test_where_nothing_is_left_it_is_said_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 3 texts is kept, 2 left out \(generated empty\), 1 left out .*"):
        kept(["", "", TEXTS[0]], tmp_path)


def test_the_last_ones_of_a_pool_are_those_that_a_model_wrote() -> None:
    pool = Pool(Dataset.from_dict({"text": list("ab")}), {"x": 1}).beside(
        Pool(Dataset.from_dict({"text": list("cde")}), {"x": 1, "y": 2}, 3))
    left = pool.without(np.array([None, "z", None, "z", None], object))
    assert (left.data["text"][:], left.generated) == (["a", "c", "e"], 2)
    assert left.left_out == {"x": 2, "y": 2, "z": 2}


def test_without_labelled_data_the_unlabelled_ones_that_are_left_are_shown() -> None:
    given = Pool(Dataset.from_dict({"text": ["p", "", "q"]}))
    assert generated.shown(section(), TASK, {"validation": SPLITS["validation"]}, given) == ["p", "q"]
    assert generated.shown(section(), TASK, SPLITS, given) == TEXTS
    assert generated.shown(section(prompt="none"), TASK, SPLITS, given) == []


# --- where it can be asked for ---


def test_tasks_that_read_one_text_say_which_column_it_is() -> None:
    words = Dataset.from_dict({"words": [["a", "b"], ["c"]], "tags": [["x", "y"], ["x"]]})
    tagged = TokenClassification.understand(TokenClassificationData(train="x"), {"train": words, "validation": words})
    alone = Dataset.from_dict({"sentence": ["a b", "c"]})
    vectors = Embedding.understand(EmbeddingData(train="x"), {"train": alone, "validation": alone})
    tasks: list[tuple[Task, str]] = [(TASK, "text"), (tagged, "words"), (vectors, "sentence")]
    for task, column in tasks:
        assert task.text_column == column
        assert generated.problems(recipe(), task) == []
        assert len(task.unlabelled(Dataset.from_dict({column: ["new one", "another"]}), {})) == 2


def test_pairs_and_what_is_no_text_are_refused_in_words() -> None:
    pairs = Dataset.from_dict({"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": ["x", "y"]})
    data = TextClassificationData(train="x", text=("premise", "hypothesis"))
    task = TextClassification.understand(data, {"train": pairs, "validation": pairs})
    wrong = "only where models read one column of text and nothing else; `text-classification` reads something else here"
    assert wrong in generated.problems(recipe(), task)[0]
    queries = Dataset.from_dict({"query": ["a", "b"], "positive": ["c", "d"]})
    vectors = Embedding.understand(EmbeddingData(train="x"), {"train": queries, "validation": queries})
    assert "`embedding` reads something else here" in generated.problems(recipe(), vectors)[0]


def test_models_that_cannot_write_are_refused(model: str, tmp_path: Path) -> None:
    def refused(**changes: Any) -> str:
        with pytest.raises(StillaError) as raised:
            Writing.of(section(**{"model": model, **changes}), TASK, SPLITS, None, 0)
        return str(raised.value)

    assert f"data.unlabelled.generate.chat: {model} has no chat template; leave chat out" in refused(chat=True)
    assert "256 positions, of which max_new_tokens takes 250. Show fewer" in refused(max_new_tokens=250)
    assert refused(model=str(tmp_path / "nowhere")).startswith("data.unlabelled.generate: ")
    assert "data.unlabelled.generate: 'mine:model': a task over a vocabulary needs" in refused(model="mine:model")
    bert = tiny_lm.folder(tmp_path / "bert", BertLMHeadModel(tiny_lm.bert_lm().config), tiny_lm.bert_lm_tokenizer())
    assert "sees the tokens that it has to predict" in refused(model=bert, max_new_tokens=2, shots=1)


NONE = {"model": "m", "prompt": "none"}


@pytest.mark.parametrize(("data", "wrong"), [
    ({"train": "x", "unlabelled": {"generate": {**NONE, "shots": 2}}}, "prompt: none shows the model nothing"),
    ({"train": "x", "unlabelled": {"generate": {**NONE, "chat": True}}}, "prompt: none shows the model nothing"),
    ({"validation": "v", "unlabelled": {"generate": {"model": "m"}}}, "generate shows texts of the data, and there are none"),
    ({"train": "x", "unlabelled": {}}, "or `generate: "),
])
def test_what_cannot_be_meant_is_refused(data: dict[str, Any], wrong: str) -> None:
    with pytest.raises(RecipeError, match=wrong):
        from_options({"task": "text-classification", "teacher": "./t", "student": 1, "data": data})


@pytest.mark.parametrize("named", [{"generate": {"model": "m"}}, {"rest": True}, {"generate": NONE, "rest": True}])
def test_a_recipe_that_names_no_examples_is_read_again_as_it_was_written(named: dict[str, Any], tmp_path: Path) -> None:
    plain = {"task": "text-classification", "teacher": "./t", "student": 1,
             "data": {"train": "x", "limit": 10, "unlabelled": named}}
    asked = from_options(plain)
    (tmp_path / "recipe.yaml").write_text(dump(asked), encoding="utf-8")
    assert read(tmp_path / "recipe.yaml").data == asked.data
    with pytest.raises(RecipeError, match="examples are missing; expected files, folders"):
        from_options({**plain, "data": {"train": "x", "unlabelled": []}})


def test_before_it_is_written_as_many_texts_of_the_data_stand_for_it() -> None:
    found = generated.expected(recipe(count=50), TASK, SPLITS, Pool(Dataset.from_dict({"text": ["a"]})))
    assert found is not None
    assert (len(found), found.generated, found.data["text"][1:3]) == (51, 50, TEXTS[:2])
    nothing = from_options({"task": "text-classification", "teacher": "./t", "student": 1, "data": "x"})
    assert generated.expected(nothing, TASK, SPLITS, None) is None
