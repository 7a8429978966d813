"""Expressions about a scene, built together with what they mean: each carries the set of things it is true of, and
the program, step by step, that finds it.

An expression is used only if its meaning, evaluated on the scene, is exactly the one referent. Comparisons keep a
margin, and facts that a reader might take to be true of other things count as true of them, so that a person who looks
at the picture agrees. The words are in `words.yaml`.
"""

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from refstudy.base.yaml_files import read_yaml

from .backgrounds import Stuff
from .drawing import COLOURS
from .facts import facts_of
from .flavours import Style
from .positions import between, places_of, relations_of, sizes_of
from .scene import GROUNDS, Scene
from .things import CATEGORIES


def _listed(node: Any) -> Any:
    """The words as the file has them, its lines as lists."""
    if isinstance(node, dict):
        return {key: _listed(part) for key, part in node.items()}
    return node.split(", ") if isinstance(node, str) else [part.split() for part in node]


KINDS = ("category", "attribute", "location", "superlative", "relation", "stuff")
WORDS: dict[str, Any] = _listed(read_yaml(Path(__file__).with_name("words.yaml")).content)
LOCATION_WORDS = frozenset(WORDS["where"])  # counted in real and made expressions; RefScenes+ has none
Step = list[Any]
# A phrase is of the last kind it has.
RANK = ("stuff", "category", "attribute", "clothes", "superlative", "location", "relation")
ALIKE = {key: group[0] for group in WORDS["alike"] for key in group}
CLAUSE = re.compile(r"\b(who|that|which|whose|you)\b")  # of which a sentence has one
OF_TWO = frozenset(WORDS["of_two"])
JOINED = "next beside by close near left right to on behind in above below under".split()
TRIES, MOST_WORDS = 14, 15  # for an expression; of it


@dataclass(frozen=True)
class Phrase:
    """Words and their meaning: ``true_of`` holds the numbers (from 0) of the things the words are true of, ``program``
    the steps that find them, each a list: an operation, its value, and for a relation the programs of its others."""

    text: str
    true_of: frozenset[int]
    kind: str
    program: tuple[Step, ...] = ()

    @property
    def words(self) -> int:
        return len(self.text.split())

    def also(self, form: str, true_of: frozenset[int], kind: str, step: Step, value: str = "") -> "Phrase":
        """The phrase put into a form of `words.yaml`, with the things that it is then true of."""
        text = form.replace("V", value).replace("N", self.text)
        return Phrase(text, true_of, max(kind, self.kind, key=RANK.index), (*self.program, step))


@functools.cache
def forms_of(said: str, places: bool, sentences: bool = True) -> list[str]:
    """The forms of a fact or a relation: without words of place unless ``places`` allows them, and without clauses
    unless in ``sentences``."""
    facts, key = WORDS["facts"], said.split(":")[0]
    forms = WORDS["relations"].get(said) or facts.get(said, []) + (facts.get(key, []) if key != said else [])
    fit = [form for form in forms if places or not LOCATION_WORDS & set(form.split())]
    return [form for form in fit if sentences or not CLAUSE.search(form)]


def _order(form: str) -> int:
    """The position of a form among others: adjectives first, then forms with "of", others, and clauses last."""
    return 0 if form.endswith("N") else 1 if " of V" in form else 3 if CLAUSE.search(form) else 2


