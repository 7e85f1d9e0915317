"""How models that write a text for another are loaded and asked, for the model cards of students."""

SEQ2SEQ = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForSeq2SeqLM.from_pretrained("path/to/this/folder")
written = model.generate(**tokenizer("An example.", return_tensors="pt"), max_new_tokens=128)
print(tokenizer.decode(written[0], skip_special_tokens=True))
"""
