"""Language models as rerankers that teach: their score, how they are asked, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import stilla
from stilla.check import check
from stilla.errors import CompatibilityError, DataError, RecipeError
from stilla.recipe import ModelSource
from stilla.recipe.file import from_options
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval.judge import Prompts, load
from stilla.tasks.retrieval.sections import Asking
from stilla.tasks.retrieval.told import answered
from tests import tiny
from tests.tasks.retrieval.rerankers import folder as cross_encoder
from tests.tasks.retrieval.rerankers import lists
from tests.tasks.retrieval.test_reranking_runs import QUICK

TEMPLATE = "the {query} and of {document} with"
ASKING = Asking(template=TEMPLATE, yes="good", no="old")
PAIRS = (["bread soup", "song", "a {document} ball"], ["salt", "choir of the new flute and drum", "team {query}"])
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
                         "intermediate_size": 32, "max_position_embeddings": 64, "initializer_range": 0.5}


def language_model(path: Path, kind: str = "llama", *, left: bool = True) -> str:
    words = tiny.tokenizer()
    words.padding_side = "left" if left else "right"
    torch.manual_seed(0)
    size = len(words)
    made = {"llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=size, **SIZES)),
            "tied": lambda: hf.MistralForCausalLM(hf.MistralConfig(vocab_size=size, tie_word_embeddings=True, **SIZES)),
            "capped": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(
                vocab_size=size, head_dim=8, final_logit_softcapping=2.0, **SIZES)),
            "positions": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(
                vocab_size=size, n_embd=16, n_head=2, n_layer=2, n_positions=64, initializer_range=0.5))}[kind]()
    made.config.pad_token_id = 0
    made.save_pretrained(path)
    words.save_pretrained(path)
    return str(path)


def by_hand(path: str) -> list[float]:
    """One prompt after the other, without padding, through the model that transformers loads."""
    model, words = hf.AutoModelForCausalLM.from_pretrained(path).eval(), hf.AutoTokenizer.from_pretrained(path)
    found = []
    for query, text in zip(*PAIRS):
        prompt = f"the {query} and of {text} with"
        ids = [words.cls_token_id, *words(prompt, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            last = model(torch.tensor([ids])).logits[0, -1]
        found.append(float(last[words.convert_tokens_to_ids("good")] - last[words.convert_tokens_to_ids("old")]))
    return found


def scores(made: Loaded, length: int = 64) -> Any:
    tokens, _ = made.processor.tokens(PAIRS, length)
    return answered(made.model, tokens, lambda said: said["logits"])[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("kind", ["llama", "tied", "capped", "positions"])
def test_a_score_is_by_how_much_yes_is_likelier_than_no(tmp_path: Path, kind: str, left: bool) -> None:
    path = language_model(tmp_path, kind, left=left)
    np.testing.assert_allclose(scores(load(ModelSource(model=path), ASKING)), by_hand(path), atol=1e-5)


def test_lower_precision_stays_near(tmp_path: Path) -> None:
    path = language_model(tmp_path)
    for precision, near in (("bfloat16", 0.3), ("int8", 0.3)):
        source = ModelSource.model_validate({"model": path, "precision": precision})
        np.testing.assert_allclose(scores(load(source, ASKING)), by_hand(path), atol=near)


def test_of_what_is_too_long_the_document_is_cut_and_the_prompt_stays(tmp_path: Path) -> None:
    made: Prompts = load(ModelSource(model=language_model(tmp_path)), ASKING).processor
    whole, none = made.tokens((["bread"], ["salt soup oven"]), 64)
    short, cut = made.tokens((["bread"], ["salt soup oven"]), 7)
    assert (none, cut) == (0, 1)
    words = made.tokenizer.convert_ids_to_tokens(whole.ids.tolist())
    assert words == ["[CLS]", "the", "bread", "and", "of", "salt", "soup", "oven", "with"]
    assert made.tokenizer.convert_ids_to_tokens(short.ids.tolist()) == [*words[:6], "with"]
    with pytest.raises(DataError, match=r"the prompt of 'bread' has 6 tokens without any document, and 5 are read"):
        made.tokens((["bread"], ["salt soup oven"]), 5)


def test_a_beginning_that_the_prompt_has_is_not_put_there_twice(tmp_path: Path) -> None:
    asking = Asking(template="[CLS] {document} the {query}", yes="good", no="old")
    made: Prompts = load(ModelSource(model=language_model(tmp_path)), asking).processor
    tokens, _ = made.tokens((["bread"], ["salt"]), 64)
    assert made.tokenizer.convert_ids_to_tokens(tokens.ids.tolist()) == ["[CLS]", "salt", "the", "bread"]


@pytest.mark.parametrize(("said", "words"), [
    ({"yes": "good bread"}, r"asking\.yes: 'good bread' is not one token .*\['good', 'bread'\]"),
    ({"no": "nope"}, r"asking\.no: 'nope' is not one token"), ({"no": "good"}, "are the same token")])
def test_answers_that_are_not_one_token_each_are_refused(tmp_path: Path, said: Mapping[str, str], words: str) -> None:
    with pytest.raises(CompatibilityError, match=words):
        load(ModelSource(model=language_model(tmp_path)), ASKING.model_copy(update=dict(said)))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("judged")
    data = {"train": lists(place / "t.jsonl"), "validation": lists(place / "v.jsonl", seed=5),
            "asking": {"template": TEMPLATE, "yes": "good", "no": "old"}}
    return {"task": "reranking", "teacher": language_model(place / "teacher"), "data": data, **QUICK,
            "student": {"model": cross_encoder(place / "student", layers=1)}, "output": str(place / "run")}


@pytest.mark.parametrize("template", ["{query}", "{document} {query} {query}"])
def test_a_prompt_without_its_places_is_no_recipe(setting: dict[str, Any], template: str) -> None:
    with pytest.raises(RecipeError, match=r"expected \{query\} and \{document\}, once each"):
        from_options({**setting, "data": {**setting["data"], "asking": {"template": template}}})


@pytest.mark.slow
def test_what_does_not_go_with_a_language_model_is_said_before_a_run(setting: dict[str, Any], tmp_path: Path) -> None:
    unasked = {**setting["data"], "asking": None}
    for changes, words in (({"student": {"layers": 1}}, "answers with words, to a prompt"),
                           ({"student": {"size": 0.5}}, r"[Gg]ive a model that it starts from: student: \{model"),
                           ({"data": unasked}, "is a language model, and nobody says how it is asked"),
                           ({"teacher": cross_encoder(tmp_path / "cross")}, r"data\.asking: says how a language model "
                                                                            r"is asked")):
        problems = check(from_options({**setting, **changes})).problems
        assert any(re.search(words, one) for one in problems), (words, problems)
    assert not check(from_options(setting)).problems


@pytest.mark.slow
def test_a_cross_encoder_learns_from_a_language_model(setting: dict[str, Any]) -> None:
    """Its answers are cached, measured, and the student is a cross-encoder like any other."""
    library = pytest.importorskip("sentence_transformers")
    terms = [{"kind": "logits", "divergence": "mse"}, {"kind": "ranking", "compare": "margin_mse"}]
    seen = {**setting["data"], "validation": setting["data"]["train"]}  # whether it learns, not what
    run = stilla.distill({**setting, "data": seen, "distill": {**QUICK["distill"], "epochs": 30, "objectives": terms}})
    assert run.scores.teacher.quality["validation"]["teacher_kendall"].value == pytest.approx(1)
    assert run.scores.student.quality["validation"]["teacher_kendall"].value > 0.5
    cross = library.CrossEncoder(str(run.student), device="cpu")
    assert isinstance(cross.activation_fn, torch.nn.Identity)