class Speaker:
    """Makes random expressions about one scene. The facts of the scene are computed once."""

    def __init__(self, scene: Scene, rng: Random, style: Style):
        self.scene, self.rng, self.style = scene, rng, style
        self.facts = [facts_of(scene, k) for k in range(len(scene.things))]
        self.seen = [shown > 0.5 and area > 0.008 for shown, area in zip(scene.shown, scene.areas, strict=True)]
        self.leading = places_of(scene) | sizes_of(scene)
        self.related: dict[tuple[int, int], list[tuple[str, frozenset[int]]]] = {}
        self.true_of: dict[str, frozenset[int]] = {}
        for k, facts in enumerate(self.facts):
            for fact in facts if scene.areas[k] else ():
                self.true_of[fact] = self.true_of.get(fact, frozenset()) | {k}
        self.said = [[f for f, sure in facts.items() if sure and not f.startswith("noun:")] for facts in self.facts]

    def expressions(self, target: int, lengths: list[int]) -> list[Phrase]:
        """An expression for each of ``lengths`` (words), as near to it as ``TRIES`` tries come; all true of ``target``
        alone, and all different. There are fewer, or none, if the tries fail."""
        rng, found = self.rng, dict[str, Phrase]()
        kinds, weights = list(self.style.kinds), list(self.style.kinds.values())
        for length in lengths:
            best: Phrase | None = None
            for _ in range(TRIES):
                (kind,) = rng.choices(kinds, weights)
                words = length - 2 * self.style.sentences - rng.randrange(1, 4)
                phrase = self._described(target, kind, max(0, round(words / 3) + (kind != "relation")))
                if phrase is None or phrase.true_of != {target}:
                    continue
                phrase = self._finished(phrase)
                off = abs(phrase.words - length)
                if phrase.text in found or phrase.words > MOST_WORDS or (best and abs(best.words - length) <= off):
                    continue
                best = phrase
                if off <= length // 6:
                    break
            if best is not None:
                found[best.text] = best
        return list(found.values())

    def _described(self, target: int, kind: str, parts: int) -> Phrase | None:
        """A phrase of about so many parts for a thing, which may be true of others too; None if this kind has nothing
        to say about it."""
        compared = kind in ("location", "superlative")
        phrase = self._named(target, max(0, parts - compared))
        if kind == "attribute" or (kind != "location" and phrase.kind == "clothes"):
            return phrase  # clothes are neither big nor next to anything
        if kind == "relation":
            return self._related(target, phrase, parts)
        table = WORDS["places"] if kind == "location" else WORDS["sizes"]
        options = [key for key in table if self.leading[key](phrase.true_of, target)]
        if not options:
            return None
        key = self.rng.choice(options)
        of_two = len(phrase.true_of) == 2 or key in ("far left", "far right")
        forms = [form for form in table[key] if of_two or not OF_TWO & set(form.split())]
        return phrase.also(self.rng.choice(forms), frozenset([target]), kind, [kind, key])

    def _named(self, target: int, parts: int) -> Phrase:
        """A name of the thing with up to ``parts`` facts."""
        rng, said = self.rng, self.said[target]
        if parts and not self.style.sentences and rng.random() < self.style.clothes:
            worn = [fact for fact in said if fact.split(":")[0] in WORDS["garments"]]
            if worn:
                fact = rng.choice(worn)
                key, _, value = fact.partition(":")
                start = Phrase("", self.true_of[fact], "clothes")
                return start.also(rng.choice(WORDS["garments"][key]), start.true_of, "clothes", ["fact", fact], value)
        nouns = self.scene.things[target].category.nouns
        noun = nouns[-1] if rng.random() < self.style.generic else rng.choice(nouns)
        phrase = Phrase(noun, self.true_of[f"noun:{noun}"], "category", (["fact", f"noun:{noun}"],))
        chosen: dict[str, tuple[int, str, str]] = {}
        for fact in rng.sample(said, min(len(said), parts + 2)) if parts else ():
            key, forms = fact.split(":")[0], forms_of(fact, self.style.places, self.style.sentences)
            if forms and len(chosen) < parts:
                form = rng.choice(forms)
                chosen.setdefault(ALIKE.get(key, key), (_order(form), form, fact))
        for order, form, fact in sorted(chosen.values()):
            if order < 3 or not CLAUSE.search(phrase.text):
                words = (rng.choice(WORDS["values"].get(word, [word])) for word in fact.partition(":")[2].split())
                true_of = phrase.true_of & self.true_of[fact]
                phrase = phrase.also(form, true_of, "attribute", ["fact", fact], " ".join(words))
        return phrase

    def _related(self, target: int, phrase: Phrase, parts: int) -> Phrase | None:
        """The phrase with a relation to one other thing, or to two, each named by words that are true of it alone; None
        if three random others give none."""
        rng, others = self.rng, [k for k, seen in enumerate(self.seen) if seen and k != target]
        for other in rng.sample(others, min(len(others), 3)):
            if (target, other) not in self.related:
                found = relations_of(self.scene, target, other)
                self.related[target, other] = [one for one in found if forms_of(one[0], self.style.places)]
            relations = self.related[target, other]
            if phrase.text.endswith(("left", "right")):  # not "facing left left of"
                relations = [one for one in relations if one[0] not in ("left of", "right of")]
            if not relations:
                continue
            rare = [one for one in relations if one[0] == "between"]
            relation, true_of = rng.choice(rare if rare and parts > 1 else relations)
            numbers = [other] if relation != "between" else [other, between(self.scene, target, other)]
            anchors = [anchor for k in numbers if (anchor := self._anchor(k, 1 if parts < 4 else 2))]
            if len(anchors) < len(numbers):
                continue
            form = rng.choice(forms_of(relation, self.style.places))
            if self.style.sentences and form.split()[1] in JOINED and not CLAUSE.search(phrase.text):
                animate = self.scene.things[target].category.group in ("person", "animal")
                form = form.replace("N", f"N {rng.choice(['', *WORDS['links'][not animate :]])}".strip())
            for anchor in anchors:
                form = form.replace("A", f"[the] {anchor.text}", 1)
            step = ["relation", relation, *(list(anchor.program) for anchor in anchors)]
            return phrase.also(form, phrase.true_of & true_of, "relation", step)
        return None

    def _anchor(self, k: int, parts: int) -> Phrase | None:
        """A name that singles out another thing; None when three tries find none."""
        for attempt in range(3):
            phrase = self._named(k, min(attempt, parts))
            if phrase.true_of == {k} and phrase.kind != "clothes":
                return phrase
        return None

    def _finished(self, phrase: Phrase) -> Phrase:
        """The phrase as it is written, with articles: nearly all of them in sentences, few otherwise."""
        article = "the" if phrase.kind in ("location", "superlative") or self.rng.random() < 0.3 else "a"
        text = f"{article} {phrase.text}" if self.style.sentences else phrase.text
        text = re.sub(r"\[(\w+)\] ", lambda found: f"{found[1]} " * (self.rng.random() < self.style.articles), text)
        text = re.sub(r"\ban?(?= ([aeiou])?)", lambda found: "an" if found[1] else "a", text)
        return replace(phrase, text=text, kind="attribute" if phrase.kind == "clothes" else phrase.kind)


