"""A cross-encoder as the teacher of vectors: what is learnt of its scores, whoever reads what, and what it cannot teach."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, BertModel

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.errors import StillaError
from stilla.objectives import Listwise, Logits, Margins
from stilla.objectives.base import RowObjective
from stilla.recipe import ModelSource
from stilla.recipe.file import from_options
from stilla.rows import row_loss
from stilla.signals import Batch, Dense, Side, Signals
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.forward import listen
from stilla.tasks.retrieval import static
from stilla.tasks.retrieval.crossing import Crossing
from stilla.tasks.retrieval.embedding import Embedding
from stilla.tasks.retrieval.model import Shape, as_embedder
from stilla.tasks.retrieval.reading import Reader
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher
from tests import tiny
from tests.students import speaking
from tests.tasks.retrieval import rerankers
from tests.tasks.retrieval.rerankers import IDENTITY, SIGMOID
from tests.tasks.retrieval.setting import encoder, folder, lines, loaded, scored, search, sentences, texts
from tests.tasks.retrieval.test_embedding import bound, whole
from tests.tasks.retrieval.test_runs import QUICK


def candidates(path: Path, count: int = 16, each: int = 3, seed: int = 0) -> str:
    """Queries of several lengths with what answers each and `each` others, without a label."""
    said, rows = sentences(count * each, seed + 7), []
    for number, one in enumerate(sentences(count, seed)):
        others = said[number * each : (number + 1) * each]
        rows.append({"query": one, "positive": " ".join(reversed(one.split())),
                     **{f"negative_{place}": other for place, other in enumerate(others, 1)}})
    return lines(path, rows)


def student(path: Path, *, similarity: str = "cosine", pieces: bool = False, seed: int = 5) -> Loaded:
    """A small encoder of its own, with a prompt before queries. `pieces`: and a tokenizer that is not the teacher's."""
    if not pieces:
        return loaded(folder(path, layers=1, width=16, seed=seed, similarity=similarity, prompts={"query": "the "}))
    return loaded(_spelling(path))


def _spelling(path: Path) -> str:
    tokenizer = speaking.bert()
    torch.manual_seed(3)
    as_embedder(BertModel(BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.3)), Shape("mean", True)).save_pretrained(path)
    Reader(tokenizer, {"query": "the "}).save_pretrained(path)
    return str(path)


def teacher_of(path: Path, **said: Any) -> Loaded:
    return Embedding().load(ModelSource(model=rerankers.folder(path, **said)), labelled=True)


def taught(
    place: Path, student: Loaded, *, file: str | None = None, teacher: Loaded | None = None, **said: Any
) -> tuple[Embedding, Loaded, Prepared, Dataset]:
    """A task between a cross-encoder and a student, and what both read in training."""
    made = teacher_of(place / "teacher") if teacher is None else teacher
    train = candidates(place / "train.jsonl") if file is None else file
    task, splits = bound({"train": train, "validation": scored(place / "v.jsonl", most=1)}, **said)
    task = task.adapted_to(made).between(student, made)
    return task, made, task.prepare(splits["train"], student.processor, made.processor, training=True), splits["train"]


