"""The embedded corpus: small English stories drawn from a seeded grammar (synthetic)."""

import random
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from oelm_lib.config import Section, SplitCounts, Whole
from oelm_lib.errors import UserError

MOST_REPEATS = 10_000
"""After so many repeated stories in a row, the grammar is taken to have no new ones."""


def _word_list(value: Any) -> Any:
    """Words with spaces between them as a list."""
    return value.split() if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[Text, ...], BeforeValidator(_word_list), Field(min_length=2)]


class Sentences(Section):
    count: tuple[Whole, Whole]
    """Fewest and most sentences of this kind in a story."""
    sentences: tuple[str, ...]
    """Templates; `{job}` is a word, `{a_job}` has its article, `{food2}` is a second food."""

    @model_validator(mode="after")
    def _check(self):
        fewest, most = self.count
        if not fewest <= most <= len(self.sentences):
            raise ValueError(
                f"count = [{fewest}, {most}] should rise and be at most the number of sentences,"
                f" {len(self.sentences)}"
            )
        return self


class StoryGrammar(Section):
    stories: SplitCounts
    """Number of stories in each split."""
    words: dict[str, Words]
    """Words that each slot of the templates may take; slots `girl` and `boy` hold names."""
    openings: Annotated[tuple[Text, ...], Field(min_length=1)]
    """First sentences; each names all five facts."""
    callbacks: Sentences
    """Sentences that repeat facts of the opening."""
    fillers: Sentences
    """Sentences without facts."""

    @model_validator(mode="after")
    def _check(self):
        for slot in ("girl", "boy"):
            if slot not in self.words:
                raise ValueError(f"words.{slot} is missing")
        slots = _draw_slots(self, random.Random(0))
        templates = [*self.openings, *self.callbacks.sentences, *self.fillers.sentences]
        for template in templates:
            try:
                filled = template.format_map(slots)
            except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
                raise ValueError(f"sentence {template!r} has an unknown slot: {error}") from None
            if not filled:
                raise ValueError("a sentence is empty")
        return self


def generate_stories(grammar: StoryGrammar) -> dict[str, list[str]]:
    """Generate the stories of every split.

    The same grammar gives the same text on every machine; no story occurs twice in or across
    splits.

    Args:
        grammar: Key `generator` of params/corpora/stories.yaml.

    Returns:
        Split (train, validation, test) -> its stories.

    Raises:
        UserError: The grammar has fewer different stories than were asked for.
    """
    seen: set[str] = set()
    return {
        split: list(_distinct_stories(grammar, split, count, seen))
        for split, count in grammar.stories
    }


def _distinct_stories(
    grammar: StoryGrammar, split: str, count: int, seen: set[str]
) -> Iterator[str]:
    """Yield `count` stories that are not in `seen`, and add them to it."""
    rng = random.Random(f"stories/{split}")
    repeats = 0
    while count:
        story = _draw_story(grammar, rng)
        repeats += 1
        if repeats > MOST_REPEATS:
            raise UserError(
                f"generator: the grammar yields only {len(seen):,} different stories;"
                f" lower generator.stories.{split} or add words"
            )
        if story not in seen:
            seen.add(story)
            count, repeats = count - 1, 0
            yield story


def _draw_story(grammar: StoryGrammar, rng: random.Random) -> str:
    """Draw one story: the five facts, then call-backs and fillers in random order."""
    slots = _draw_slots(grammar, rng)
    body = []
    for part in (grammar.callbacks, grammar.fillers):
        body += rng.sample(part.sentences, rng.randint(*part.count))
    rng.shuffle(body)
    sentences = [sentence.format_map(slots) for sentence in (rng.choice(grammar.openings), *body)]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _draw_slots(grammar: StoryGrammar, rng: random.Random) -> dict[str, str]:
    """Draw a word and a second, different word for each slot, and the hero's name and pronouns."""
    slots = {}
    for slot, words in grammar.words.items():
        first = rng.randrange(len(words))
        second = first - rng.randrange(1, len(words))  # another word; negative: from the end
        slots[slot], slots[f"{slot}2"] = words[first], words[second]
    girl = rng.random() < 0.5
    slots["name"] = slots["girl" if girl else "boy"]
    slots["he"], slots["his"] = ("she", "her") if girl else ("he", "his")
    with_article = {
        f"a_{slot}": ("an " if word[0] in "aeiou" else "a ") + word for slot, word in slots.items()
    }
    return slots | with_article
