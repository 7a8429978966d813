"""Expressions about a scene, built together with what they mean: each carries the set of things it is true of, and
the program, step by step, that finds it.

An expression is only ever used when its meaning, evaluated on the scene, is exactly the one referent. Comparisons keep
a margin, and what a reader might take to be true counts as true of the other things, so that a person looking at the
picture agrees. The words are in `words.yaml`.
"""

import functools
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from .facts import facts_of
from .scene import GROUNDS, STUFF, Scene, Stuff
from .things import CATEGORIES, COLOURS


def _listed(node: Any) -> Any:
    """The words as the file has them, its lines as lists."""
    if isinstance(node, dict):
        return {key: _listed(part) for key, part in node.items()}
    return node.split(", ") if isinstance(node, str) else [part.split() for part in node]


KINDS = ("category", "attribute", "location", "superlative", "relation", "stuff")
SIDE_MARGIN = 0.07  # share of the picture by which the leftmost, topmost ... thing leads
EDGE_MARGIN = 0.04  # and by which the upper edge of the topmost, the lower edge of the bottommost leads
NEAR_MARGIN = 0.12  # of nearness, 0 to 1, by which the nearest, farthest thing leads
SIZE_MARGIN, TALL_MARGIN = 1.45, 1.25  # ratio of areas, of heights, by which the biggest, the tallest thing leads
CLOSE, CLOSER = 0.24, 0.08  # gap between boxes: what a reader may call next to each other, and what is called so
LOCATION_WORDS = frozenset(  # say where something is: counted in real and made expressions; RefScenes+ has none
    "left right middle center central top bottom front back closest nearest farthest furthest far second third 2nd 3rd "
    "behind side corner near upper lower uppermost lowest highest higher leftmost rightmost foreground background "
    "distance edge above over below under underneath beneath between away".split()
)
WORDS: dict[str, Any] = _listed(yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8")))
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
        """The phrase in a form of `words.yaml`, with what it is true of then."""
        text = form.replace("V", value).replace("N", self.text)
        return Phrase(text, true_of, max(kind, self.kind, key=RANK.index), (*self.program, step))


@dataclass(frozen=True)
class Style:
    """The way in which a flavour speaks: ``articles`` and ``generic``: the chances of an article and of a name such as
    person; ``kinds``: weight of what tells the referent from its like; ``places``: whether words of place are allowed;
    ``clothes``: the chance that a person goes by them alone; ``sentences``: whether it speaks in sentences."""

    kinds: dict[str, int]
    articles: float = 0.12
    generic: float = 0.2
    clothes: float = 0.15
    places: bool = True
    sentences: bool = False


@functools.cache
def forms_of(said: str, places: bool, sentences: bool = True) -> list[str]:
    """The forms of a fact or a relation: without words of place where ``places`` forbids them, and without clauses
    outside of sentences."""
    facts, key = WORDS["facts"], said.split(":")[0]
    forms = WORDS["relations"].get(said) or facts.get(said, []) + (facts.get(key, []) if key != said else [])
    fit = [form for form in forms if places or not LOCATION_WORDS & set(form.split())]
    return [form for form in fit if sentences or not CLAUSE.search(form)]


def _order(form: str) -> int:
    """The place of a form among others: adjectives, what belongs close to the name, the rest, a clause."""
    return 0 if form.endswith("N") else 1 if " of V" in form else 3 if CLAUSE.search(form) else 2


class Speaker:
    """Says things about one scene, by lot. What holds of the scene is worked out once."""

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
        """An expression for each length, in words, that is asked for, or as near to it as a dozen tries come; all true
        of ``target`` alone, none twice. Fewer, or none, where the tries find no more."""
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
        """Words of about so many parts for a thing, which may be true of others too; None where this kind has nothing
        to say of it."""
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
        """The phrase with a relation to one of three other things, or to two, each of which its own words single out;
        None where there is none."""
        rng, others = self.rng, [k for k, seen in enumerate(self.seen) if seen and k != target]
        for other in rng.sample(others, min(len(others), 3)):
            if (target, other) not in self.related:
                found = relations_of(self.scene, target, other)
                self.related[target, other] = [one for one in found if forms_of(one[0], self.style.places)]
            relations = self.related[target, other]
            if not relations:
                continue
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
        """The phrase as it is written, with its articles: nearly all in sentences, few in terse speech."""
        article = "the" if phrase.kind in ("location", "superlative") or self.rng.random() < 0.3 else "a"
        text = f"{article} {phrase.text}" if self.style.sentences else phrase.text
        text = re.sub(r"\[(\w+)\] ", lambda found: f"{found[1]} " * (self.rng.random() < self.style.articles), text)
        text = re.sub(r"\ban?(?= ([aeiou])?)", lambda found: "an" if found[1] else "a", text)
        return replace(phrase, text=text, kind="attribute" if phrase.kind == "clothes" else phrase.kind)


def leading(values: list[float], among: frozenset[int], margin: float, ratio: bool = False) -> int | None:
    """The one of ``among`` with the smallest value, by at least ``margin`` (difference or ratio); None if none
    leads."""
    order = sorted(among, key=lambda k: values[k])
    if len(order) < 2:
        return None
    first, second = values[order[0]], values[order[1]]
    return order[0] if (second > first * margin if ratio else second - first > margin) else None


Test = Callable[[frozenset[int], int], bool]


def places_of(scene: Scene) -> dict[str, Test]:
    """Every place of `words.yaml` with the test that a thing, among those the words so far are true of, has it.

    A place is where a person would say so: a side only in its half, "far" in the outer fifth, "middle" in the central
    third, "top" and "bottom" in their half or clearly beyond all others. Front and back are by nearness alone, where it
    shows, among things that all stand on something.
    """
    x, y = ([centre[axis] for centre in scene.centres] for axis in (0, 1))
    boxes, near = scene.boxes, [thing.near for thing in scene.things]
    feet = [scene.things[thing.on].y if thing.on >= 0 else thing.y for thing in scene.things]

    def first(values: list[float], sign: int, margin: float = SIDE_MARGIN) -> Test:
        signed = [sign * value for value in values]
        return lambda among, k: leading(signed, among, margin) == k

    def both(test: Test, also: Callable[[frozenset[int], int], bool]) -> Test:
        return lambda among, k: also(among, k) and test(among, k)

    def above(among: frozenset[int], k: int) -> bool:
        return y[k] < 0.5 or all(boxes[k][3] < y[other] for other in among if other != k)

    def below(among: frozenset[int], k: int) -> bool:
        return y[k] > 0.5 or all(boxes[k][1] > y[other] for other in among if other != k)

    def evident(among: frozenset[int], k: int) -> bool:
        """Tell if the picture shows which is nearer: by their feet, or by how one hides another that is much
        farther."""
        for one in among - {k}:
            apart = near[k] - near[one]
            lower = (feet[k] - feet[one]) * (1 if apart > 0 else -1) > 0.03
            if not (lower or (abs(apart) > 0.25 and max(gap(boxes[k], boxes[one])) < 0)):
                return False
        return not any(scene.things[one].airborne for one in among)

    def ordered(place: int, of: int = 0, least: int = 3) -> Test:
        def test(among: frozenset[int], k: int) -> bool:
            order = sorted(among, key=lambda one: x[one])
            if len(order) < least or (of and len(order) != of) or order[place] != k:
                return False
            return all(x[after] - x[before] > SIDE_MARGIN for before, after in itertools.pairwise(order))

        return test

    def ahead(edge: int, sign: int) -> Callable[[frozenset[int], int], bool]:
        """Tell if an edge of its box leads, too: of things that all reach out of the picture, none is at the top."""
        return lambda among, k: all(sign * (boxes[one][edge] - boxes[k][edge]) > EDGE_MARGIN for one in among - {k})

    def central(among: frozenset[int], k: int) -> bool:
        apart = {one: (x[one] - 0.5) ** 2 + (y[one] - 0.5) ** 2 for one in among}
        return 1 / 3 < x[k] < 2 / 3 and apart[k] == min(apart.values())

    left, right = first(x, 1), first(x, -1)
    top, bottom = both(both(first(y, 1), above), ahead(1, 1)), both(both(first(y, -1), below), ahead(3, -1))
    tests: dict[str, Test] = {
        "left": both(left, lambda _, k: x[k] < 0.6),
        "right": both(right, lambda _, k: x[k] > 0.4),
        "left half": both(left, lambda _, k: x[k] < 0.45),
        "right half": both(right, lambda _, k: x[k] > 0.55),
        "far left": both(left, lambda _, k: x[k] < 0.2),
        "far right": both(right, lambda _, k: x[k] > 0.8),
        "top": top,
        "bottom": bottom,
        "front": both(first(near, -1, NEAR_MARGIN), evident),
        "back": both(first(near, 1, NEAR_MARGIN), evident),
        "middle": both(ordered(1, 3), central),
    }
    for vertical, up, half in (("top", top, lambda v: v < 0.4), ("bottom", bottom, lambda v: v > 0.6)):
        for side, beside, part in (("left", left, lambda u: u < 0.36), ("right", right, lambda u: u > 0.64)):

            def corner(among: frozenset[int], k: int, up=up, half=half, beside=beside, part=part) -> bool:
                return half(y[k]) and part(x[k]) and up(among, k) and beside(among, k)

            tests[f"{vertical} {side}"] = corner
    for place, word in ((1, "second"), (2, "third")):  # the third of three is the last
        tests[f"{word} left"], tests[f"{word} right"] = (ordered(at, least=place + 2) for at in (place, -1 - place))
    return tests


def sizes_of(scene: Scene) -> dict[str, Test]:
    """Every size of `words.yaml` with its test: by visible area, or by height, of things that are seen nearly whole."""
    heights = [thing.height for thing in scene.things]
    whole = [thing.inside > 0.8 and shown > 0.75 for thing, shown in zip(scene.things, scene.shown, strict=True)]
    upright = [thing.category.aspect < 1 for thing in scene.things]

    def test(values: list[float], sign: int, margin: float, fit: list[bool]) -> Test:
        signed = values if sign > 0 else [1 / max(value, 1e-6) for value in values]
        return lambda among, k: all(fit[one] for one in among) and leading(signed, among, margin, ratio=True) == k

    tall = [a and b for a, b in zip(whole, upright, strict=True)]
    return {
        "big": test(scene.areas, -1, SIZE_MARGIN, whole),
        "small": test(scene.areas, 1, SIZE_MARGIN, whole),
        "tall": test(heights, -1, TALL_MARGIN, tall),
        "short": test(heights, 1, TALL_MARGIN, tall),
    }


def gap(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, float]:
    """Horizontal and vertical gap between two boxes, below zero where they overlap."""
    return (
        max(first[0], second[0]) - min(first[2], second[2]),
        max(first[1], second[1]) - min(first[3], second[3]),
    )


def relations_of(scene: Scene, k: int, anchor: int) -> list[tuple[str, frozenset[int]]]:
    """Relations in which ``k`` clearly stands to ``anchor``, each with all things of which it could be said.

    ``k`` has to meet a strict bound, while every thing within a looser one counts as meant too: an expression is then
    unambiguous for a reader whose idea of "next to" is wider than ours.
    """
    things, boxes, centres = scene.things, scene.boxes, scene.centres
    others = [one for one in range(len(things)) if one != anchor and scene.areas[one] > 0]
    gaps = {one: gap(boxes[one], boxes[anchor]) for one in others}

    def where(test: Callable[[int], bool]) -> frozenset[int]:
        return frozenset(one for one in others if test(one))

    wide, high = gaps[k]
    (x, y), (ax, ay) = centres[k], centres[anchor]
    near, there = things[k].near - things[anchor].near, things[anchor]
    beside = wide > -0.1 and high < 0 and abs(x - ax) > abs(y - ay)
    found: list[tuple[str, frozenset[int]]] = []
    if things[k].on == anchor:
        return [("on", where(lambda one: things[one].on == anchor or (max(gaps[one]) < 0 and centres[one][1] < ay)))]
    alike = things[k].airborne == there.airborne
    if alike and max(wide, high) < CLOSER and (beside or abs(near) < 0.15) and there.on != k:
        found.append(("near", where(lambda one: max(gaps[one]) < CLOSE)))
        if max(wide, high) < 0 and scene.touch(k, anchor):
            found.append(("touching", where(lambda one: max(gaps[one]) < 0.04)))
    if beside and max(wide, high) < CLOSE:
        side, sign = ("left of", 1) if x < ax else ("right of", -1)
        found.append((side, where(lambda one: sign * (ax - centres[one][0]) > 0)))
        if (other := between(scene, k, anchor)) >= 0:
            low, most = sorted((ax, centres[other][0]))
            found.append(("between", where(lambda one: one != other and low < centres[one][0] < most)))
    grounded = not (things[k].airborne or there.airborne)
    if grounded and abs(near) > 0.14 and wide < -0.03 and high < 0.03 and there.on < 0 and things[k].on < 0:
        if near < 0:
            found.append(("behind", where(lambda one: things[one].near < there.near)))
        else:
            found.append(("in front of", where(lambda one: things[one].near > there.near)))
    if wide < -0.03 and high > -0.04 and abs(y - ay) < 0.6:
        if y < ay:
            found.append(("above", where(lambda one: centres[one][1] < ay)))
        else:
            found.append(("below", where(lambda one: centres[one][1] > ay)))
    return found


def between(scene: Scene, k: int, anchor: int) -> int:
    """The thing on the other side of ``k``, at about the same height, nearest to it; -1 when there is none."""
    x = scene.centres[k][0]
    sign = 1 if scene.centres[anchor][0] < x else -1
    found = [
        one
        for one in range(len(scene.things))
        if one not in (k, anchor)
        and scene.areas[one] > 0.008
        and sign * (scene.centres[one][0] - x) > SIDE_MARGIN
        and max(gap(scene.boxes[one], scene.boxes[k])) < CLOSE
        and gap(scene.boxes[one], scene.boxes[k])[1] < 0
    ]
    return min(found, key=lambda one: abs(scene.centres[one][0] - x), default=-1)


def stuff_expressions(rng: Random, region: Stuff, number: int, lengths: list[int]) -> list[Phrase]:
    """Names for a region of background, of that ``number``, in about so many words; there is one region of
    each name."""
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
    texts: list[str] = [*COLOURS, *STUFF, "dark light the a an"]
    for category in CATEGORIES:
        texts += category.nouns

    def collect(node: Any) -> None:
        if isinstance(node, str):
            texts.append(re.sub(r"[\[\]]|\b[NVA]\b", " ", node))
        else:
            for part in node.values() if isinstance(node, dict) else node:
                collect(part)

    collect({key: node for key, node in WORDS.items() if key != "alike"})
    return sorted({word for text in texts for word in text.split()})
