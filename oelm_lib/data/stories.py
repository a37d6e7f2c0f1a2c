"""The embedded corpus: small English stories from a seeded generator. Synthetic; see params/corpora/stories.yaml."""

import random
from collections.abc import Iterator

from oelm_lib.data.spec import Generator


def generate_stories(grammar: Generator) -> dict[str, list[str]]:
    """Make every split; same grammar, same text on every machine, and no story twice."""
    seen: set[str] = set()
    return {
        split: list(_split(grammar, split, count, seen)) for split, count in grammar.stories.items()
    }


def _split(grammar: Generator, split: str, count: int, seen: set[str]) -> Iterator[str]:
    rng = random.Random(f"stories/{split}")
    while count:
        story = _story(grammar, rng)
        if story not in seen:
            seen.add(story)
            count -= 1
            yield story


def _story(grammar: Generator, rng: random.Random) -> str:
    """One story: the five facts, then call-backs and fillers in random order."""
    slots = {}
    for slot, words in grammar.words.items():
        first = rng.randrange(len(words))
        slots[slot], slots[f"{slot}2"] = words[first], words[first - rng.randrange(1, len(words))]
    girl = rng.random() < 0.5
    slots["name"] = slots["girl" if girl else "boy"]
    slots["he"], slots["his"] = ("she", "her") if girl else ("he", "his")
    slots |= {
        f"a_{slot}": ("an " if word[0] in "aeiou" else "a ") + word for slot, word in slots.items()
    }
    body = []
    for part in (grammar.callbacks, grammar.fillers):
        body += rng.sample(part.sentences, rng.randint(*part.count))
    rng.shuffle(body)
    sentences = [sentence.format_map(slots) for sentence in (rng.choice(grammar.openings), *body)]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
