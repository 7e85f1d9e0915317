"""Smaller vocabularies: tokenizers of every kind that read counted texts as before and every other text still, and models
that say of them what they said."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stilla.errors import CompatibilityError
from stilla.recipe import VocabularySpec
from stilla.students.vocabulary import (
    Kept,
    changed_words,
    chosen,
    counted,
    named_in_configs,
    of_language,
    pieces_of,
    refuse_other_pieces,
    size_of_a_token,
    with_rows,
    with_tokens,
)
from stilla.students.vocabulary.pieces import BPE, Unigram
from tests.students import speaking

every_kind = pytest.mark.parametrize("kind", speaking.KINDS)


def kept_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] = speaking.SOME, **spec: Any) -> Kept:
    pieces, there = pieces_of(tokenizer), set(tokenizer.get_vocab().values())
    found = counted(tokenizer, pieces, texts, 64)
    named = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids} | found.beside
    return chosen(VocabularySpec(**spec), pieces, found.tokens.astype(float), named, there)


def cut(kind: str, **spec: Any) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase, Kept]:
    tokenizer = speaking.KINDS[kind]()
    kept = kept_of(tokenizer, **spec)
    return tokenizer, with_tokens(tokenizer, kept.order), kept


def strings(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))


# --- tokenizers ---


@pytest.mark.slow
@every_kind
def test_counted_texts_are_made_of_the_same_pieces_by_numbers_that_follow_the_old_ones(kind: str) -> None:
    before, after, kept = cut(kind)
    assert len(after) == len(kept) < len(before)
    for text in speaking.SOME:
        assert strings(after, text) == strings(before, text)
        assert [int(kept.numbers[one]) for one in after(text)["input_ids"]] == before(text)["input_ids"]
        assert after.decode(after(text)["input_ids"]) == before.decode(before(text)["input_ids"])


@pytest.mark.slow
@every_kind
def test_every_other_text_comes_back_as_it_came_back_before_and_no_more_of_it_is_unknown(kind: str) -> None:
    before, after, _ = cut(kind)
    draw = random.Random(0)
    letters = sorted({letter for line in speaking.CORPUS for letter in line} | {*"qxzQ€😀\u0301"})
    made = ["".join(draw.choices(letters, k=draw.randint(1, 12))) for _ in range(400)]
    for text in (*speaking.CORPUS, *speaking.STRANGE, *made):
        old, new = before(text)["input_ids"], after(text)["input_ids"]
        assert after.decode(new) == before.decode(old)
        unknown = before.unk_token_id
        if unknown is not None:
            assert new.count(after.unk_token_id) <= old.count(unknown), text


@pytest.mark.slow
@every_kind
def test_every_single_character_is_read_that_was_read_before_wherever_it_stands(kind: str) -> None:
    before, after, _ = cut(kind)
    characters = [chr(code) for code in (*range(32, 0x250), *range(0x370, 0x400), *range(0x3040, 0x30FF), 0x65E5, 0x1F600)]
    for text in (form.format(one) for one in characters for form in ("{}", "a{}", "{}a")):
        assert after.decode(after(text)["input_ids"]) == before.decode(before(text)["input_ids"])
        if before.unk_token is not None:
            assert strings(after, text).count(after.unk_token) <= strings(before, text).count(before.unk_token), text


@pytest.mark.slow
@every_kind
def test_it_is_the_same_once_it_is_saved_and_found_by_its_folder(kind: str, tmp_path: Path) -> None:
    before, after, _ = cut(kind)
    after.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is type(after)
    assert loaded.get_vocab() == after.get_vocab()
    for text in (*speaking.CORPUS, *speaking.STRANGE):
        assert loaded(text)["input_ids"] == after(text)["input_ids"]
        assert loaded(text, text)["input_ids"] == after(text, text)["input_ids"]
    assert loaded.special_tokens_map == before.special_tokens_map
    assert loaded.chat_template == before.chat_template
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert AutoTokenizer.from_pretrained(again).get_vocab() == after.get_vocab()


@every_kind
def test_special_and_added_tokens_stay_and_stand_where_they_stood(kind: str) -> None:
    before, after, kept = cut(kind)
    for token in (*before.all_special_tokens, *(str(one) for one in before.added_tokens_decoder.values())):
        assert kept.order[before.convert_tokens_to_ids(token)] == after.convert_tokens_to_ids(token)
    assert {str(one) for one in after.added_tokens_decoder.values()} == {
        str(one) for one in before.added_tokens_decoder.values()}
    both = before("the cat", "a mountain"), after("the cat", "a mountain")
    assert before.convert_ids_to_tokens(both[0]["input_ids"]) == after.convert_ids_to_tokens(both[1]["input_ids"])
    assert both[0].get("token_type_ids") == both[1].get("token_type_ids")
    padded = after(["the cat", "the cat sat on the mat."], padding=True)["input_ids"]
    assert padded[0].count(after.pad_token_id) or after.pad_token == after.eos_token


@pytest.mark.slow
@pytest.mark.parametrize("name", speaking.CLASSES)
def test_every_class_of_tokenizers_makes_of_its_files_what_it_made_of_the_whole(name: str, tmp_path: Path) -> None:
    before = speaking.CLASSES[name]()
    after = with_tokens(before, kept_of(before).order)
    refuse_other_pieces(before, after, speaking.SOME)
    after.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == after.get_vocab()
    for text in (*speaking.STRANGE, *speaking.CORPUS[::7]):
        assert loaded.decode(loaded(text)["input_ids"]) == before.decode(before(text)["input_ids"])
        if before.unk_token is not None:
            assert strings(loaded, text).count(before.unk_token) <= strings(before, text).count(before.unk_token)
        assert loaded(text, text)["input_ids"] == after(text, text)["input_ids"]
    targets = [one(text_target="the cat")["input_ids"] for one in (before, loaded)]
    assert before.convert_ids_to_tokens(targets[0]) == loaded.convert_ids_to_tokens(targets[1])


def test_tokens_that_were_added_for_conversations_are_found_in_texts() -> None:
    before, after, _ = cut("gpt2")
    said = after.apply_chat_template([{"role": "user", "content": "the blockchain sat"}], tokenize=False)
    assert said == before.apply_chat_template([{"role": "user", "content": "the blockchain sat"}], tokenize=False)
    assert strings(after, said) == strings(before, said)
    assert {"<|im_start|>", "<|im_end|>", "blockchain"} <= {*strings(after, said)}


def test_without_the_products_of_its_merges_a_token_could_not_be_reached() -> None:
    before = speaking.gpt2()
    pieces = pieces_of(before)
    assert isinstance(pieces, BPE)
    used = {number for text in speaking.SOME for number in before(text)["input_ids"]}
    named = {*before.added_tokens_decoder, *before.all_special_ids}
    alone = sorted(used | pieces.needed() | named)
    poor = with_tokens(before, {number: place for place, number in enumerate(alone)})
    with pytest.raises(CompatibilityError, match=r"makes .* and .* with them"):
        refuse_other_pieces(before, poor, speaking.SOME)


def test_the_price_of_an_unknown_character_stays_what_it_was() -> None:
    before, after, _ = cut("t5")
    old, new = pieces_of(before), pieces_of(after)
    assert isinstance(old, Unigram)
    lowest = [min(score for _, score in one.model["vocab"]) for one in (old, new)]
    assert lowest[0] == lowest[1]
    assert new.model["vocab"][new.model["unk_id"]][0] == "<unk>"


def test_a_word_that_was_unknown_is_not_read_as_something_else() -> None:
    """`x` stands in no piece by itself: 'abx' is unknown as 'ab' is tried first, and would be 'a', '##bx' without it."""
    vocabulary = {one: number for number, one in enumerate(("[UNK]", "[PAD]", "a", "##a", "b", "##b", "ab", "##bx", "c"))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    before = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    after = with_tokens(before, kept_of(before, ("abx a", "b")).order)
    assert strings(before, "abx") == strings(after, "abx") == ["[UNK]"]
    assert "c" in after.get_vocab()
    assert strings(before, "aabx") == strings(after, "aabx") == ["a", "##a", "##bx"]


def test_unused_places_are_not_taken_for_frequent_tokens() -> None:
    _, after, _ = cut("bert", extra=10)
    assert not any(token.startswith("[unused") for token in after.get_vocab())


# --- which and how many ---


@every_kind
def test_more_tokens_are_the_first_of_the_others_with_what_leads_to_them(kind: str) -> None:
    before, _, plain = cut(kind)
    _, after, more = cut(kind, extra=7)
    assert len(plain) + 7 <= len(more)
    added = sorted({*more.numbers.tolist()} - {*plain.numbers.tolist()})
    pieces = pieces_of(before)
    further = [number for number in sorted(pieces.names) if number not in plain.order and pieces.reached(number)]
    assert {*further[:5]} <= {*added}
    refuse_other_pieces(before, after, speaking.SOME)


@pytest.mark.slow
@every_kind
def test_a_number_of_tokens_is_kept_to_with_the_most_used_among_them(kind: str) -> None:
    before, _, plain = cut(kind)
    most = (plain.always + len(plain)) // 2
    _, after, kept = cut(kind, tokens=most)
    assert len(after) == most == len(kept)
    assert kept.lost > 0
    counts = counted(before, pieces_of(before), speaking.SOME, 64).tokens
    pieces = pieces_of(before)
    free = [number for number in np.flatnonzero(counts) if number not in {*kept.numbers} and len(pieces.within(number)) < 3]
    easy = [number for number in np.flatnonzero(counts) if number in {*kept.numbers}]
    assert not free or max(counts[free]) <= max(counts[easy])
    _, larger, filled = cut(kind, tokens=len(plain) + 5)
    assert len(larger) == len(plain) + 5
    assert filled.lost == 0


def test_fewer_tokens_than_every_text_needs_are_refused_with_how_many_these_are() -> None:
    with pytest.raises(CompatibilityError, match=r"student.vocabulary.tokens: got 100; expected at least 2\d\d"):
        cut("roberta", tokens=100)


@pytest.mark.slow
def test_a_language_is_known_by_its_frequent_words() -> None:
    pytest.importorskip("wordfreq")
    tokenizer = speaking.bert()
    english, german = (of_language(tokenizer, code) for code in ("en", "de"))
    the = tokenizer.convert_tokens_to_ids("the")
    assert english[the] > 0.01 > german[the]
    with pytest.raises(CompatibilityError, match=r"languages: got 'xx'; expected ar, .*or zh"):
        of_language(tokenizer, "xx")


# --- the price ---


def test_changed_words_are_counted_by_hand_on_a_line() -> None:
    before, after, _ = cut("bert")
    lines = ["the cat sat on the mat.", "my grandmother replayed  unwillingly", ""]
    by_hand = sum(before.tokenize(word) != after.tokenize(word) for line in lines for word in line.split())
    changed = changed_words(before, after, lines, 64)
    assert (changed.words, changed.changed, changed.texts, changed.touched) == (10, by_hand, 3, 1)
    assert by_hand >= 1
    assert changed.unknown == 0
    assert str(changed) == (f"{by_hand / 10:.1%} of 10 words are made of other tokens than before, in 33% of 3 texts; "
                            "none has become unknown")


@pytest.mark.slow
@every_kind
def test_no_word_of_the_counted_texts_has_changed(kind: str) -> None:
    before, after, _ = cut(kind)
    assert changed_words(before, after, speaking.SOME, 64).changed == 0
    assert changed_words(before, after, speaking.CORPUS, 64).changed > 0


# --- what is refused ---


def test_tokenizers_that_cannot_be_cut_are_refused_by_name(tmp_path: Path) -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")))
    with pytest.raises(CompatibilityError, match="WordLevel, and it knows whole words only"):
        pieces_of(words)
    with pytest.raises(CompatibilityError, match=r"ByT5Tokenizer is a tokenizer in Python.*processor"):
        pieces_of(hf.ByT5Tokenizer())
    random_merges = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, [], dropout=0.1)))
    with pytest.raises(CompatibilityError, match=r"merges at random \(dropout 0.1\)"):
        pieces_of(random_merges)


# --- models ---

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def _bert(vocabulary: int) -> PreTrainedModel:
    return hf.BertForSequenceClassification(hf.BertConfig(vocab_size=vocabulary, pad_token_id=0, num_labels=3, **SIZES))


def _masked(vocabulary: int) -> PreTrainedModel:
    return hf.BertForMaskedLM(hf.BertConfig(vocab_size=vocabulary, **SIZES))


def _roberta(vocabulary: int) -> PreTrainedModel:
    return hf.RobertaForMaskedLM(hf.RobertaConfig(vocab_size=vocabulary, pad_token_id=1, bos_token_id=0, eos_token_id=2,
                                                  max_position_embeddings=vocabulary, **SIZES))


def _gpt2(vocabulary: int) -> PreTrainedModel:
    return hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=vocabulary, n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=2))


def _llama(vocabulary: int, *, tied: bool = False) -> PreTrainedModel:
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=vocabulary, bos_token_id=1, eos_token_id=2, pad_token_id=2,
                                              tie_word_embeddings=tied, **SIZES))


def _t5(vocabulary: int) -> PreTrainedModel:
    return hf.T5ForConditionalGeneration(hf.T5Config(
        vocab_size=vocabulary, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1))


def _bart(vocabulary: int) -> PreTrainedModel:
    made = hf.BartForConditionalGeneration(hf.BartConfig(
        vocab_size=vocabulary, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, bos_token_id=0, pad_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, forced_eos_token_id=2))
    torch.nn.init.normal_(made.final_logits_bias)
    return made


def _marian(vocabulary: int, *, shared: bool = True) -> PreTrainedModel:
    made = hf.MarianMTModel(hf.MarianConfig(
        vocab_size=vocabulary, decoder_vocab_size=vocabulary, share_encoder_decoder_embeddings=shared, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=1,
        tie_word_embeddings=shared))
    torch.nn.init.normal_(made.final_logits_bias)
    return made


MODELS: dict[str, tuple[str, Callable[[int], PreTrainedModel]]] = {
    "bert": ("bert", _bert), "masked bert": ("bert", _masked), "masked roberta": ("roberta", _roberta),
    "gpt2": ("gpt2", _gpt2), "llama": ("llama", _llama), "tied llama": ("llama", lambda size: _llama(size, tied=True)),
    "t5": ("t5", _t5), "bart": ("xlm_roberta", _bart), "marian": ("t5", _marian)}
every_model = pytest.mark.parametrize("name", MODELS)


def whole_and_cut(name: str, padding: int = 3) -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedTokenizerBase, Kept]:
    """`padding`: rows that no token uses, as published models have them."""
    kind, make = MODELS[name]
    tokenizer = speaking.KINDS[kind]()
    torch.manual_seed(0)
    model = make(len(tokenizer) + padding).eval()
    pieces, there = pieces_of(tokenizer), set(tokenizer.get_vocab().values())
    found = counted(tokenizer, pieces, speaking.SOME, 64)
    named = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids, *named_in_configs(model)} | found.beside
    kept = chosen(VocabularySpec(), pieces, found.tokens.astype(float), named, there)
    return model, with_rows(model, kept.numbers.tolist()), with_tokens(tokenizer, kept.order), kept


def said(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    more = {"decoder_input_ids": ids[:, :5]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, **more).logits
    return logits


@pytest.mark.slow
@every_model
def test_a_model_says_of_kept_tokens_what_it_said(name: str) -> None:
    model, smaller, tokenizer, kept = whole_and_cut(name)
    ids = torch.tensor(tokenizer([speaking.SOME[3], speaking.SOME[3]])["input_ids"])
    whole = said(model, torch.from_numpy(kept.numbers)[ids])
    whole = whole if name == "bert" else whole[..., torch.from_numpy(kept.numbers)]
    assert torch.allclose(said(smaller, ids), whole, atol=1e-6)


@pytest.mark.slow
@every_model
def test_it_is_smaller_by_the_rows_that_are_gone_those_of_tied_tensors_once(name: str) -> None:
    model, smaller, _, kept = whole_and_cut(name)
    gone = model.config.vocab_size - len(kept)
    rows = {id(one): one for one in model.parameters() if model.config.vocab_size in one.shape}
    per_token = sum(one.numel() // model.config.vocab_size for one in rows.values()
                    if one.shape[0] == model.config.vocab_size and "position" not in _names(model, one))
    before, after = (sum(one.numel() for one in each.parameters()) for each in (model, smaller))
    assert before - after == gone * per_token


def _names(model: PreTrainedModel, tensor: torch.Tensor) -> str:
    return " ".join(name for name, one in model.named_parameters(remove_duplicate=False) if one is tensor)


@pytest.mark.slow
@every_model
def test_it_loads_from_its_folder_as_it_is(name: str, tmp_path: Path) -> None:
    model, smaller, tokenizer, kept = whole_and_cut(name)
    smaller.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    ids = torch.tensor([tokenizer(speaking.SOME[0])["input_ids"]])
    assert torch.equal(said(loaded.eval(), ids), said(smaller, ids))
    assert loaded.config.vocab_size == len(kept)
    assert smaller.get_input_embeddings().padding_idx == loaded.get_input_embeddings().padding_idx


@pytest.mark.slow
@every_model
def test_numbers_in_its_configs_stand_for_the_same_tokens(name: str) -> None:
    model, smaller, tokenizer, _ = whole_and_cut(name)
    before = speaking.KINDS[MODELS[name][0]]()
    for config in ("config", "generation_config") if model.can_generate() else ("config",):
        old, new = getattr(model, config).to_dict(), getattr(smaller, config).to_dict()
        for field, number in old.items():
            if field.endswith("_token_id") and isinstance(number, int):
                assert tokenizer.convert_ids_to_tokens(new[field]) == before.convert_ids_to_tokens(number), field


def test_tokens_that_are_held_back_go_with_their_rows_and_others_are_held_back_by_their_new_numbers() -> None:
    model = _llama(20)
    written = model.generation_config
    written.suppress_tokens, written.bad_words_ids, written.eos_token_id = [5, 7], [[9], [1, 7]], [2, 9]
    written.sequence_bias = [[[5], 1.0], [[5, 9], -1.0]]
    smaller = with_rows(model, [0, 1, 2, 7, 9]).generation_config
    assert (smaller.suppress_tokens, smaller.bad_words_ids, smaller.eos_token_id) == ([3], [[4], [1, 3]], [2, 4])
    assert smaller.sequence_bias == []
    assert written.suppress_tokens == [5, 7]
    assert named_in_configs(model) == {1, 2, 9}


@pytest.mark.slow
@every_model
def test_it_shares_what_the_whole_one_shares_and_trains(name: str) -> None:
    model, smaller, tokenizer, _ = whole_and_cut(name)

    def tied(one: PreTrainedModel) -> set[frozenset[str]]:
        groups: dict[int, set[str]] = {}
        for path, parameter in one.named_parameters(remove_duplicate=False):
            groups.setdefault(id(parameter), set()).add(path)
        return {frozenset(paths) for paths in groups.values() if len(paths) > 1}

    assert tied(smaller) == tied(model)
    trained = dict(model.named_parameters())
    assert all(one.requires_grad == trained[path].requires_grad for path, one in smaller.named_parameters())
    ids = torch.tensor([tokenizer(speaking.SOME[0])["input_ids"]])
    more = {"decoder_input_ids": ids} if smaller.config.is_encoder_decoder else {}
    smaller(input_ids=ids, **more).logits.sum().backward()
    assert smaller.get_input_embeddings().weight.grad is not None


@pytest.mark.slow
@pytest.mark.parametrize("model", [
    lambda: hf.Gemma4ForCausalLM(hf.Gemma4TextConfig(
        vocab_size=60, vocab_size_per_layer_input=60, hidden_size_per_layer_input=4, head_dim=8, global_head_dim=8,
        num_key_value_heads=2, num_kv_shared_layers=0, sliding_window=4, pad_token_id=0, bos_token_id=2, eos_token_id=1,
        layer_types=["sliding_attention", "full_attention"], **SIZES)),
    lambda: hf.Gemma3nForCausalLM(hf.Gemma3nTextConfig(
        vocab_size=60, vocab_size_per_layer_input=50, hidden_size_per_layer_input=4, head_dim=8, num_key_value_heads=2,
        laurel_rank=4, altup_num_inputs=2, num_kv_shared_layers=0, activation_sparsity_pattern=[0.0, 0.0], pad_token_id=0,
        bos_token_id=2, eos_token_id=1, layer_types=["sliding_attention", "full_attention"], **SIZES)),
], ids=["of as many tokens", "of fewer tokens"])
def test_a_table_of_every_layer_follows_too(model: Any, tmp_path: Path) -> None:
    """Gemma's: another vector of each token for each layer, in some only of the first tokens."""
    torch.manual_seed(0)
    whole = model().eval()
    kept = [*range(6), *range(10, 48, 2), 49, 52, 57]
    ids = torch.tensor([[3, 11, 20, 24, 25, 26, 27, 5]])
    theirs, each = said(whole, torch.tensor(kept)[ids]), size_of_a_token(whole)
    parameters = sum(one.numel() for one in whole.parameters())
    of_layers = whole.config.vocab_size_per_layer_input
    smaller = with_rows(whole, kept)
    torch.testing.assert_close(said(smaller, ids), theirs[..., kept])
    rows = sum(number < of_layers for number in kept)
    assert (smaller.config.vocab_size, smaller.config.vocab_size_per_layer_input) == (len(kept), rows)
    gone = parameters - sum(one.numel() for one in smaller.parameters())
    assert gone == 16 * (60 - len(kept)) + 2 * 4 * (of_layers - rows)
    assert each == 16 + 2 * 4
    smaller.save_pretrained(tmp_path)
    assert torch.equal(said(type(smaller).from_pretrained(tmp_path).eval(), ids), said(smaller, ids))


def test_two_vocabularies_are_refused_by_name() -> None:
    with pytest.raises(CompatibilityError, match="has a vocabulary for its encoder and another for its decoder"):
        with_rows(_marian(200, shared=False), list(range(100)))


def test_a_config_that_names_a_token_that_is_not_there_is_refused() -> None:
    model = _gpt2(480)
    model.config.bos_token_id = 479
    with pytest.raises(CompatibilityError, match="bos_token_id of the model's config is 479"):
        with_rows(model, list(range(100)))