def scores_by_hand(teacher: Loaded, split: Dataset) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(rows, candidates): of a query with each candidate by itself, as transformers would be asked, without a batch."""
    found = []
    for row in split:
        query, *others = row.values()
        with torch.no_grad():
            found.append([float(teacher.model(**teacher.processor.tokenizer(query, one, return_tensors="pt")).logits)
                          for one in others])
    return np.array(found, np.float64)


def vectors_by_hand(student: Loaded, split: Dataset, *, prompt: str = "the ") -> np.ndarray[Any, np.dtype[np.float64]]:
    """(rows, texts, width): mean over the tokens of each text, of length 1."""
    found = []
    for row in split:
        said = []
        for number, text in enumerate(row.values()):
            inputs = student.processor.tokenizer(prompt + text if number == 0 else text, return_tensors="pt")
            with torch.no_grad():
                hidden = student.model(**inputs).last_hidden_state[0].double().numpy()
            mean = hidden.mean(0)
            said.append(mean / np.linalg.norm(mean))
        found.append(said)
    return np.array(found)


def compared(task: Embedding, student: Loaded, said: Signals, batch: Batch) -> tuple[Signals, Signals]:
    with torch.no_grad():
        return task.align(listen(student.model, task, batch, Side.STUDENT), said, batch)


def rows_of(said: Signals) -> Any:
    assert isinstance(said.logits, Dense)
    return said.logits.logits.double().numpy()


# --- what is learnt ---


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [False, True], ids=["one tokenizer", "two tokenizers"])
def test_every_candidate_is_scored_with_its_query_as_the_data_have_them(tmp_path: Path, pieces: bool) -> None:
    """Whatever the student puts before its texts, and however it reads them."""
    task, teacher, prepared, split = taught(tmp_path, student(tmp_path / "student", pieces=pieces))
    assert isinstance(teacher.processor, Crossing)
    batch = whole(prepared)
    assert len(batch.teacher["input_ids"]) == 16 * 4  # so many pairs a query does a pass cost
    assert len(batch.student["input_ids"]) == 16 * 5
    ours, told = compared(task, student(tmp_path / "again", pieces=pieces), LiveTeacher(teacher.model, task)(batch), batch)
    np.testing.assert_allclose(rows_of(told), scores_by_hand(teacher, split), atol=1e-5)
    assert rows_of(ours).shape == rows_of(told).shape == (16, 4)
    assert not told.embeddings
    assert not prepared.aligned


def test_of_a_pair_the_teacher_reads_as_much_as_of_two_texts(tmp_path: Path) -> None:
    task, teacher, prepared, split = taught(tmp_path, student(tmp_path / "student"), max_length=6)
    batch = whole(prepared)
    assert batch.student["input_ids"].shape[1] == 6
    assert batch.teacher["input_ids"].shape[1] == 12
    told = task.align(Signals(), LiveTeacher(teacher.model, task)(batch), batch)[1]
    pairs = [(row["query"], row["positive"]) for row in split]
    inputs = teacher.processor.tokenizer(*zip(*pairs), truncation=True, max_length=12, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = teacher.model(**inputs).logits[:, 0].double().numpy()
    np.testing.assert_allclose(rows_of(told)[:, 0], expected, atol=1e-5)


def _kl(s: Any, t: Any) -> Any:
    p, q = (np.exp(one - one.max(-1, keepdims=True)) for one in (t, s))
    p, q = (one / one.sum(-1, keepdims=True) for one in (p, q))
    return (p * np.log(p / q)).sum(-1)


def _likelihood(s: Any, t: Any) -> Any:
    """Of the teacher's two favourites, drawn one after the other."""
    found = []
    for ours, theirs in zip(s, t):
        first, second = np.argsort(-theirs)[:2]
        rest = [one for one in range(len(ours)) if one != first]
        drawn = ours[first] - np.log(np.exp(ours).sum()) + ours[second] - np.log(np.exp(ours[rest]).sum())
        found.append(-drawn / 2)
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "oracle"), [
    (Margins(), lambda s, t: (((s[:, :1] - s[:, 1:]) - (t[:, :1] - t[:, 1:])) ** 2).mean(-1)),
    (Logits(temperature=1.0), _kl), (Listwise(top=2), _likelihood)], ids=["margins", "logits", "listwise"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_what_is_learnt_is_what_the_papers_say_in_float64(
    tmp_path: Path, objective: RowObjective, oracle: Any, similarity: str
) -> None:
    """Of the cross-encoder's scores, pair by pair and never padded, against products of vectors that are computed here."""
    own = student(tmp_path / "student", similarity=similarity)
    own.model.double()
    teacher = teacher_of(tmp_path / "teacher")
    teacher.model.double()
    task, _, prepared, split = taught(tmp_path, own, teacher=teacher, scale=3.0)
    batch = whole(prepared)
    ours, told = compared(task, own, LiveTeacher(teacher.model, task)(batch), batch)
    loss = float(row_loss([(objective, 1.0)], ours.logits, told.logits, None, 0.0)[0]) / len(split)
    vectors = vectors_by_hand(own, split)
    s = 3.0 * (vectors[:, :1] * vectors[:, 1:]).sum(-1)
    assert loss == pytest.approx(float(oracle(s, scores_by_hand(teacher, split)).mean()), abs=1e-9)
    assert loss > 1e-3


def test_what_is_stored_is_a_number_a_pair_and_teaches_as_the_teacher_does(tmp_path: Path) -> None:
    own = student(tmp_path / "student")
    task, teacher, prepared, _ = taught(tmp_path, own)
    batch = whole(prepared)
    live = LiveTeacher(teacher.model, task)
    capturing = CapturingTeacher(live, task, tmp_path / "cache", Keep(), {})
    first, before = capturing(batch), live.entered
    capturing.close()
    reading = CapturingTeacher(live, task, tmp_path / "cache", Keep(), {})
    again = reading(batch)
    assert live.entered == before  # nothing is asked twice
    cached = CachedTeacher(tmp_path / "cache", task)
    expected = rows_of(compared(task, own, live(batch), batch)[1])
    for said in (first, again, cached(batch)):
        np.testing.assert_allclose(rows_of(compared(task, own, said, batch)[1]), expected, atol=1e-6)
    dims = cached.dims()
    assert (dims.classes, dims.embedding) == (4, 0)
    assert task.teacher_classes() == 1
    some = prepared.collate([7, 2])  # as they stand in another batch
    np.testing.assert_allclose(rows_of(compared(task, own, cached(some), some)[1]), expected[[7, 2]], atol=1e-6)


def test_a_pair_alone_is_held_against_what_the_teachers_folder_says_that_scores_are(tmp_path: Path) -> None:
    """A cosine is near no logit; a cross-encoder of alikeness gives the sigmoid of one. Stored is the logit."""
    rows = [{"sentence1": one, "sentence2": other} for one, other in zip(sentences(9), sentences(9, 4))]
    own, teacher = student(tmp_path / "student"), teacher_of(tmp_path / "teacher", says=SIGMOID)
    task, _, prepared, split = taught(tmp_path, own, file=lines(tmp_path / "t.jsonl", rows), teacher=teacher)
    batch, logits = whole(prepared), scores_by_hand(teacher, split)
    live = LiveTeacher(teacher.model, task)
    ours, told = compared(task, own, live(batch), batch)
    np.testing.assert_allclose(rows_of(told), 1 / (1 + np.exp(-logits)), atol=1e-6)
    stored = task.remembered(live(batch), batch)
    np.testing.assert_allclose(rows_of(stored), logits, atol=1e-5)
    assert np.abs(rows_of(ours)).max() <= 1 + 1e-6
    assert [(one.kind, one.options.get("divergence")) for one in task.learns_by()] == [("logits", "mse")]
    several, *_ = taught(tmp_path / "several", own, teacher=teacher)
    assert [one.kind for one in several.learns_by()] == ["margins"]


def test_a_teacher_may_read_other_columns_than_its_student(tmp_path: Path) -> None:
    """A cross-encoder of one language teaches a student of another: columns of the same texts stand beside each other."""
    file = candidates(tmp_path / "c.jsonl", 6, 1)
    rows = [{**row, "their_query": "a " + row["query"], "their_positive": row["positive"] + " the", "their_negative": "new"}
            for row in map(json.loads, Path(file).read_text().splitlines())]
    made = lines(tmp_path / "both.jsonl", rows)
    teacher, own = teacher_of(tmp_path / "teacher"), student(tmp_path / "student")
    columns = ("their_query", "their_positive", "their_negative")
    task, splits = bound({"train": made, "validation": scored(tmp_path / "v.jsonl", most=1)},
                         text=["query", "positive", "negative_1"])
    task = task.taught_from({"text": columns}, splits).adapted_to(teacher).between(own, teacher)
    batch = whole(task.prepare(splits["train"], own.processor, teacher.processor, training=True))
    told = compared(task, own, LiveTeacher(teacher.model, task)(batch), batch)[1]
    theirs = scores_by_hand(teacher, splits["train"].select_columns(list(columns)))
    np.testing.assert_allclose(rows_of(told), theirs, atol=1e-5)
    vectors = vectors_by_hand(own, splits["train"].select_columns(["query", "positive", "negative_1"]))
    with torch.no_grad():
        ours = listen(own.model, task, batch, Side.STUDENT)
    np.testing.assert_allclose(rows_of(ours), 20 * (vectors[:, :1] * vectors[:, 1:]).sum(-1), atol=1e-4)


def test_folders_of_newer_versions_list_a_cross_encoders_only_module(tmp_path: Path) -> None:
    place = rerankers.folder(tmp_path / "teacher")
    (Path(place) / "modules.json").write_text(json.dumps([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]))
    found = Embedding().load(ModelSource(model=place), labelled=True)
    assert isinstance(found.processor, Crossing)
    assert not isinstance(loaded(folder(tmp_path / "vectors")).processor, Crossing)


# --- whole runs ---


def recipe(place: Path, **changes: Any) -> dict[str, Any]:
    encoder(1, 16, 5).save_pretrained(place / "given")
    student(place / "student")
    data = {"train": candidates(place / "train.jsonl", 24), "validation": scored(place / "v.jsonl"), "score_range": [0, 5]}
    return {"task": "embedding", "teacher": rerankers.folder(place / "teacher"), "student": {"model": str(place / "student")},
            "output": str(place / "run"), **QUICK, "allow_weak_teacher": False, **changes,
            "data": {**data, **changes.get("data", {})}}


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "words"), [
    ({"distill": {"objectives": [{"kind": "embedding"}]}}, r"\(embedding\): `embedding` compares the vectors.*gives none"),
    ({"distill": {"objectives": [{"kind": "similarities"}]}}, r"`similarities` compares the vectors.*teacher gives none"),
    ({"distill": {"objectives": [{"kind": "hidden", "pooling": "mean"}]}}, "reads a query and a text as one"),
    ({"data": {"train": "texts"}}, r"data\.train: .*training data are texts by themselves"),
    ({"data": {"train": None, "unlabelled": "texts"}}, r"data\.unlabelled: .*negative\), named in data\.text"),
    ({"data": {"train": "pairs"}}, r"data\.train: .*by a logit of any size.*negatives: \{by"),
    ({"data": {"validation": "texts"}}, r"validation or test data are texts by themselves"),
    ({"data": {"negatives": {"mined": 2}}}, r"data\.negatives: .*no vectors to search by.*by: \.\.\."),
    ({"data": {"matryoshka": [4]}}, r"data\.matryoshka: got \[4\]"),
    ({"data": {"dimensions": 64}}, r"data\.dimensions: got 64; expected at most 16"),
    ({"data": {"documents": "teacher", "test": "search"}}, r"data\.documents: got 'teacher'.*no vectors of documents"),
    ({"student": {"layers": 2}}, r"is a cross-encoder, whose layers were trained to judge two texts"),
    ({"distill": {"adapt": {}}}, r"distill\.adapt: what becomes of the teacher is measured"),
    ({"teacher": "several"}, r"a BertForSequenceClassification, and has no modules\.json.*one score of a query and a text"),
], ids=lambda one: None if isinstance(one, str) else "-".join(f"{key}" for key in one))
def test_what_a_cross_encoder_cannot_teach_a_check_says(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    pairs = [{"query": one, "positive": one} for one in sentences(8)]
    made = {"texts": texts(tmp_path / "t.jsonl", 8), "pairs": lines(tmp_path / "p.jsonl", pairs),
            "search": search(tmp_path / "search"), "several": rerankers.folder(tmp_path / "several", outputs=3)}
    told = {key: {name: made.get(value, value) if isinstance(value, str) else value for name, value in one.items()}
            if isinstance(one, dict) else made.get(one, one) for key, one in changes.items()}
    problems = check(from_options(recipe(tmp_path, **told))).problems
    assert any(re.search(words, one) for one in problems), problems


@pytest.mark.slow
def test_a_check_of_what_goes_together_has_no_problem_and_an_estimate(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path, cache={"form": "dense"})))
    assert not found.problems
    assert found.estimate is not None
    assert any("none are named; chosen: margins" in note for note in found.notes), found.notes


