"""Prints texts of many languages with their vectors by the official BM25 of Chroma, as a JSON array.

argv[1] is a file of real sentences, a line each. The other texts are made of them, of English words, and of
characters of all of Unicode as far as this Python knows it: the same ones in every run.
"""

import json
import random
import sys
import unicodedata

from chromadb.utils.embedding_functions.chroma_bm25_embedding_function import ChromaBm25EmbeddingFunction

# First and last character: scripts with combining marks, without spaces, with cases of their own, symbols.
RANGES = [
    (0x0000, 0x007F), (0x0080, 0x024F), (0x0250, 0x036F), (0x0370, 0x03FF), (0x0400, 0x052F), (0x0530, 0x05FF),
    (0x0600, 0x06FF), (0x0900, 0x097F), (0x0980, 0x0DFF), (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x10A0, 0x10FF),
    (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1780, 0x17FF), (0x1C80, 0x1CBF), (0x1E00, 0x1FFF),
    (0x2000, 0x206F), (0x2070, 0x218F), (0x2460, 0x24FF), (0x2600, 0x27BF), (0x2C00, 0x2DFF), (0x3040, 0x30FF),
    (0x3200, 0x33FF), (0x4E00, 0x9FFF), (0xA640, 0xA7FF), (0xAC00, 0xD7A3), (0xFB00, 0xFDFF), (0xFF00, 0xFFEF),
    (0x10400, 0x104FF), (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x1F100, 0x1F1FF), (0x1F300, 0x1FAFF),
    (0x20000, 0x20FFF),
]
ENDINGS = ["", "s", "es", "ed", "ing", "ly", "ation", "ization", "ist", "ogist", "ness", "ful", "y", "'s", "ied", "eed"]


def assigned(character):
    return unicodedata.category(character) not in ("Cn", "Cs", "Co")


def word(random):
    first, last = random.choice(RANGES)
    characters = (chr(random.randint(first, last)) for _ in range(random.choice([1, 2, 4, 8, 45])))
    return "".join(filter(assigned, characters))


def made(random, words):
    parts = []
    for _ in range(random.choice([1, 3, 10, 40, 400])):
        kind = random.random()
        if kind < 0.4:
            parts.append(random.choice(words))
        elif kind < 0.7:
            parts.append(random.choice(words).rstrip("s") + random.choice(ENDINGS))
        elif kind < 0.95:
            parts.append(word(random))
        else:
            parts.append(random.choice(["the", "isn't", "x" * 40, "x" * 41, "\u0301", "\u200d", "\x1c", "_", "1e-7"]))
    return random.choice([" ", " ", "\n", "-", "", "\u3000", "\x1f", "\u0307"]).join(parts)


with open(sys.argv[1], encoding="utf-8") as file:
    sentences = file.read().splitlines()
generator = random.Random(20261122)
words = [word for sentence in sentences for word in sentence.split()]
texts = sentences + ["", " ", "..."] + [made(generator, words) for _ in range(1200)]
vectors = ChromaBm25EmbeddingFunction()._encode
rows = []
for text in texts:
    vector = vectors(text)
    rows.append({"text": text, "indices": vector.indices, "values": vector.values})
json.dump(rows, sys.stdout)