def stuff_expressions(rng: Random, region: Stuff, number: int, lengths: list[int]) -> list[Phrase]:
    """Names for a region of background with this ``number``, in about as many words as ``lengths`` asks for; a scene
    has one region of each name."""
    found = {}
    for length in lengths:
        name = rng.choice(WORDS["stuff"][region.name])
        lies = "ground" if region.name in GROUNDS else "background"
        forms = WORDS["stuff_forms"]["any"] + WORDS["stuff_forms"]["plural" if name[-1] == "s" else "single"]
        some = [rng.choice(forms + WORDS["stuff_forms"][lies]) for _ in range(6)]
        form = min(some, key=lambda form: abs(len(form.split()) - length)).replace("[the]", "the")
        phrase = Phrase(name, frozenset([number]), "stuff")
        phrase = phrase.also(form, phrase.true_of, "stuff", ["stuff", region.name], region.colour)
        found[phrase.text] = phrase
    return list(found.values())


def vocabulary() -> list[str]:
    """Every word that any flavour's expressions can contain, lower case, sorted."""
    texts: list[str] = [*COLOURS, *WORDS["stuff"], "dark light the a an"]
    for category in CATEGORIES:
        texts += category.nouns
    for said in (said for key, said in WORDS.items() if key != "alike"):
        for forms in said.values() if isinstance(said, dict) else [said]:
            texts += [re.sub(r"[\[\]]|\b[NVA]\b", " ", form) for form in forms]
    return sorted({word for text in texts for word in text.split()})
