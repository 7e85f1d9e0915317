"""How models that search are loaded and asked, for the model cards of students."""

EMBEDDING = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
print(model.similarity(model.encode_query(["A question?"]), model.encode_document(["A text.", "Another one."])))
"""
RERANKING = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder")
print(model.predict([("A question?", "A text."), ("A question?", "Another one.")]))
"""
