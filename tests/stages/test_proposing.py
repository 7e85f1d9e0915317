"""A masked language model that is asked for words: what it is shown, what is taken of what it says, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stilla.check import check
from stilla.errors import CompatibilityError, RecipeError, StillaError
from stilla.recipe.file import from_options
from stilla.run import run
from stilla.stages.parts import Parts
from stilla.stages.proposing import SPARSE, Proposing, told
from stilla.tasks.text.proposals import SCHEMA, Proposals
from stilla.tasks.text.sections import Contextual
from tests import tiny
from tests.tasks import tiny_lm
from tests.tasks.text import proposed

TEXTS = ["the cat sat on the mat", "Dogs played 3 games; the old dog ran and slept then.", "!!", *tiny_lm.sentences(40)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_lm.folder(tmp_path_factory.mktemp("mlm"), tiny_lm.bert_lm(), tiny_lm.bert_lm_tokenizer())


def asked(model: str, **changes: Any) -> Proposing:
    return Proposing.of(Contextual(kind="contextual", model=model, **{"top": 4, **changes}))


# --- what is proposed ---


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_proposals_are_the_likeliest_whole_words_where_a_word_is_hidden(model: str, temperature: float) -> None:
    """Against the model's own logits, one word hidden at a time, written out."""
    found, text = asked(model, temperature=temperature), TEXTS[0]
    (row,) = found.rows([text], [0])
    tokenizer, words = found.model.processor, text.split()
    known = [token for token in tiny_lm.bert_lm_tokenizer().get_vocab() if token.isalpha()]
    assert sorted(found.words[1]) == sorted(known)
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    assert row["spans"] == [end for start, word in zip(starts, words) for end in (start, start + len(word))]
    assert len(words) <= SPARSE  # each is hidden by itself
    for place, word in enumerate(words):
        hidden = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
        with torch.no_grad():
            logits = found.model.model(**tokenizer(hidden, return_tensors="pt")).logits[0, place + 1]
        others = [one for one in found.words[1] if one != word]
        scores = logits[tokenizer.convert_tokens_to_ids(others)] / temperature
        best = scores.topk(4)
        here = slice(4 * place, 4 * place + 4)
        assert [found.words[1][one] for one in row["words"][here]] == [others[one] for one in best.indices]
        assert row["chances"][here] == pytest.approx(best.values.softmax(0).tolist(), abs=1e-5)


def test_words_give_way_whole_and_numbers_signs_and_long_ones_stay(model: str) -> None:
    found, text = asked(model), "Plays, playing 3 of x4 cats_x playededingings!"
    hidden = found.hidden(text)
    assert [text[slice(*one)] for one in hidden.characters] == ["Plays", "playing", "of"]
    pieces = tiny_lm.bert_lm_tokenizer().tokenize(text)
    assert [pieces[start - 1 : end - 1] for start, end in hidden.tokens] == [["play", "##s"], ["play", "##ing"], ["[UNK]"]]
    (_, first), (_, second), _ = hidden.rounds()
    assert len(first) == len(second) == len(hidden.ids) - 1  # one mask for two pieces
    (row,) = found.rows([text], [0])
    assert all(found.words[1][one] not in ("##s", "[MASK]", ".") for one in row["words"])


def test_of_a_long_text_every_seventh_word_is_hidden_at_a_time(model: str) -> None:
    hidden = asked(model).hidden(" ".join(["cat"] * 17))
    rounds = list(hidden.rounds())
    assert len(rounds) == SPARSE
    assert sorted(word for words, _ in rounds for word in words) == list(range(17))
    assert [list(words) for words, _ in rounds][2] == [2, 9, 16]
    assert [place for place, token in enumerate(rounds[2][1]) if token == -1] == [3, 10, 17]


def test_what_is_beyond_what_the_model_reads_stays(model: str) -> None:
    text = " ".join(["cat"] * 50)
    assert len(asked(model).hidden(text).tokens) == 30


