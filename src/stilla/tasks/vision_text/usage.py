"""How models of pictures and texts are loaded and asked, for the model cards of students."""

ZERO_SHOT = """\
from transformers import pipeline

classify = pipeline("zero-shot-image-classification", model="path/to/this/folder")
print(classify("picture.png", candidate_labels=["daisy", "rose"], hypothesis_template="a photo of a {}"))
"""
DESCRIBING = """\
from transformers import pipeline

describe = pipeline("image-text-to-text", model="path/to/this/folder")
parts = [{"type": "image", "image": "picture.png"}, {"type": "text", "text": "Describe the picture."}]
said = describe(text=[{"role": "user", "content": parts}], max_new_tokens=64)
print(said[0]["generated_text"][-1]["content"])
"""
