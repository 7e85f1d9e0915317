"""How models are loaded and asked for which transformers 5 has no pipeline, for the model cards of students: those that find
answers, and those that answer at the last token of a word."""

TAGGING_AT_THE_LAST = """\
A word is answered at the last of its tokens, as it was measured here (`data.answers: last`). A pipeline answers at every
token, and none of its `aggregation_strategy` takes the last. This does, of words with spaces between them:

```python
import re

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForTokenClassification.from_pretrained("path/to/this/folder").eval()


def tags(text):
    \"\"\"Every word with its tag; None where the tokenizer drops the word.\"\"\"
    read = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
    places = read.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        said = model(**read).logits[0].argmax(-1).tolist()
    found = []
    for word in re.finditer(r"\\S+", text):
        own = [at for at, (begin, end) in enumerate(places) if begin < min(end, word.end()) and end > word.start()]
        found.append((word.group(), model.config.id2label[said[own[-1]]] if own else None))
    return found


print(tags("Ann Lee lives in New York"))
```

Token by token it is asked thus:

"""

ANSWERING = """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForQuestionAnswering.from_pretrained("path/to/this/folder").eval()


def answer(question, context, length=384, overlap=0.33, longest=30):
    \"\"\"The piece of the context that answers the question; None where none does.\"\"\"
    length = min(length, tokenizer.model_max_length)
    shared = int(overlap * (length - len(tokenizer(question.strip(), "")["input_ids"])))
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