def test_no_word_is_proposed_for_itself_in_whatever_capitals(model: str) -> None:
    found = asked(model, top=1000)
    (row,) = found.rows(["the THE The dog"], [0])
    each = len(row["words"]) // 4
    assert each == len(found.words[1]) - 1
    for place, word in enumerate(["the", "the", "the", "dog"]):
        assert word not in [found.words[1][one] for one in row["words"][each * place : each * (place + 1)]]
    assert min(row["chances"]) > 0


def test_a_tokenizer_whose_words_begin_with_a_space_proposes_words(tmp_path: Path) -> None:
    """As those of RoBERTa: a token within a word is none, whatever its letters are."""
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(
        ["<pad>", "<mask>", "<unk>", *"abcdeĠ", "Ġa", "Ġb", "Ġab", "ab", "cd", "Ġcd", "Ġ.", "."])},
        [("a", "b"), ("Ġ", "ab"), ("c", "d"), ("Ġ", "cd"), ("Ġ", "a"), ("Ġ", "b"), ("Ġ", ".")], unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", mask_token="<mask>", unk_token="<unk>",
                                        model_max_length=32)
    place = tiny_lm.folder(tmp_path, tiny_lm.bert_lm(), tokenizer)
    found = asked(place, top=2)
    assert found.words[1] == ["a", "b", "ab", "cd"]
    hidden = found.hidden("ab cd, e cd")
    assert hidden.characters == [(0, 2), (3, 5), (7, 8), (9, 11)]


# --- what is kept ---


@pytest.mark.slow
def test_a_killed_asking_goes_on_and_ends_with_the_same_bytes(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stilla.stages.proposing.TEXTS", 1)
    found, texts = asked(model), TEXTS[:12]
    found.write(texts, Parts(tmp_path / "whole", SCHEMA), found.inputs(texts))
    real, calls = Parts.save, []

    def killed(self: Parts, rows: Any, number: int, mark: str) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self, rows, number, mark)

    monkeypatch.setattr(Parts, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        found.write(texts, Parts(tmp_path / "killed", SCHEMA), found.inputs(texts))
    monkeypatch.setattr(Parts, "save", real)
    again = asked(model)
    again.write(texts, Parts(tmp_path / "killed", SCHEMA), again.inputs(texts))
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert Parts(tmp_path / "whole", SCHEMA).table()["text"].to_pylist() == texts


def test_what_is_proposed_depends_on_model_and_texts_and_not_on_how_it_is_drawn(model: str, tmp_path: Path) -> None:
    plain = asked(model).inputs(TEXTS)
    assert asked(model, rate=0.1, share=0.5).inputs(TEXTS) == plain
    other = tiny_lm.bert_lm()
    with torch.no_grad():
        other.cls.predictions.bias[5] += 1
    tiny_lm.folder(tmp_path, other, tiny_lm.bert_lm_tokenizer())
    for changed in (asked(model, top=3).inputs(TEXTS), asked(model).inputs(TEXTS[1:]), asked(str(tmp_path)).inputs(TEXTS)):
        assert changed != plain


# --- what is refused ---


def test_models_that_propose_no_words_are_refused(tmp_path: Path) -> None:
    def refused(model: Any, tokenizer: Any) -> str:
        with pytest.raises(StillaError) as raised:
            asked(tiny_lm.folder(tmp_path, model, tokenizer))
        return str(raised.value)

    assert "has no mask token; expected a masked language model" in refused(tiny_lm.bert_lm(259), tiny_lm.byte_tokenizer())
    numbers = tiny_lm.bert_lm_tokenizer()
    few = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "1", "cat"]
    numbers._tokenizer.model = models.WordPiece({piece: number for number, piece in enumerate(few)})
    assert "has no tokens that are whole words" in refused(tiny_lm.bert_lm(), numbers)
    with pytest.raises(StillaError, match=r"data\.augment\.model: .*no such folder"):
        asked(str(tmp_path / "nowhere"))


def test_texts_in_which_no_word_may_give_way_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    section = Contextual(kind="contextual", model="m")
    with pytest.raises(CompatibilityError, match=r"m reads none of the 2 texts in words .*Use augment: light or none"):
        told(Proposals.none_for(["a", "b"]), section)
    some = proposed.proposals(["one two", "3"], ["x", "y", "z"])
    assert told(some, section) is some
    assert "proposals: 2 words of 2 texts may give way" in capsys.readouterr().err


