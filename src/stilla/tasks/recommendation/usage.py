"""How recommenders are loaded and asked, for the model cards of students."""

RECOMMENDING = """\
import json
from pathlib import Path

import torch
import transformers

folder = "path/to/this/folder"
known = json.loads(Path(folder, "items.json").read_text(encoding="utf-8"))
numbers = {item: number for number, item in enumerate(known["items"])}
model = getattr(transformers, known["model"]).from_pretrained(folder)


def recommend(history, k=10):
    \"\"\"The ids of the k items that fit best behind these, the latest last.\"\"\"
    taken = [numbers[item] for item in history if item in numbers]
    ids = taken + ([] if known["mask"] is None else [known["mask"]])
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([ids[-known["max_length"]:]])).logits[0, -1, :len(numbers)]
    if known["seen"] == "leave_out":
        scores[taken] = -torch.inf
    return [known["items"][number] for number in scores.topk(k).indices]


print(recommend(known["items"][:3]))
"""