@pytest.mark.slow
def test_a_run_stores_scores_once_measures_the_student_and_says_what_was_not(tmp_path: Path) -> None:
    asked = recipe(tmp_path, data={"test": search(tmp_path / "search")}, export=["onnx"],
                   evaluate={**QUICK["evaluate"], "baseline": True})
    run = stilla.distill(asked)
    assert set(run.scores.subjects) == {"student", "baseline", "onnx"}
    assert run.scores.metric == "ndcg_at_10"
    note = next(one for one in run.scores.notes if one.startswith("teacher:"))
    assert re.search(r"parameters; not measured beside its student, as it reads a query and a text together", note)
    assert "its teacher was not measured beside it" in run.scores.verdict
    assert "known by" not in run.scores.verdict
    assert "not measured beside its student" in run.report.read_text(encoding="utf-8")
    assert "distilled from `teacher`" in (run.student / "README.md").read_text()
    stages = json.loads((run.folder / "stages.json").read_text())
    stilla.distill(asked)
    assert json.loads((run.folder / "stages.json").read_text()) == stages
    found = pytest.importorskip("sentence_transformers").SentenceTransformer(str(run.student), device="cpu")
    assert found.encode_query(["the"]).shape == (1, 16)
    again = evaluate_run(run.folder, scored(tmp_path / "new.jsonl", seed=40))
    assert "teacher" not in again.subjects
    with pytest.raises(StillaError):  # a vector has none of the teacher's to be near to
        evaluate_run(run.folder, texts(tmp_path / "alone.jsonl", 5))


