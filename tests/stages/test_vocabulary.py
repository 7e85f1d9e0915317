"""Students with fewer tokens beside their teacher: what both are asked, and compared with, from whichever source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from datasets import Dataset
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives import Logits
from stilla.recipe import ModelSource, StudentSpec, VocabularySpec
from stilla.rows import row_loss
from stilla.signals import Batch, Dense, Headed, Side
from stilla.stages.starting import start_student
from stilla.stages.surveying import vocabulary_of
from stilla.stages.vocabulary import Counting, Smaller, cost_of
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.forward import listen
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.masked_lm import MaskedLM
from stilla.tasks.language.sections import CausalLMData, MaskedLMData, Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.language.token_exam import TokenExam
from stilla.tasks.language.translations import CUT, PairProcessor
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher
from stilla.teachers import cached as cached_module
from tests.students import speaking

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
LINES = list(speaking.SOME)[:40]
OTHERS = [line for line in speaking.CORPUS if line not in speaking.SOME][:20]
KINDS = ("text-classification", "masked-lm", "causal-lm", "conversations", "seq2seq")
every_kind = pytest.mark.parametrize("kind", KINDS)
over_a_vocabulary = pytest.mark.parametrize("kind", KINDS[1:])


def rows(kind: str, lines: list[str]) -> Dataset:
    return Dataset.from_list({
        "text-classification": [{"text": one, "label": ["a", "b"][number % 2]} for number, one in enumerate(lines)],
        "masked-lm": [{"text": one} for one in lines], "causal-lm": [{"text": one} for one in lines],
        "conversations": [{"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": one[::-1]}]}
                          for one in lines],
        "seq2seq": [{"source": one, "target": " ".join(reversed(one.split()))} for one in lines]}[kind])


def task_of(kind: str, split: Dataset) -> Task[Any]:
    section: Mapping[str, Any] = {"train": "x.jsonl", "max_length": 48}
    made = {"text-classification": (TextClassification, TextClassificationData), "masked-lm": (MaskedLM, MaskedLMData),
            "causal-lm": (CausalLM, CausalLMData), "conversations": (CausalLM, CausalLMData),
            "seq2seq": (Seq2Seq, Seq2SeqData)}
    task, data = made[kind]
    found: Task[Any] = task.understand(data(**section), {"train": split})
    return found


def model_of(kind: str, tokens: int) -> Any:
    torch.manual_seed(0)
    if kind == "text-classification":
        return hf.BertForSequenceClassification(hf.BertConfig(vocab_size=tokens, num_labels=2, **SIZES))
    if kind == "masked-lm":
        return hf.BertForMaskedLM(hf.BertConfig(vocab_size=tokens, initializer_range=0.3, **SIZES))
    if kind == "seq2seq":
        return hf.T5ForConditionalGeneration(hf.T5Config(
            vocab_size=tokens, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0))
    return hf.LlamaForCausalLM(hf.LlamaConfig(
        vocab_size=tokens, bos_token_id=0, eos_token_id=2, pad_token_id=1, initializer_range=0.3, **SIZES))


@dataclass(frozen=True)
class Pair:
    """A teacher, a student of all its layers with fewer tokens, and the task for both."""

    kind: str
    teacher: Loaded
    student: Loaded
    whole: Task[Any]
    task: Task[Any]
    split: Dataset

    def prepared(self, split: Dataset | None = None, *, training: bool = True) -> Prepared:
        split = self.split if split is None else split
        return self.task.prepare(split, self.student.processor, self.teacher.processor, training=training)

    def as_teacher(self, split: Dataset | None = None) -> Prepared:
        """With the whole vocabulary on both sides."""
        split = self.split if split is None else split
        return self.whole.prepare(split, self.teacher.processor, self.teacher.processor, training=True)


def pair(kind: str, **spec: Any) -> Pair:
    split = rows(kind, LINES)
    task = task_of(kind, split)
    tokenizer = speaking.KINDS[{"text-classification": "bert", "masked-lm": "bert", "causal-lm": "llama3",
                                "conversations": "gpt2", "seq2seq": "t5"}[kind]]()
    model = model_of(kind, len(tokenizer) + 3).eval()
    processor = PairProcessor.of(tokenizer, model, None) if kind == "seq2seq" else tokenizer
    if kind == "text-classification":
        model.config.id2label, model.config.label2id = {0: "a", 1: "b"}, {"a": 0, "b": 1}
    teacher = Loaded(model, processor, "teacher")
    whole = task.adapted_to(teacher)
    asked = StudentSpec(vocabulary=VocabularySpec(**spec))
    assert asked.vocabulary is not None
    _, student = start_student(asked, whole, teacher, None, Smaller.counted_in(asked.vocabulary, whole, (split,)))
    return Pair(kind, teacher, student, whole, whole.between(student, teacher), split)


def all_of(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[number] for number in range(len(prepared))])


def dense(form: Any) -> Tensor:
    logits: Tensor = (form.dense() if isinstance(form, Headed) else form).logits
    return logits


# --- what is read ---


@pytest.mark.slow
@every_kind
def test_in_training_the_teacher_reads_its_own_tokens_of_the_texts_that_were_counted(kind: str) -> None:
    both = pair(kind)
    ours, theirs = all_of(both.prepared()), all_of(both.as_teacher())
    assert not torch.equal(ours.student["input_ids"], theirs.teacher["input_ids"])
    assert ours.teacher.keys() == theirs.teacher.keys()
    if kind != "masked-lm":  # whose random tokens are drawn from another vocabulary
        for name, value in theirs.teacher.items():
            assert torch.equal(ours.teacher[name], value), name
    if both.task.vocabulary:
        assert ours.labels is not None
        assert theirs.labels is not None
        assert torch.equal(both.task.teacher_labels(ours.labels), theirs.labels)


@pytest.mark.slow
@every_kind
def test_the_smaller_student_says_of_counted_texts_what_the_teacher_says_of_its_tokens(kind: str) -> None:
    both = pair(kind)
    batch = all_of(both.prepared())
    with torch.no_grad():
        student = listen(both.student.model.eval(), both.task, batch, Side.STUDENT)
        teacher = listen(both.teacher.model, both.task, batch, Side.TEACHER)
    one, other = both.task.align(student, teacher, batch)
    assert one.logits is not None
    assert torch.allclose(dense(one.logits), dense(other.logits), atol=1e-5)
    classes = both.task.row_classes()
    assert dense(one.logits).shape[1] == classes
    assert (classes < both.task.teacher_classes()) == both.task.vocabulary
    loss, _ = row_loss([(Logits(), 1.0)], one.logits, other.logits, one.labels, 0.0)
    assert abs(loss.item()) < 1e-4


@pytest.mark.slow
@over_a_vocabulary
def test_other_texts_are_read_by_the_teacher_in_the_students_pieces(kind: str) -> None:
    both = pair(kind)
    batch = all_of(both.prepared(rows(kind, OTHERS), training=False))
    mine, told = batch.student["input_ids"], batch.teacher["input_ids"]
    ours, theirs = (both.task.tokenizer_of(one.processor) for one in (both.student, both.teacher))
    assert mine.shape == told.shape
    assert ours.convert_ids_to_tokens(mine.flatten().tolist()) == theirs.convert_ids_to_tokens(told.flatten().tolist())


def test_a_classifier_is_asked_about_other_texts_in_its_own_tokens_when_it_is_measured() -> None:
    both = pair("text-classification")
    split = rows("text-classification", OTHERS)
    measured = all_of(both.prepared(split, training=False))
    own = all_of(both.whole.prepare(split, both.teacher.processor, None, training=False))
    assert torch.equal(measured.teacher["input_ids"], own.student["input_ids"])
    assert both.prepared(split).aligned
    assert not both.prepared(split, training=False).aligned


def test_words_that_replace_others_are_the_students_and_the_teachers_by_their_numbers() -> None:
    both = pair("text-classification")
    assert isinstance(both.task, TextClassification)
    section = both.task.section
    assert section is not None
    task = both.task.__class__(**{**vars(both.task), "section": section.model_copy(update={"augment": "light"})})
    prepared = task.prepare(both.split, both.student.processor, both.teacher.processor, training=True, seed=1)
    plain, batch = all_of(both.prepared()), all_of(prepared)
    assert not torch.equal(plain.student["input_ids"], batch.student["input_ids"])
    ours, theirs = both.student.processor, both.teacher.processor
    assert ours.convert_ids_to_tokens(batch.student["input_ids"].flatten().tolist()) == theirs.convert_ids_to_tokens(
        batch.teacher["input_ids"].flatten().tolist())


# --- what was stored ---


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), [
    (kind, form) for kind in KINDS for form in ("dense", "hidden", "top_k", "samples")
    if form != "hidden" or kind != "text-classification"])
def test_a_cache_of_the_whole_vocabulary_serves_a_student_with_fewer_tokens(kind: str, form: Any, tmp_path: Path) -> None:
    both = pair(kind)
    whole, smaller = all_of(both.as_teacher()), all_of(both.prepared())
    if kind == "masked-lm":  # the same tokens hidden, in both vocabularies
        numbering = both.task.numbering  # type: ignore[attr-defined]
        whole = Batch({"student": smaller.teacher, "teacher": smaller.teacher, "labels": numbering.told(smaller.labels)})
    keep = Keep(form, k=5000, samples=64)
    live = LiveTeacher(both.teacher.model, both.whole)
    capturing = CapturingTeacher(live, both.whole, tmp_path, keep, {"teacher": "a"})
    capturing(whole)
    capturing.close()
    cached = CachedTeacher(tmp_path, both.task, fingerprint={"teacher": "a"}, check_alignment=False)
    told = cached(smaller)
    assert cached.dims().classes == both.task.row_classes()
    with torch.no_grad():
        student = listen(both.student.model.eval(), both.task, smaller, Side.STUDENT)
        asked = listen(both.teacher.model, both.task, smaller, Side.TEACHER)
    objective = Logits(temperature=1.0)
    losses = []
    for said in (told, asked):
        one, other = both.task.align(student, said, smaller)
        assert one.logits is not None
        losses.append(row_loss([(objective, 1.0)], one.logits, other.logits, one.labels, 0.0)[0].item())
    # the student is the teacher with fewer tokens: what is stored in few bits alone is left
    few = {"top_k": 0.02, "samples": 3.0}.get(form, 1e-4)
    assert losses[1] == pytest.approx(0, abs=1e-4)
    assert abs(losses[0]) <= few * len(student.labels if student.labels is not None else [])


def test_a_cache_that_a_student_with_fewer_tokens_began_is_whole_for_its_teacher(tmp_path: Path) -> None:
    both = pair("causal-lm")
    capturing = CapturingTeacher(LiveTeacher(both.teacher.model, both.task), both.task, tmp_path, Keep("hidden"), {})
    capturing(all_of(both.prepared()))
    capturing.close()
    cached = CachedTeacher(tmp_path, both.whole, check_alignment=False)
    batch = all_of(both.as_teacher())
    with torch.no_grad():
        asked = both.whole.remembered(listen(both.teacher.model, both.whole, batch, Side.TEACHER), batch)
    assert torch.allclose(dense(cached(batch).logits), dense(asked.logits), atol=1e-5)
    assert cached.dims().classes == both.whole.row_classes()


def test_stored_answers_are_held_against_labels_by_the_teachers_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = pair("causal-lm")
    capturing = CapturingTeacher(LiveTeacher(both.teacher.model, both.task), both.task, tmp_path, Keep("hidden"), {})
    batch = all_of(both.prepared())
    capturing(batch)
    capturing.close()
    held: list[Tensor] = []
    monkeypatch.setattr(cached_module, "refuse_shifted", lambda said, labels, *_: held.append(labels))
    CachedTeacher(tmp_path, both.task)(batch)
    assert batch.labels is not None
    assert torch.equal(held[0], both.task.teacher_labels(batch.labels[batch.labels != -100]))


# --- how it is measured ---


@pytest.mark.slow
@over_a_vocabulary
def test_a_teacher_is_measured_over_all_of_its_tokens_and_compared_over_the_students(kind: str) -> None:
    both = pair(kind)
    batch = all_of(both.prepared(rows(kind, OTHERS), training=False))
    exam = both.task.exam()
    assert isinstance(exam, TokenExam)
    with torch.no_grad():
        teacher = exam.ask(both.teacher.model, batch, Side.TEACHER)
        given = exam.given(teacher, batch, None)
        beside = exam.given(exam.ask(both.student.model.eval(), batch, Side.STUDENT), batch, teacher)
    assert batch.labels is not None
    there = batch.labels != -100
    logits = dense(teacher.signals.logits)[:, : both.task.teacher_classes()].double()
    labels = both.task.teacher_labels(batch.labels[there])
    nll = -logits.log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)
    assert torch.allclose(torch.from_numpy(given[there.numpy()][:, 0]).double(), nll, atol=1e-4)
    likeliest = logits.argmax(-1)
    numbering = both.task.numbering  # type: ignore[attr-defined]
    expected = [numbering.theirs.tolist().index(one) if one in numbering.theirs else -1 for one in likeliest.tolist()]
    assert given[there.numpy()][:, 1].tolist() == expected
    assert abs(beside[there.numpy()][:, 3]).max() < 1e-4  # it is the teacher among these tokens
    remarks = exam.remarks({"teacher": teacher}, batch)
    assert any("on tokens that the student does not have" in remark for remark in remarks)


@pytest.mark.slow
@over_a_vocabulary
def test_bits_per_byte_are_of_each_models_own_tokens_and_know_no_difference_where_there_is_none(kind: str) -> None:
    both = pair(kind)
    found = []
    for whose in (both.teacher, both.student):
        task = both.whole.adapted_to(whose)
        exam = task.apart()
        assert exam is not None
        batch = all_of(task.prepare(both.split, whose.processor, None, training=False))
        with torch.no_grad():
            given = exam.given(exam.ask(whose.model.eval(), batch, Side.STUDENT), batch, None)
        found.append(given)
    assert found[0].shape == (len(batch.labels), 2)  # type: ignore[arg-type]
    assert (found[0][:, 1] == found[1][:, 1]).all()  # the same bytes
    (metric,) = exam.metrics()
    bits = [metric.compute(one, one) for one in found]
    assert bits[1] <= bits[0] + 1e-3 or kind == "masked-lm"  # fewer to choose among, and the same of these
    if kind == "causal-lm":
        text = "".join(both.student.processor.decode([one for one in row if one != -100]) for row in batch.labels.tolist())
        assert found[1][:, 1].sum() == len(text.encode())


# --- what it costs, and what is refused ---


@pytest.mark.slow
@every_kind
def test_what_it_costs_other_texts_is_said_in_words(kind: str) -> None:
    both = pair(kind)
    said = cost_of(both.whole, both.teacher.processor, both.student.processor, rows(kind, OTHERS))
    assert said is not None
    assert "words are made of other tokens than before" in said
    assert cost_of(both.whole, both.teacher.processor, both.teacher.processor, both.split) is None
    counted = cost_of(both.whole, both.teacher.processor, both.student.processor, both.split)
    assert counted is not None
    assert "; 0.0% of" in counted


def test_the_choice_is_made_once_and_is_the_same_for_all_students() -> None:
    both = pair("text-classification")
    smaller = Smaller.counted_in(VocabularySpec(), both.whole, (both.split,))
    one, other = (smaller.of(Loaded(model_of(both.kind, 254), both.teacher.processor, "")) for _ in range(2))
    assert one.processor is other.processor
    assert one.processor.get_vocab() == both.student.processor.get_vocab()


def test_all_that_is_learnt_is_counted() -> None:
    both = pair("causal-lm")
    plain = both.student.processor
    counted = Smaller.counted_in(VocabularySpec(), both.whole, (both.split, rows("causal-lm", OTHERS[:3]))).of(
        Loaded(model_of("causal-lm", 480), both.teacher.processor, "")).processor
    assert {*plain.get_vocab()} < {*counted.get_vocab()} < {*both.teacher.processor.get_vocab()}


def test_a_model_that_goes_by_numbers_of_tokens_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(hf.BertForSequenceClassification):
        def forward(self, input_ids: Any = None, **more: Any) -> Any:
            return super().forward(inputs_embeds=self.get_input_embeddings()(input_ids) * (1 + input_ids[..., None]), **more)

    monkeypatch.setattr(hf, "BertForSequenceClassification", Odd)
    with pytest.raises(CompatibilityError, match=r"answers texts of those that it kept otherwise, by"):
        pair("text-classification")


def test_texts_longer_than_what_is_read_are_counted_a_little_further_and_no_more() -> None:
    words = [line.split()[0] for line in speaking.CORPUS]
    long = Dataset.from_list([{"text": " ".join([*["the"] * 60, "grandmother", *["on"] * 300, "replayed"]), "label": "a"},
                              {"text": words[0], "label": "b"}])
    task = task_of("text-classification", long)
    tokenizer = speaking.bert()
    teacher = Loaded(model_of("text-classification", len(tokenizer)), tokenizer, "")
    kept, _ = Smaller.counted_in(VocabularySpec(), task, (long,)).chosen(teacher)
    within = set(tokenizer("grandmother", add_special_tokens=False)["input_ids"])
    behind = set(tokenizer("replayed", add_special_tokens=False)["input_ids"]) - within
    assert within <= {*kept.numbers.tolist()}
    assert not behind <= {*kept.numbers.tolist()}


def test_both_texts_of_a_pair_are_counted() -> None:
    split = Dataset.from_list([{"a": "the cat", "b": "a mountain", "label": "x"}, {"a": "sat", "b": "on", "label": "y"}])
    section = TextClassificationData(train="x.jsonl", text=("a", "b"), label=("label",))
    read = TextClassification.understand(section, {"train": split}).texts(split, speaking.bert())
    assert list(read.lines) == ["the cat", "sat", "a mountain", "on"]


def test_answers_that_were_cut_are_counted_as_they_are_tokenised_by_themselves() -> None:
    split = rows("conversations", LINES[:2])
    task = task_of("conversations", split)
    whole = list(task.texts(split, speaking.gpt2()).lines)
    cut = list(task.texts(split.add_column(CUT, [True, False]), speaking.gpt2()).lines)
    assert len(whole) == 2
    assert cut == [*whole, *(line[::-1] for line in LINES[:2])]


@pytest.mark.slow
def test_a_language_alone_is_enough() -> None:
    pytest.importorskip("wordfreq")
    both = pair("text-classification", data=False, languages=("en",))
    kept = {*both.student.processor.get_vocab()}
    assert "the" in kept
    assert len(kept) < len(both.teacher.processor)


def test_a_task_that_does_not_say_its_texts_is_refused() -> None:
    both = pair("text-classification")

    class Silent(TextClassification):
        texts = Task.texts

    silent = Silent(**vars(both.whole))
    with pytest.raises(CompatibilityError, match="`text-classification` does not say what texts its models read"):
        Smaller.counted_in(VocabularySpec(), silent, (both.split,)).of(both.teacher)


def test_models_of_pictures_have_no_tokens_to_leave_out() -> None:
    from stilla.tasks.vision.image_classification import ImageClassification

    task = ImageClassification.of_model(hf.ViTForImageClassification(hf.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4)))
    processor = hf.ViTImageProcessor()
    with pytest.raises(CompatibilityError, match=r"a ViTImageProcessor.* and no tokenizer"):
        Smaller.counted_in(VocabularySpec(), task, ()).of(Loaded(model_of("text-classification", 20), processor, ""))


def test_the_dense_form_of_a_teacher_is_brought_to_the_students_tokens() -> None:
    both = pair("masked-lm")
    batch = all_of(both.prepared())
    with torch.no_grad():
        said = both.task.signals(both.teacher.model(**batch.teacher), batch, Side.TEACHER)
        headed = listen(both.teacher.model, both.task, batch, Side.TEACHER)
    assert isinstance(said.logits, Dense)
    _, one = both.task.align(said, said, batch)
    _, other = both.task.align(headed, headed, batch)
    assert torch.allclose(dense(one.logits), dense(other.logits), atol=1e-5)


def test_a_config_that_names_tokens_that_no_row_is_for_is_named_and_limits_cut_no_tokens_of_it(tmp_path: Path) -> None:
    """As a small GPT-2 does whose config was made with nothing said of the ends of texts."""
    tokenizer = speaking.gpt2()
    model = hf.GPT2ForSequenceClassification(hf.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=64, pad_token_id=0))
    loaded = Loaded(model, tokenizer, ModelSource(model="x"))
    counting = Counting(task_of("text-classification", rows("text-classification", LINES)),
                        (rows("text-classification", LINES),))
    with pytest.raises(CompatibilityError, match=r"token_id of the model's config is 50256, and its tokenizer has no"):
        counting.of(loaded)
    assert vocabulary_of(loaded, counting) is None
