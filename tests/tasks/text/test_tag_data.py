"""What data of taggers say: which columns, which scheme, which tags; and what cannot be meant."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from stilla import data
from stilla.errors import DataError
from stilla.tasks.text.sections import TokenClassificationData
from stilla.tasks.text.token_classification import TokenClassification

WORDS = [["Ann", "sees", "Bern"], ["Bob"]]


def understood(columns: dict[str, list[Any]] | Dataset, section: dict[str, Any] | None = None,
               **others: dict[str, list[Any]]) -> TokenClassification:
    splits = {name: rows if isinstance(rows, Dataset) else Dataset.from_dict(rows)
              for name, rows in {"train": columns, **others}.items()}
    return TokenClassification.understand(TokenClassificationData(train="x", **(section or {})), splits)


def entities(task: TokenClassification, columns: dict[str, list[Any]]) -> list[Any]:
    assert task.found is not None
    found, wrong = task.found.reading.examples(Dataset.from_dict(columns))
    assert not wrong
    return [one.entities for one in found.values()]


SAID = [((0, 1, "PER"), (2, 3, "LOC")), ((0, 1, "PER"),)]


@pytest.mark.parametrize("tags", [
    [["B-PER", "O", "B-LOC"], ["B-PER"]], [["I-PER", "O", "I-LOC"], ["I-PER"]], [["S-PER", "O", "S-LOC"], ["U-PER"]],
])
def test_tags_in_any_scheme_say_the_same_entities(tags: list[list[str]]) -> None:
    task = understood({"tokens": WORDS, "tags": tags})
    assert task.class_names() == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert task.scheme == "iob2"
    assert entities(task, {"tokens": WORDS, "tags": tags}) == SAID


@pytest.mark.parametrize("spans", [
    [[[0, 3, "PER"], [9, 13, "LOC"]], [[0, 3, "PER"]]],
    [[{"start": 9, "end": 13, "label": "LOC"}, {"start": 0, "end": 3, "label": "PER"}],
     [{"start": 0, "end": 3, "label": "PER"}]],
    [[{"start_offset": 0, "end_offset": 3, "type": "PER"}, {"start_offset": 9, "end_offset": 13, "type": "LOC"}],
     [{"start_offset": 0, "end_offset": 3, "type": "PER"}]],
])
def test_spans_of_characters_say_them_too(spans: list[Any], tmp_path: Any) -> None:
    from stilla.data import sources

    rows = [{"text": " ".join(words), "label": some} for words, some in zip(WORDS, spans)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    split = sources.read(str(tmp_path / "x.jsonl"))["train"]
    task = understood(split)
    assert task.found is not None
    assert [one.entities for one in task.found.reading.examples(split)[0].values()] == SAID
    section = task.resolved(TokenClassificationData(train="x"))
    assert (section.text, section.spans, section.tokens) == ("text", "label", None)


@pytest.mark.parametrize(("spans", "ends"), [
    ([[[0, 0, "PER"], [2, 2, "LOC"]], [[0, 0, "PER"]]], "last"),
    ([[{"type": "LOC", "start": 2, "end": 3}, {"type": "PER", "start": 0, "end": 1}],
      [{"type": "PER", "start": 0, "end": 1}]], "behind"),
])
def test_spans_of_words_say_them_too(spans: list[Any], ends: str) -> None:
    split = Dataset.from_list([{"tokenized_text": words, "ner": some} for words, some in zip(WORDS, spans)],
                              on_mixed_types="use_json")
    task = understood(split)
    assert task.found is not None
    assert [one.entities for one in task.found.reading.examples(split)[0].values()] == SAID
    section = task.resolved(TokenClassificationData(train="x"))
    assert (section.tokens, section.spans, section.tags, section.span_ends) == ("tokenized_text", "ner", None, ends)
    both = split.add_column("text", [" ".join(words) for words in WORDS])
    with pytest.raises(DataError, match="does it count words or characters"):
        understood(both)
    assert understood(both, {"tokens": "tokenized_text", "spans": "ner"}).found == task.found
    again = TokenClassification.understand(section, {"test": split})
    assert again.found == task.found
    other = {"last": "behind", "behind": "last"}[ends]
    with pytest.raises(DataError, match=r"a span from word .* in 2 of 2 examples: rows 0, 1"):
        understood(split, {"span_ends": other})


@pytest.mark.parametrize("write", [repr, json.dumps, lambda one: str(np.array(one))], ids=["python", "json", "numpy"])
def test_lists_may_be_written_into_cells(tmp_path: Any, write: Any) -> None:
    tags = [["B-PER", "O", "B-LOC"], ["B-PER"]]
    frame = pd.DataFrame({"id": ["1", "2"], "tokens": map(write, WORDS), "ner_tags": map(write, tags)})
    frame.to_csv(tmp_path / "x.csv", index=False)
    section = TokenClassificationData(train=str(tmp_path / "x.csv"), validation=str(tmp_path / "x.csv"))
    splits = data.load(section, seed=0)
    assert splits["train"].column_names == ["id", "tokens", "ner_tags"]
    task = TokenClassification.understand(section, splits)
    assert task.found is not None
    assert [one.entities for one in task.found.reading.examples(splits["train"])[0].values()] == SAID


@pytest.mark.slow
@pytest.mark.parametrize(("numbers", "names"), [
    (["Sentence: 1", "", "", "Sentence: 2"], ("Sentence #", "Word", "Tag")),
    ([0, 0, 0, 1], ("sentence_id", "words", "labels")),
    ([7, 7, 7, 3], ("my", "form", "tag")),
])
def test_a_row_may_be_a_word(tmp_path: Any, numbers: list[Any], names: tuple[str, ...]) -> None:
    sentence, word, tag = names
    frame = pd.DataFrame({sentence: numbers, word: ["Ann", "sees", "Bern", "Bob"], "POS": ["N", "V", "N", "N"],
                          tag: ["B-PER", "O", "B-LOC", "B-PER"]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.replace("", None).to_parquet(tmp_path / "x.parquet")
    for form in ("csv", "parquet"):
        said = {"tags": tag, **({"sentence": "my"} if sentence == "my" else {})}
        section = TokenClassificationData(train=str(tmp_path / f"x.{form}"), validation=str(tmp_path / f"x.{form}"), **said)
        splits = data.load(section, seed=0)
        assert splits["train"]["POS"][0] == ["N", "V", "N"]
        task = TokenClassification.understand(section, splits)
        assert task.found is not None
        assert [one.entities for one in task.found.reading.examples(splits["train"])[0].values()] == SAID
        assert data.load(task.resolved(section), seed=0)["train"][:] == splits["train"][:]
    with pytest.raises(DataError, match=r"data\.sentence: got 'sent', which is no column"):
        data.load(section.model_copy(update={"sentence": "sent"}), seed=0)


def test_label_studio_has_its_label_in_a_list_and_spacy_a_text_with_what_is_said_of_it(tmp_path: Any) -> None:
    from stilla.data import sources

    rows = [[" ".join(words), {"entities": [{"start": 0, "end": 3, "labels": ["PER"]}]}] for words in WORDS]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    split = sources.read(str(tmp_path / "x.json"))["train"]
    task = understood(split)
    assert task.found is not None
    assert [one.entities for one in task.found.reading.examples(split)[0].values()] == [((0, 1, "PER"),)] * 2


def test_what_is_wrong_with_many_spans_alike_is_said_once() -> None:
    spans = [[{"start": 0, "end": end, "label": "X"}] for end in (1, 2, 6)]
    split = Dataset.from_list([{"text": "Ann sees Bern", "spans": some} for some in spans])
    with pytest.raises(DataError) as caught:
        understood(split)
    assert caught.value.problems[0].startswith("data.train: the span 'A' (X, 0 to 1) begins or ends within a word, and "
                                               "others like it, in 3 of 3 examples: rows 0, 1, 2")
    assert len(caught.value.problems) == 2


def test_tags_that_are_no_entities_are_each_words_own() -> None:
    columns = {"tokens": WORDS, "upos": [["PROPN", "VERB", "PROPN"], ["PROPN"]], "lemmas": WORDS}
    task = understood(columns)
    assert task.class_names() == ("PROPN", "VERB")
    assert task.scheme is None
    section = task.resolved(TokenClassificationData(train="x"))
    assert (section.tokens, section.tags, section.scheme) == ("tokens", "upos", "none")


def test_numbers_have_the_names_that_the_data_or_the_recipe_declare() -> None:
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-PER", "I-PER"]))})
    split = Dataset.from_dict({"tokens": [["Ann", "Lee", "x"]], "ner_tags": [[1, 2, 0]]}, features=features)
    assert understood(split).class_names() == ("O", "B-PER", "I-PER")
    plain = {"tokens": WORDS, "tags": [[0, 1, 0], [0]]}
    assert understood(plain, {"labels": ("NAME", "VERB", "NEVER")}).class_names() == ("NAME", "VERB", "NEVER")
    with pytest.raises(DataError, match="holds numbers, and nobody says what they stand for"):
        understood(plain)
    with pytest.raises(DataError, match="'tags' holds 3, which is no tag"):
        understood({"tokens": WORDS, "tags": [[0, 1, 3], [0]]}, {"labels": ("NAME", "VERB")})


def test_bare_tags_beside_o_are_asked_about() -> None:
    columns = {"tokens": WORDS, "tags": [["PER", "O", "LOC"], ["PER"]]}
    with pytest.raises(DataError, match=r"follow each other an entity \(io\), or has every word a tag for itself \(none\)"):
        understood(columns)
    assert understood(columns, {"scheme": "none"}).class_names() == ("LOC", "O", "PER")
    assert entities(understood(columns, {"scheme": "io"}), columns) == SAID


@pytest.mark.parametrize(("columns", "section", "why"), [
    ({"tokens": WORDS, "tags": [["B-PER", "O"], ["B-PER"]]}, {}, "'tokens' and 'tags' have not as many words as tags, in 1 "
     "of 2 examples: row 0"),
    ({"tokens": WORDS, "tags": [["B-PER", "I-LOC", "O"], ["O"]]}, {"scheme": "iob2"}, r"'tags' breaks IOB2 \(data\.scheme\), "
     "in 1 of 2 examples: row 0"),
    ({"tokens": WORDS, "tags": [["B-PER", "O", "I-LOC"], ["O"]]}, {}, "written in no scheme: of 2 examples 1 break IOB2 and "
     "1 break IOB1"),
    ({"tokens": [["Ann", ""], ["Bob"]], "tags": [["B-PER", "O"], ["O"]]}, {}, "'tokens' has no words, or one without a "
     "letter, in 1 of 2"),
    ({"tokens": WORDS, "tags": [["B-PER", "", "O"], ["O"]]}, {"scheme": "iob2"}, "'tags' holds '', which is no tag"),
    ({"text": ["Ann sees", "Bob"], "spans": [[[0, 2, "PER"]], [[0, 3, "PER"]]]}, {}, "the span 'An'.* within a word"),
    ({"text": ["Ann sees", "Bob"], "spans": [["PER"], []]}, {"text": "text", "spans": "spans"}, "'spans' holds list"),
    ({"tokens": WORDS, "a": [["X"] * 3, ["Y"]], "b": [["X"] * 3, ["Y"]]}, {}, "which column has the tags. a or b could be"),
    ({"tokens": WORDS, "tags": [["O"] * 3, ["O"]]}, {"scheme": "iob2"}, "there is no entity in 'tags'"),
    ({"tokens": WORDS, "upos": [["X"] * 3, ["X"]]}, {}, "all words have the same tag"),
    ({"tokens": WORDS, "tags": WORDS, "text": ["a", "b"]}, {"tags": "tags", "spans": "text"}, "expected `tokens` and `tags`, "
     "or `text` and `spans`"),
    ({"text": ["Ann", "Bob"]}, {}, "no column holds lists of .*CSV has none"),
    ({"text": ["Ann", "Bob"], "spans": [[[0, 3, "PER"]], []]}, {"scheme": "bioes"}, "spans have none"),
])
def test_what_cannot_be_meant_is_refused(columns: dict[str, list[Any]], section: dict[str, Any], why: str) -> None:
    if "spans" in columns:
        columns = {**columns, "spans": columns["spans"]}
        split: Any = Dataset.from_list([{"text": text, "spans": spans} for text, spans in zip(*columns.values())],
                                       on_mixed_types="use_json")
    else:
        split = columns
    with pytest.raises(DataError, match=why):
        understood(split, section)


def test_a_split_without_any_entity_is_no_measure_of_them() -> None:
    train = Dataset.from_dict({"tokens": WORDS, "tags": [["B-PER", "O", "B-LOC"], ["O"]]})
    none = Dataset.from_dict({"tokens": WORDS, "tags": [["O"] * 3, ["O"]]})
    with pytest.raises(DataError, match=r"data\.validation: there is no entity in 'tags', and entities are what"):
        TokenClassification.understand(TokenClassificationData(train="x"), {"train": train, "validation": none})


def test_examples_that_cannot_be_used_are_left_out_where_the_recipe_says_it(caplog: pytest.LogCaptureFixture) -> None:
    columns = {"tokens": [*WORDS, ["Ann", "sees"]], "tags": [["B-PER", "O", "B-LOC"], ["B-PER", "O"], ["B-PER", "I-LOC"]]}
    with caplog.at_level(logging.WARNING):
        task = understood(columns, {"broken": "skip", "scheme": "iob2"})
    assert task.found is not None
    assert list(task.found.reading.examples(Dataset.from_dict(columns))[0]) == [0]
    assert "left out: row 1" in caplog.text
    assert "left out: row 2" in caplog.text


def test_tags_that_the_training_data_do_not_have_are_refused_with_their_rows() -> None:
    known = {"tokens": WORDS, "tags": [["B-PER", "O", "B-LOC"], ["B-PER"]]}
    other = {"tokens": [["Rex"]], "tags": [["B-PET"]]}
    with pytest.raises(DataError, match=r"data\.test: 'tags' holds a type of entity that is not known: 'PET' \(row 0\); "
                                        r"known are LOC and PER"):
        understood(known, test=other)
    with pytest.raises(DataError, match=r"a tag that is not known: 'NUON' \(row 0\).*Did you mean NOUN"):
        understood({"tokens": WORDS, "upos": [["NOUN", "VERB", "NOUN"], ["NOUN"]]},
                   test={"tokens": [["x"]], "upos": [["NUON"]]})
    with pytest.raises(DataError, match=r"data\.test\.tags: there is no column 'tags'|there is no column 'tags'"):
        understood(known, test={"tokens": [["Rex"]], "said": [["O"]]})