@pytest.mark.slow
def test_a_search_says_what_trials_reached_without_a_teacher_to_measure(tmp_path: Path) -> None:
    asked = recipe(tmp_path, search={"over": {"data.scale": [5.0, 20.0]}, "trials": 2})
    made = stilla.search(asked)
    reached = [one.reached for one in made.trials]
    assert [one.teacher for one in reached if one is not None] == [None, None]


@pytest.mark.slow
def test_stored_or_asked_again_the_student_is_the_same(tmp_path: Path) -> None:
    ones, others = (stilla.distill({**recipe(tmp_path / name, distill={**QUICK["distill"], "epochs": 3}),
                                    "cache": {"form": form}}).student for name, form in (("a", "none"), ("b", "dense")))
    ours, theirs = (loaded(place).model.state_dict() for place in (ones, others))
    for name in ours:
        if not name.endswith("key.bias"):  # which moves no attention: its gradient is rounding alone
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_another_model_finds_what_the_cross_encoder_then_scores(tmp_path: Path) -> None:
    finder = folder(tmp_path / "finder", prompts={"query": "a "})
    rows = [{"query": one, "positive": " ".join(reversed(one.split()))} for one in sentences(24)]
    asked = recipe(tmp_path, data={"train": lines(tmp_path / "q.jsonl", rows), "negatives": {"mined": 3, "by": finder}})
    found = check(from_options(asked))
    assert not found.problems
    assert any(re.search(rf"data\.negatives: {finder} reads 24 queries and 24 documents", note) for note in found.notes)
    assert found.estimate is not None
    assert "negatives" in found.estimate.seconds
    run = stilla.distill(asked)
    assert (run.folder / "negatives").is_dir()
    logged = json.loads((run.folder / "log.jsonl").read_text().splitlines()[-1])
    assert logged
    wrong = recipe(tmp_path, data={"train": lines(tmp_path / "q.jsonl", rows),
                                   "negatives": {"mined": 3, "by": rerankers.folder(tmp_path / "judge")}})
    problems = check(from_options(wrong)).problems
    assert any(re.search(r"data\.negatives\.by: .*has no modules\.json", one) for one in problems), problems