def plain(folder: Path, model: str, **changes: Any) -> dict[str, Any]:
    files = tiny.texts(folder / "data", train=48, validation=24, test=24)
    return {"task": "text-classification", "teacher": tiny.bert(folder / "teacher", dropout=0.0), "student": {"layers": 1},
            "data": {**files, "augment": {"kind": "contextual", "model": model, "top": 3}, **changes.pop("data", {})},
            "distill": {"epochs": 2, "learning_rate": 1e-3, "precision": "float32", **changes.pop("distill", {})},
            "evaluate": {"speed": False, "resamples": 100}, "allow_weak_teacher": True, "output": str(folder / "run"),
            **changes}


@pytest.mark.parametrize(("augment", "wrong"), [
    ({"kind": "contextual"}, r"augment.*model"),
    ({"kind": "other", "model": "m"}, "contextual"),
    ({"kind": "contextual", "model": "m", "share": 1.5}, "share"),
    ({"kind": "contextual", "model": "m", "temperature": 0.0}, "temperature"),
])
def test_what_cannot_be_meant_is_refused(augment: dict[str, Any], wrong: str) -> None:
    with pytest.raises(RecipeError, match=wrong):
        from_options({"task": "text-classification", "teacher": "./t", "student": 1,
                      "data": {"train": "x", "augment": augment}})


@pytest.mark.slow
def test_a_check_says_who_is_asked_and_what_is_wrong_with_it(model: str, tmp_path: Path) -> None:
    findings = check(from_options(plain(tmp_path, model)))
    assert findings.problems == ()
    assert any("is asked once for words for" in note for note in findings.notes)
    assert findings.estimate is not None
    assert findings.estimate.seconds["proposals"].high > 0
    wrong = check(from_options(plain(tmp_path, str(tmp_path / "nowhere"))))
    assert any(problem.startswith("data.augment.model: ") for problem in wrong.problems)
    causal = tiny_lm.folder(tmp_path / "causal", tiny_lm.llama(259), tiny_lm.byte_tokenizer())
    assert any("data.augment.model" in problem for problem in check(from_options(plain(tmp_path, causal))).problems)


@pytest.mark.slow
def test_a_run_asks_once_and_cached_answers_give_the_same_student(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()
    real = Proposing.rows

    def counted(self: Proposing, texts: Any, numbers: Any) -> Any:
        calls.append(len(numbers))
        return real(self, texts, numbers)

    monkeypatch.setattr(Proposing, "rows", counted)
    views = {"data": {"views": 2}, "distill": {"epochs": 4}}
    made = run(from_options(plain(tmp_path, model, cache="none", **views)))
    different = len({*(tmp_path / "data" / "train.jsonl").read_text().splitlines()})
    assert 0 < sum(calls) <= different
    assert "kind: contextual" in (made.folder / "recipe.yaml").read_text()
    run(from_options(plain(tmp_path, model, cache="none", **views)))
    stored = run(from_options(plain(tmp_path, model, cache="dense", output=str(tmp_path / "stored"), **views)))
    assert sum(calls) <= 2 * different
    one, other = ((folder / "student" / "model.safetensors").read_bytes() for folder in (made.folder, stored.folder))
    assert one == other
    again = plain(tmp_path, model, cache="none", **views)
    again["data"]["augment"]["top"] = 4
    with pytest.raises(RecipeError, match="holds the stage `proposals` of another recipe"):
        run(from_options(again))


@pytest.mark.slow
def test_a_teacher_behind_an_address_cannot_be_asked_anew(model: str, tmp_path: Path) -> None:
    asked_there = {**plain(tmp_path, model), "teacher": {"model": "m", "api": {"url": "http://localhost:1/v1"}},
                   "student": {"model": tiny.bert(tmp_path / "teacher")}}
    with pytest.raises(RecipeError, match=r"data\.augment: contextual asks the teacher about other words in every pass"):
        run(from_options(asked_there))
