"""How models are loaded and asked that transformers' pipelines do not ask as they were measured, for the model cards of
students: those that tag words, and those that find answers."""

ENTITIES = """\
Entities, as transformers' pipeline puts them together; without `stride` it leaves all words behind
`tag.tokenizer.model_max_length` without a tag, and says nothing of it:

```python
from transformers import pipeline

tag = pipeline("token-classification", model="path/to/this/folder", aggregation_strategy="first", stride=32)
print(tag("Ann Lee lives in New York"))
```

"""
AT_THE_LAST = """\
A word is answered at the last of its tokens, as it was measured here (`data.answers: last`). A pipeline answers at every
token, and none of its `aggregation_strategy` takes the last.

"""
TAGGING = """\
# word by word, as it was measured: texts of any length, in windows that share words where they are long
import bisect
import math
import re

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForTokenClassification.from_pretrained("path/to/this/folder").eval()
how = {"length": 512, "overlap": 0.25, "answers": "first", "words": r"\\S+", **getattr(model.config, "tagging", {})}


def windows(text, words, length):
    \"\"\"The first word of each window, and the one behind its last.\"\"\"
    places = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    if len(places) <= length:
        return [(0, len(words))]
    needs, begins = [0] * len(words), [word.start() for word in words]
    for begin, end in places:
        needs[max(0, bisect.bisect_right(begins, max(end - 1, begin)) - 1)] += 1
    cut, first = [], 0
    while not cut or cut[-1][1] < len(words):
        room, end = length - tokenizer.num_special_tokens_to_add(), first
        while end < len(words) and (end == first or room >= max(1, needs[end])):
            room, end = room - max(1, needs[end]), end + 1
        cut.append((first, end))
        first = max(first + 1, end - int(how["overlap"] * (end - first)))
    return cut


def tags(text):
    \"\"\"Every word with its tag; None where the tokenizer drops the word.\"\"\"
    length, words = min(how["length"], tokenizer.model_max_length), list(re.finditer(how["words"], text))
    found = [(-1, None)] * len(words)  # words around it on the poorer side, where most are; its tag there
    for first, end in windows(text, words, length) if words else []:
        begin, stop = (0, len(text)) if end - first == len(words) else (words[first].start(), words[end - 1].end())
        read = tokenizer(text[begin:stop], truncation=True, max_length=length, return_offsets_mapping=True,
                         return_tensors="pt")
        places = [(begin + one, begin + other) for one, other in read.pop("offset_mapping")[0].tolist()]
        with torch.no_grad():
            said = model(**{name: read[name] for name in tokenizer.model_input_names if name in read}).logits[0]
        likeliest = said.argmax(-1).tolist()
        for number, word in enumerate(words[first:end], first):
            own = [at for at, (one, other) in enumerate(places) if one < min(other, word.end()) and other > word.start()]
            around = min(number - first if first else math.inf, end - 1 - number if end < len(words) else math.inf)
            if own and around > found[number][0]:
                found[number] = around, model.config.id2label[likeliest[own[-1 if how["answers"] == "last" else 0]]]
    return [(word.group(), tag) for word, (_, tag) in zip(words, found)]


print(tags("Ann Lee lives in New York"))
"""

ANSWERING = """\
import math

import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForQuestionAnswering.from_pretrained("path/to/this/folder").eval()
how = {"length": 384, "overlap": 0.33, "longest": 30, **getattr(model.config, "answering", {})}
threshold = getattr(model.config, "no_answer_threshold", None)  # not there: every question has an answer


def answers(question, context):
    \"\"\"The 20 best pieces of the context, the likeliest first; None among them says that there is no answer.\"\"\"
    length = min(how["length"], tokenizer.model_max_length)
    shared = int(how["overlap"] * (length - len(tokenizer(question.strip(), "")["input_ids"])))
    read = tokenizer(question.strip(), context, truncation="only_second", max_length=length, stride=shared, padding=True,
                     return_overflowing_tokens=True, return_offsets_mapping=True, return_tensors="pt")
    with torch.no_grad():
        said = model(**{name: read[name] for name in tokenizer.model_input_names if name in read})
    pieces, none = {}, math.inf
    for row, places in enumerate(read["offset_mapping"].tolist()):
        starts, ends = said.start_logits[row].tolist(), said.end_logits[row].tolist()
        ids, real = read["input_ids"][row].tolist(), read["attention_mask"][row].nonzero().flatten().tolist()
        around = [one for one in real if read.sequence_ids(row)[one] is None]
        marks = [one for mark in (tokenizer.cls_token_id, tokenizer.bos_token_id) for one in around if ids[one] == mark]
        summary = [*marks, *real][0]
        none = min(none, starts[summary] + ends[summary])
        passage = [at for at, part in enumerate(read.sequence_ids(row)) if part == 1 and places[at][0] < places[at][1]]
        for number, first in enumerate(passage):
            for last in passage[number : number + how["longest"]]:
                piece = context[places[first][0] : places[last][1]], places[first][0]
                pieces[piece] = max(pieces.get(piece, -math.inf), starts[first] + ends[last])
    best = sorted(((score, text) for (text, _), score in pieces.items()), key=lambda one: -one[0])[:20]
    if threshold is not None:
        best = sorted([*best, (none - threshold, None)], key=lambda one: -one[0])
    weights = [math.exp(score - best[0][0]) for score, _ in best]
    return [{"answer": text, "probability": weight / sum(weights)} for weight, (_, text) in zip(weights, best)]


def answer(question, context):
    \"\"\"The piece of the context that answers the question; None where none does.\"\"\"
    return answers(question, context)[0]["answer"]


print(answer("Who wrote it?", "The book was written by Ann Lee in 1987."))
print(answers("Who wrote it?", "The book was written by Ann Lee in 1987.")[:3])
"""
