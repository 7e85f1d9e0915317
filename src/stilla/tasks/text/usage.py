"""How models that find answers are loaded and asked, for the model cards of students: transformers 5 has no pipeline for
that."""

ANSWERING = """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForQuestionAnswering.from_pretrained("path/to/this/folder").eval()


def answer(question, context, length=384, shared=128, longest=30):
    \"\"\"The piece of the context that answers the question; None where none does.\"\"\"
    read = tokenizer(question.strip(), context, truncation="only_second", max_length=length, stride=shared, padding=True,
                     return_overflowing_tokens=True, return_offsets_mapping=True, return_tensors="pt")
    with torch.no_grad():
        said = model(**{name: read[name] for name in tokenizer.model_input_names if name in read})
    best, none = (float("-inf"), 0, 0), float("inf")
    for row, places in enumerate(read["offset_mapping"].tolist()):
        starts, ends = said.start_logits[row].tolist(), said.end_logits[row].tolist()
        summary = read["input_ids"][row].tolist().index(tokenizer.cls_token_id)
        none = min(none, starts[summary] + ends[summary])
        passage = [at for at, part in enumerate(read.sequence_ids(row)) if part == 1 and places[at][0] < places[at][1]]
        for number, first in enumerate(passage):
            for last in passage[number : number + longest]:
                best = max(best, (starts[first] + ends[last], places[first][0], places[last][1]))
    score, start, end = best
    threshold = getattr(model.config, "no_answer_threshold", None)  # not there: every question has an answer
    return None if threshold is not None and none - score > threshold else context[start:end]


print(answer("Who wrote it?", "The book was written by Ann Lee in 1987."))
"""
