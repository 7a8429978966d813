"""Expressions about a scene, built together with what they mean: each carries the set of things it is true of, and
the program, step by step, that finds it.

An expression is only ever used when its meaning, evaluated on the scene, is exactly the one referent. Comparisons keep
a margin, and what a reader might take to be true counts as true of the other things, so that a person looking at the
picture agrees. The words are in `words.yaml`.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from .facts import facts_of
from .scene import STUFF, Scene
from .things import CATEGORIES, COLOURS


def _listed(node: Any) -> Any:
    """The words as the file has them, its lines as lists."""
    return {key: _listed(part) for key, part in node.items()} if isinstance(node, dict) else node.split(", ")


KINDS = ("category", "attribute", "location", "superlative", "relation", "stuff")
SIDE_MARGIN = 0.07  # share of the picture by which the leftmost, topmost ... thing leads
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
RANK = {kind: k for k, kind in enumerate(("category", "attribute", "superlative", "location", "relation"))}


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


@dataclass(frozen=True)
class Style:
    """How a flavour speaks: ``articles`` and ``generic``: the chances of an article and of a name such as person;
    ``kinds``: weight of what tells the referent from its like; ``places``: whether words of place are allowed."""

    kinds: dict[str, int]
    articles: float = 0.12
    generic: float = 0.2
    places: bool = True
    sentences: bool = False


class Speaker:
    """Says things about one scene, by lot. What holds of the scene is worked out once."""

    def __init__(self, scene: Scene, rng: Random, style: Style):
        self.scene, self.rng, self.style = scene, rng, style
        self.facts = [facts_of(scene, k) for k in range(len(scene.things))]
        self.leading = places_of(scene) | sizes_of(scene)

    def describe(self, target: int, kind: str, parts: int) -> Phrase | None:
        """One expression of about so many parts for a thing; it may be true of others too, and None where this kind
        has nothing to say of it."""
        rng = self.rng
        compared = kind in ("location", "superlative")
        phrase = self._named(target, max(0, parts - compared))
        if kind != "location" and not phrase.program[0][1].startswith("noun:"):
            return phrase  # clothes are neither big nor next to anything
        if compared:
            table = WORDS["places"] if kind == "location" else WORDS["sizes"]
            options = [key for key in table if self.leading[key](phrase.true_of, target)]
            if not options:
                return None
            key = rng.choice(options)
            return self._said(phrase, rng.choice(table[key]), frozenset([target]), kind, [kind, key])
        if kind == "relation":
            return self._related(target, phrase, parts)
        return phrase

    def _named(self, target: int, parts: int) -> Phrase:
        """A name of the thing with up to ``parts`` facts."""
        rng, own = self.rng, self.facts[target]
        said = [fact for fact, sure in own.items() if sure and not fact.startswith("noun:")]
        worn = [fact for fact in said if fact.split(":")[0] in WORDS["garments"]]
        if worn and parts and not self.style.sentences and rng.random() < 0.15:
            fact = rng.choice(worn)
            form = rng.choice(WORDS["garments"][fact.split(":")[0]])
            text = self._filled(form, value=_spoken(rng, fact.partition(":")[2]))
            return Phrase(text, self._true_of(fact, target), "attribute", (["fact", fact],))
        nouns = self.scene.things[target].category.nouns
        noun = nouns[-1] if rng.random() < self.style.generic else rng.choice(nouns)
        phrase = Phrase(noun, self._true_of(f"noun:{noun}", target), "category", (["fact", f"noun:{noun}"],))
        rng.shuffle(said)
        for fact in said[:parts]:
            key, _, value = fact.partition(":")
            forms = WORDS["facts"].get(fact, []) + WORDS["facts"].get(key, [])
            form = rng.choice(forms) if forms else ""
            if not form or not self._fits(form, phrase):
                continue
            true_of = phrase.true_of & self._true_of(fact, target)
            phrase = self._said(phrase, form, true_of, "attribute", ["fact", fact], _spoken(rng, value))
        return phrase

    def _fits(self, form: str, phrase: Phrase) -> bool:
        """Whether a form may follow what is said already: no word of place where there are to be none, and one "who"
        or "that" at most, in sentences only."""
        if not self.style.places and LOCATION_WORDS & set(form.split()):
            return False
        clause = {"who", "that", "which", "whose", "you"}
        return not (clause & set(form.split()) and (clause & set(phrase.text.split()) or not self.style.sentences))

    def _related(self, target: int, phrase: Phrase, parts: int) -> Phrase | None:
        rng, others = self.rng, [k for k in range(len(self.scene.things)) if k != target and self._seen(k)]
        rng.shuffle(others)
        for other in others[:3]:
            options = relations_of(self.scene, target, other)
            if not self.style.places:
                options = [option for option in options if option[0] in ("near", "touching", "on")]
            anchor = self._anchor(other, target, 1 if parts < 4 else 2)
            if not options or anchor is None or not phrase.true_of - {other}:
                continue
            relation, true_of = rng.choice(options)
            form = rng.choice(WORDS["relations"][relation])
            if not self.style.places and LOCATION_WORDS & set(form.split()):
                continue
            anchors = [anchor]
            if relation == "between":
                second = self._anchor(between(self.scene, target, other), target, 1)
                if second is None:
                    continue
                anchors.append(second)
            if self.style.sentences:
                animate = self.scene.things[target].category.group in ("person", "animal")
                plain = form.split()[1] not in ("with", "standing", "sitting", "touching", "covering", "blocking")
                link = rng.choice(["", *WORDS["links"][not animate :]])
                if plain and not {"that", "which", "who"} & set(phrase.text.split()):
                    form = form.replace("N", f"N {link}".strip(), 1)
            for one in anchors:
                form = form.replace("A", f"[the] {one.text}", 1)
            programs = [list(one.program) for one in anchors]
            return self._said(phrase, form, phrase.true_of & true_of, "relation", ["relation", relation, *programs])
        return None

    def _anchor(self, k: int, target: int, parts: int) -> Phrase | None:
        """A name that singles out another thing, which is seen well; None when three tries find none."""
        for attempt in range(3):
            phrase = self._named(k, min(attempt, parts))
            if phrase.true_of == {k} and "cut" not in phrase.text and self._seen(k):
                return phrase
        return None

    def _seen(self, k: int) -> bool:
        return self.scene.shown[k] > 0.5 and self.scene.areas[k] > 0.008

    def _true_of(self, fact: str, target: int) -> frozenset[int]:
        return frozenset(k for k, facts in enumerate(self.facts) if fact in facts and (k == target or self._visible(k)))

    def _visible(self, k: int) -> bool:
        return self.scene.areas[k] > 0

    def _said(
        self, phrase: Phrase, form: str, true_of: frozenset[int], kind: str, step: Step, value: str = ""
    ) -> Phrase:
        higher = kind if RANK[kind] >= RANK[phrase.kind] else phrase.kind
        return Phrase(self._filled(form, phrase.text, value), true_of, higher, (*phrase.program, step))

    def _filled(self, form: str, name: str = "", value: str = "") -> str:
        """A form with its name, its value, and now and then its articles."""
        words = []
        for word in form.split():
            if word.startswith("["):
                words += [word[1:-1]] if self.rng.random() < self.style.articles else []
            else:
                words.append({"N": name, "V": value}.get(word, word))
        return " ".join(words)

    def finished(self, phrase: Phrase) -> Phrase:
        """The phrase as it is written: an article before it in sentences, and a or an as the next word asks."""
        text = phrase.text
        if self.style.sentences:
            definite = phrase.kind in ("location", "superlative") or self.rng.random() < 0.3
            text = f"{'the' if definite else 'a'} {text}"
        elif self.rng.random() < self.style.articles / 2:
            text = f"the {text}"
        text = re.sub(r"\ban? (?=[aeiou])", "an ", text)
        return Phrase(re.sub(r"\ban (?=[^aeiou])", "a ", text), phrase.true_of, phrase.kind, phrase.program)


def _spoken(rng: Random, value: str) -> str:
    """A value in one of its spellings."""
    return " ".join(rng.choice(WORDS["values"].get(word, [word])) for word in value.split())


def leading(values: list[float], among: frozenset[int], margin: float, ratio: bool = False) -> int | None:
    """Which of ``among`` has the smallest value, by at least ``margin`` (difference or ratio); None if none leads."""
    order = sorted(among, key=lambda k: values[k])
    if len(order) < 2:
        return None
    first, second = values[order[0]], values[order[1]]
    return order[0] if (second > first * margin if ratio else second - first > margin) else None


Test = Callable[[frozenset[int], int], bool]


def places_of(scene: Scene) -> dict[str, Test]:
    """Every place of `words.yaml` with the test that a thing, among those the words so far are true of, has it.

    A place is where a person would say so: a side only in its half, "far" in the outer fifth, "middle" in the central
    third, "top" and "bottom" in their half or clearly beyond all others. Front and back are by nearness alone, among
    things that all stand on something.
    """
    x, y = ([centre[axis] for centre in scene.centres] for axis in (0, 1))
    boxes, near = scene.boxes, [thing.near for thing in scene.things]

    def first(values: list[float], sign: int, margin: float = SIDE_MARGIN) -> Test:
        signed = [sign * value for value in values]
        return lambda among, k: leading(signed, among, margin) == k

    def both(test: Test, also: Callable[[frozenset[int], int], bool]) -> Test:
        return lambda among, k: also(among, k) and test(among, k)

    def above(among: frozenset[int], k: int) -> bool:
        return y[k] < 0.5 or all(boxes[k][3] < y[other] for other in among if other != k)

    def below(among: frozenset[int], k: int) -> bool:
        return y[k] > 0.5 or all(boxes[k][1] > y[other] for other in among if other != k)

    def standing(among: frozenset[int], k: int) -> bool:
        return not any(scene.things[one].airborne for one in among)

    def ordered(place: int, of: int = 0) -> Test:
        def test(among: frozenset[int], k: int) -> bool:
            order = sorted(among, key=lambda one: x[one])
            if len(order) < 3 or (of and len(order) != of) or order[place] != k:
                return False
            return all(x[after] - x[before] > SIDE_MARGIN for before, after in itertools.pairwise(order))

        return test

    left, right, top, bottom = first(x, 1), first(x, -1), both(first(y, 1), above), both(first(y, -1), below)
    tests: dict[str, Test] = {
        "left": both(left, lambda _, k: x[k] < 0.6),
        "right": both(right, lambda _, k: x[k] > 0.4),
        "left half": both(left, lambda _, k: x[k] < 0.45),
        "right half": both(right, lambda _, k: x[k] > 0.55),
        "far left": both(left, lambda _, k: x[k] < 0.2),
        "far right": both(right, lambda _, k: x[k] > 0.8),
        "top": top,
        "bottom": bottom,
        "front": both(first(near, -1, NEAR_MARGIN), standing),
        "back": both(first(near, 1, NEAR_MARGIN), standing),
        "middle": both(ordered(1, 3), lambda _, k: 1 / 3 < x[k] < 2 / 3),
    }
    for vertical, up, half in (("top", top, lambda v: v < 0.4), ("bottom", bottom, lambda v: v > 0.6)):
        for side, beside, part in (("left", left, lambda u: u < 0.36), ("right", right, lambda u: u > 0.64)):

            def corner(among: frozenset[int], k: int, up=up, half=half, beside=beside, part=part) -> bool:
                return half(y[k]) and part(x[k]) and up(among, k) and beside(among, k)

            tests[f"{vertical} {side}"] = corner
    for place, word in ((1, "second"), (2, "third")):
        tests[f"{word} left"], tests[f"{word} right"] = ordered(place), ordered(-1 - place)
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
    if max(wide, high) < CLOSER and (beside or abs(near) < 0.15) and there.on != k:
        found.append(("near", where(lambda one: max(gaps[one]) < CLOSE)))
        if max(wide, high) < 0:
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


def expressions(scene: Scene, target: int, rng: Random, style: Style, lengths: list[int]) -> list[Phrase]:
    """An expression for each length, in words, that is asked for, or as near to it as a few dozen tries come; all true
    of ``target`` alone, none twice. Fewer, or none, where the tries find no more."""
    speaker, found = Speaker(scene, rng, style), {}
    kinds, weights = list(style.kinds), list(style.kinds.values())
    for length in lengths:
        best: Phrase | None = None
        for _ in range(24):
            kind = rng.choices(kinds, weights)[0]
            parts = max(0, round((length - rng.choice((1, 2, 3)) - 2 * style.sentences) / 3) + (kind != "relation"))
            phrase = speaker.describe(target, kind, parts)
            if phrase is None or phrase.true_of != {target}:
                continue
            phrase = speaker.finished(phrase)
            if phrase.text not in found and (best is None or abs(phrase.words - length) < abs(best.words - length)):
                best = phrase
            if best is not None and best.words == length:
                break
        if best is not None:
            found[best.text] = best
    return list(found.values())


def stuff_expressions(scene: Scene, stuff: int, rng: Random, style: Style, lengths: list[int]) -> list[Phrase]:
    """The same for a region of background; there is one region of each name."""
    region, found = scene.stuff[stuff], {}
    for length in lengths:
        options = []
        for _ in range(6):
            name, form = rng.choice(WORDS["stuff"][region.name]), rng.choice(WORDS["stuff_forms"])
            text = form.replace("N", name).replace("V", region.colour).replace("[the] ", "the ")
            options.append(text)
        text = min(options, key=lambda text: abs(len(text.split()) - length))
        found[text] = Phrase(text, frozenset([stuff]), "stuff", (["stuff", region.name],))
    return list(found.values())


def vocabulary() -> list[str]:
    """Every word that any flavour's expressions can contain, lower case, sorted."""
    texts: list[str] = [*COLOURS, *STUFF, "dark light the a an brown"]
    for category in CATEGORIES:
        texts += category.nouns

    def collect(node: Any) -> None:
        if isinstance(node, str):
            texts.append(re.sub(r"[\[\]]|\b[NVA]\b", " ", node))
        else:
            for part in node.values() if isinstance(node, dict) else node:
                collect(part)

    for node in WORDS.values():
        collect(node)
    return sorted({word for text in texts for word in text.split()})