def _of_topics(place: Path) -> tuple[str, str, str]:
    """A cross-encoder that has learnt whether two texts are of one topic; candidates that nobody has labelled; a search in
    which what is of a query's topic is relevant."""
    tokenizer, said, draw = tiny.tokenizer(), sentences(240, 11), random.Random(0)  # of three topics in turns
    torch.manual_seed(0)
    judge = BertForSequenceClassification(BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    with torch.no_grad():  # that words are of one topic, it knows from the start
        for group in tiny.TOPICS.values():
            judge.bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids(list(group))] = torch.randn(32)
    optimiser = torch.optim.Adam(judge.parameters(), lr=5e-3)
    for _ in range(140):
        asked = [draw.randrange(240) for _ in range(32)]
        pairs = [(one, (one + 3 * draw.randrange(80) + draw.choice((0, 0, 1, 2))) % 240) for one in asked]
        inputs = tokenizer([said[one] for one, _ in pairs], [said[other] for _, other in pairs], padding=True,
                           return_tensors="pt")
        wanted = torch.tensor([float(one % 3 == other % 3) for one, other in pairs])
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(judge(**inputs).logits[:, 0], wanted).backward()
        optimiser.step()
    path = str(place / "judge")
    judge.config.sentence_transformers = {"activation_fn": IDENTITY}
    judge.eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    rows = [{"query": said[one], "positive": said[(one + 3) % 240], "negative_1": said[(one + 4) % 240],
             "negative_2": said[(one + 8) % 240]} for one in range(96)]
    found = sentences(30, 77)
    lines(place / "search" / "corpus.jsonl", [{"_id": f"d{one}", "text": text} for one, text in enumerate(found)])
    asking = sentences(12, 78)
    lines(place / "search" / "queries.jsonl", [{"_id": f"q{one}", "text": text} for one, text in enumerate(asking)])
    judged = "".join(f"q{query}\td{one}\t1\n" for query in range(12) for one in range(30) if one % 3 == query % 3)
    (place / "search" / "qrels").mkdir()
    for split in ("dev", "test"):
        (place / "search" / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    return path, lines(place / "rows.jsonl", rows), str(place / "search")


@pytest.mark.slow
def test_a_student_that_is_taught_finds_what_it_did_not_find_before(tmp_path: Path) -> None:
    judge, rows, found = _of_topics(tmp_path)
    scores = {}
    ways = {"untaught": {"max_steps": 1, "learning_rate": 1e-9}, "taught": {"epochs": 8, "learning_rate": 3e-3}}
    for name, steps in ways.items():
        asked = recipe(tmp_path / name, data={"train": rows, "validation": found, "test": found})
        run = stilla.distill({**asked, "teacher": judge, "distill": {**QUICK["distill"], "epochs": 1, **steps}})
        scores[name] = run.scores.student.quality["test"]["ndcg_at_10"].value
    assert scores["taught"] > scores["untaught"] + 0.2, scores


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"student": {"lora": {"r": 2}}}, {"student": {"vocabulary": "data"}}, {"data": {"dimensions": 8}},
    {"teacher": {"precision": "bfloat16"}}, {"data": {"unlabelled": "more"}, "cache": {"form": "none"}},
    {"student": {"model": "static"}},
    {"data": {"train": None, "unlabelled": "more", "text": ["query", "positive", "negative_1", "negative_2", "negative_3"]}},
], ids=["adapters", "vocabulary", "dimensions", "bfloat16", "unlabelled", "table", "unlabelled alone"])
def test_students_of_every_kind_learn_scores(tmp_path: Path, changes: dict[str, Any]) -> None:
    asked = recipe(tmp_path)
    own = _spelling(tmp_path / "spelling") if "vocabulary" in changes.get("student", {}) else str(tmp_path / "student")
    if changes.get("student", {}).get("model") == "static":
        table = static.made_from(student(tmp_path / "vectors"), None)
        table.save_pretrained(tmp_path / "static")
        static.reader_of(student(tmp_path / "vectors").processor).save_pretrained(tmp_path / "static")
        own = str(tmp_path / "static")
    more = candidates(tmp_path / "more.jsonl", 30, seed=40)
    data = {name: more if value == "more" else value for name, value in changes.get("data", {}).items()}
    run = stilla.distill({
        **asked, **({"cache": changes["cache"]} if "cache" in changes else {}),
        "teacher": {"model": asked["teacher"], **changes.get("teacher", {})},
        "student": {**changes.get("student", {}), "model": own}, "data": {**asked["data"], **data}})
    made = loaded(run.student)
    assert made.model.width == data.get("dimensions", 16)
    logged = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert all("margins" in one["terms"] for one in logged if "terms" in one)
    assert "unlabelled" not in data or run.scores.learnt["unlabelled"] > 0
