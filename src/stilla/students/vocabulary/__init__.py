"""Students with fewer tokens: which are kept, a tokenizer and a model with those alone, and what it costs other texts."""

from stilla.students.vocabulary.changed import Changed, changed_words
from stilla.students.vocabulary.choosing import Kept, chosen
from stilla.students.vocabulary.counting import Counts, counted
from stilla.students.vocabulary.embeddings import size_of_a_token, with_rows
from stilla.students.vocabulary.languages import of_language
from stilla.students.vocabulary.numbers import named_in_configs, refuse_unknown
from stilla.students.vocabulary.pieces import Pieces, pieces_of
from stilla.students.vocabulary.refusal import refusal
from stilla.students.vocabulary.tokenizer import refuse_other_pieces, with_tokens

__all__ = ["Changed", "Counts", "Kept", "Pieces", "changed_words", "chosen", "counted", "named_in_configs", "of_language",
           "pieces_of", "refusal", "refuse_other_pieces", "refuse_unknown", "size_of_a_token", "with_rows", "with_tokens"]
