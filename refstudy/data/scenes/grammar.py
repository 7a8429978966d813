"""Expressions about a scene, built together with what they mean: each phrase carries the set of things it is true of.

A phrase is only ever used when its meaning, evaluated on the scene, is exactly the one referent. Comparisons keep a
margin, so that a person looking at the picture agrees.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .scene import STUFF, Scene
from .things import CATEGORIES, COLOURS

KINDS = ("category", "attribute", "location", "superlative", "relation", "stuff")
SIDE_MARGIN = 0.07  # share of the picture by which the leftmost, topmost ... thing leads
SIZE_MARGIN = 1.45  # ratio of areas by which the biggest, smallest thing leads
NEAR = 0.34  # share of the picture within which a thing is next to another
LOCATION_WORDS = frozenset(  # say where something is: counted in real and made expressions; RefScenes+ has none
    "left right middle center top bottom front back closest farthest far second third behind side corner near".split()
)
ORDINALS = ("second", "third")


@dataclass(frozen=True)
class Phrase:
    """Words and their meaning: ``true_of`` holds the numbers (from 0) of the things the words are true of."""

    text: str
    true_of: frozenset[int]
    kind: str

    @property
    def words(self) -> int:
        return len(self.text.split())


def noun_phrases(scene: Scene, target: int) -> list[Phrase]:
    """What the thing ``target`` may be called, alone or with its colour or pattern: true of it, perhaps of others."""
    thing = scene.things[target]
    phrases = []
    for noun in thing.category.nouns:
        named = frozenset(k for k, other in enumerate(scene.things) if noun in other.category.nouns)
        coloured = frozenset(k for k in named if scene.things[k].colour == thing.colour)
        phrases.append(Phrase(noun, named, "category"))
        if thing.category.group == "person":
            clothing = "dress" if thing.category.name in ("woman", "girl") else "shirt"
            dressed = frozenset(k for k in coloured if clothing in _clothing(scene, k))
            phrases.append(Phrase(f"{noun} in {thing.colour}", coloured, "attribute"))
            phrases.append(Phrase(f"{noun} in {thing.colour} {clothing}", dressed, "attribute"))
            phrases.append(Phrase(f"{noun} wearing {thing.colour}", coloured, "attribute"))
            everyone = frozenset(k for k in range(len(scene.things)) if clothing in _clothing(scene, k))
            worn = frozenset(k for k in everyone if scene.things[k].colour == thing.colour)
            phrases.append(Phrase(f"{thing.colour} {clothing}", worn, "attribute"))
        else:
            phrases.append(Phrase(f"{thing.colour} {noun}", coloured, "attribute"))
        if thing.pattern != "plain":
            marked = frozenset(k for k in named if scene.things[k].pattern == thing.pattern)
            both = marked & coloured
            if thing.category.group == "person":
                phrases.append(
                    Phrase(f"{noun} in {thing.pattern} {clothing}", marked & _wearing(scene, clothing), "attribute")
                )
                phrases.append(
                    Phrase(f"{noun} in {thing.pattern} {thing.colour} {clothing}", both & dressed, "attribute")
                )
            else:
                phrases.append(Phrase(f"{thing.pattern} {noun}", marked, "attribute"))
                phrases.append(Phrase(f"{thing.pattern} {thing.colour} {noun}", both, "attribute"))
    return phrases


def _clothing(scene: Scene, k: int) -> str:
    name = scene.things[k].category.name
    return {"man": "shirt", "boy": "shirt", "woman": "dress", "girl": "dress"}.get(name, "")


def _wearing(scene: Scene, clothing: str) -> frozenset[int]:
    return frozenset(k for k in range(len(scene.things)) if _clothing(scene, k) == clothing)


def leading(values: np.ndarray, among: frozenset[int], margin: float, ratio: bool = False) -> int | None:
    """Which of ``among`` has the smallest value, by at least ``margin`` (difference or ratio); None if none leads."""
    order = sorted(among, key=lambda k: values[k])
    if len(order) < 2:
        return None
    first, second = values[order[0]], values[order[1]]
    return order[0] if (second > first * margin if ratio else second - first > margin) else None


def located(scene: Scene, phrase: Phrase) -> Iterator[Phrase]:
    """The phrase with a place in the picture: left, second from the right, in front ... of the things it is true of."""
    among, noun = phrase.true_of, phrase.text
    if len(among) < 2:
        return
    x, y = scene.centres[:, 0], scene.centres[:, 1]
    feet = np.array([thing.y for thing in scene.things])
    sides = (
        (
            x,
            1,
            (
                "left {}",
                "{} on left",
                "{} on the left",
                "left side {}",
                "{} on the left side",
                "leftmost {}",
                "{} on far left",
            ),
        ),
        (
            x,
            -1,
            (
                "right {}",
                "{} on right",
                "{} on the right",
                "right side {}",
                "{} on the right side",
                "rightmost {}",
                "{} on far right",
            ),
        ),
        (y, 1, ("top {}", "{} at the top", "{} on top")),
        (y, -1, ("bottom {}", "{} at the bottom", "{} on bottom")),
        (feet, -1, ("front {}", "{} in front", "closest {}", "{} closest to us")),
        (feet, 1, ("back {}", "{} in back", "{} in the back", "{} farthest away")),
    )
    for values, sign, forms in sides:
        first = leading(sign * values, among, SIDE_MARGIN)
        if first is not None:
            for form in forms:
                yield Phrase(form.format(noun), frozenset([first]), "location")
    order = sorted(among, key=lambda k: x[k])
    if len(order) >= 3 and min(np.diff(x[order])) > SIDE_MARGIN:
        if len(order) == 3:
            for form in ("middle {}", "{} in middle", "{} in the middle", "center {}"):
                yield Phrase(form.format(noun), frozenset([order[1]]), "location")
        for place, word in enumerate(ORDINALS[: len(order) - 2], start=1):
            for end, index in (("left", place), ("right", -1 - place)):
                for form in (f"{word} {{}} from {end}", f"{word} {{}} from the {end}"):
                    yield Phrase(form.format(noun), frozenset([order[index]]), "location")


def sized(scene: Scene, phrase: Phrase) -> Iterator[Phrase]:
    """The phrase with a size: the biggest or smallest, by visible area, of the things it is true of."""
    if len(phrase.true_of) < 2:
        return
    for values, words in ((-1, ("big", "biggest", "largest", "larger")), (1, ("small", "smallest", "little", "tiny"))):
        sizes = scene.areas if values == 1 else 1 / np.maximum(scene.areas, 1e-6)
        first = leading(sizes, phrase.true_of, SIZE_MARGIN, ratio=True)
        if first is not None and min(scene.shown[k] for k in phrase.true_of) > 0.75:
            for word in words:
                yield Phrase(f"{word} {phrase.text}", frozenset([first]), "superlative")


def relation_words(scene: Scene, first: int, anchor: int) -> Iterator[tuple[str, frozenset[int]]]:
    """Relations in which ``first`` clearly stands to ``anchor``, each with all things of which it could be said.

    ``first`` has to meet a strict bound, while every thing within a looser one counts as meant too: an expression is
    then unambiguous for a reader whose idea of "next to" is wider than ours.
    """
    gap = scene.centres - scene.centres[anchor]
    distance = np.hypot(gap[:, 0], gap[:, 1])
    depth = np.array([thing.y for thing in scene.things]) - scene.things[anchor].y  # below zero: farther away

    def where(condition: np.ndarray) -> frozenset[int]:
        return frozenset(k for k in np.flatnonzero(condition).tolist() if k != anchor)

    if distance[first] > NEAR:
        return
    near = where(distance < 1.35 * NEAR)
    sideways = abs(gap[first, 0]) > 0.5 * abs(gap[first, 1])
    if sideways:
        yield from ((words, near) for words in ("next to", "beside", "by", "near"))
    if sideways and gap[first, 0] < -SIDE_MARGIN:
        yield from ((words, where(gap[:, 0] < 0)) for words in ("to the left of", "left of"))
    if sideways and gap[first, 0] > SIDE_MARGIN:
        yield from ((words, where(gap[:, 0] > 0)) for words in ("to the right of", "right of"))
    if depth[first] < -0.08:
        yield "behind", where(depth < 0)
    if depth[first] > 0.08:
        yield "in front of", where(depth > 0)


def related(scene: Scene, target: int, phrase: Phrase, anchors: list[Phrase]) -> Iterator[Phrase]:
    """The phrase, where it does not suffice alone, with a relation to something that its own words single out."""
    if len(phrase.true_of) < 2:
        return
    for anchor in anchors:
        (other,) = anchor.true_of
        for words, true_of in relation_words(scene, target, other):
            both = phrase.true_of & true_of
            yield Phrase(f"{phrase.text} {words} {anchor.text}", both, "relation")
            yield Phrase(f"{phrase.text} {words} the {anchor.text}", both, "relation")


def short_expressions(scene: Scene, target: int, location: bool) -> list[Phrase]:
    """Expressions true of ``target`` alone, in the terse style of RefCOCO (with ``location``) or RefCOCO+ (without)."""
    names = noun_phrases(scene, target)
    phrases = list(names)
    for name in names:
        phrases += sized(scene, name)
        if location:
            phrases += located(scene, name)
    if location:
        anchors = _single_names(scene, target)
        for name in names:
            phrases += related(scene, target, name, anchors)
    else:
        phrases += [Phrase(f"the {phrase.text}", phrase.true_of, phrase.kind) for phrase in phrases]
    return _only(phrases, target)


def long_expressions(scene: Scene, target: int) -> list[Phrase]:
    """Expressions true of ``target`` alone, in the full sentences of RefCOCOg."""
    names = [
        phrase
        for phrase in noun_phrases(scene, target)
        if phrase.text.split()[-1] not in ("person", "animal", "vehicle")
    ]
    anchors = [Phrase(_article(phrase.text), phrase.true_of, phrase.kind) for phrase in _single_names(scene, target)]
    place = _stuff_below(scene, target)
    phrases: list[Phrase] = []
    for name in names:
        thing = Phrase(_article(name.text), name.true_of, name.kind)
        doing = "standing" if scene.things[target].category.group in ("person", "animal") else "that is"
        phrases += [thing, Phrase(f"{thing.text} {doing} on the {place}", thing.true_of, thing.kind)]
        for phrase in (*sized(scene, name), *located(scene, name)):
            phrases.append(Phrase(_article(phrase.text, "the"), phrase.true_of, phrase.kind))
            phrases.append(
                Phrase(f"{_article(phrase.text, 'the')} {doing} on the {place}", phrase.true_of, phrase.kind)
            )
        for anchor in anchors:
            (other,) = anchor.true_of
            for words, true_of in relation_words(scene, target, other):
                both = name.true_of & true_of
                for link in (f"{doing} ", "that is ", "which is ", ""):
                    phrases.append(Phrase(f"{thing.text} {link}{words} {anchor.text}", both, "relation"))
                phrases.append(Phrase(f"{thing.text} {doing} on the {place} {words} {anchor.text}", both, "relation"))
    return _only(phrases, target)


def stuff_expressions(scene: Scene, stuff: int) -> list[Phrase]:
    """What a region of background may be called; there is one region of each name."""
    region = scene.stuff[stuff]
    forms = [region.name, f"the {region.name}", f"{region.colour} {region.name}", f"all the {region.name}"]
    if region.name in ("sky", "wall"):
        forms += [
            f"{region.name} at the top",
            f"{region.colour} {region.name} at the top",
            f"{region.name} in the back",
        ]
    if region.name in ("grass", "road", "sand", "floor"):
        forms += [
            f"{region.name} at the bottom",
            f"{region.colour} {region.name} at the bottom",
            f"{region.name} in front",
        ]
    forms.append(
        f"the {region.colour} {region.name} behind everything"
        if region.name in ("sky", "wall")
        else f"the {region.colour} {region.name}"
    )
    return [Phrase(form, frozenset([stuff]), "stuff") for form in forms]


def _only(phrases: list[Phrase], target: int) -> list[Phrase]:
    return [phrase for phrase in phrases if phrase.true_of == frozenset([target])]


def _single_names(scene: Scene, target: int) -> list[Phrase]:
    """For every other thing that can be seen well, its shortest names that are true of it alone."""
    names: list[Phrase] = []
    for k in range(len(scene.things)):
        if k != target and scene.shown[k] > 0.5 and scene.areas[k] > 0.008:
            single = sorted(_only(noun_phrases(scene, k), k), key=lambda phrase: (phrase.words, phrase.text))
            names += single[:3]
    return names


def _stuff_below(scene: Scene, target: int) -> str:
    if scene.things[target].category.afloat:
        return "water"
    return {"park": "grass", "farm": "grass", "street": "road", "beach": "sand", "room": "floor", "table": "table"}[
        scene.place.name
    ]


def _article(text: str, article: str = "") -> str:
    """``text`` behind its article: the given one, or a/an (no word of ours begins with a sounded u)."""
    return f"{article or ('an' if text[0] in 'aeou' else 'a')} {text}"


def vocabulary() -> list[str]:
    """Every word that any flavour's expressions can contain, lower case, sorted."""
    words = set(
        "a an the in on at of to by from us away next beside near left right side far leftmost rightmost "
        "top bottom front closest back farthest middle center second third big biggest largest larger "
        "small smallest little tiny behind wearing shirt dress striped spotted standing that is which all "
        "table everything".split()
    )
    for category in CATEGORIES:
        words.update(category.nouns)
    for name in STUFF:
        words.update(name.split())
    words.update(COLOURS)
    return sorted(words)
