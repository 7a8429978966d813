"""The facts about each thing of a scene, which expressions may state."""

from .scene import Scene

Facts = dict[str, bool]  # True: may be said; False: is not said, but a reader might take it to be true
CUT, HIDDEN = 0.75, 0.78  # a thing is cut off, hidden, when less than this share of it is inside, is shown
UNTOUCHED = 0.97  # and a reader might say so when less than this is


def facts_of(scene: Scene, k: int) -> Facts:
    """The facts of thing ``k``, named as the keys of `words.yaml`, "key:value" where they have one."""
    thing = scene.things[k]
    pose, category, person = thing.pose, thing.category, thing.category.group == "person"
    said, may = [f"noun:{noun}" for noun in category.nouns], [f"noun:{noun}" for noun in category.loosely]
    if person:
        garments = {"dress", "jacket"} & pose.extras or {"shirt"}
        said += [f"{garment}:{thing.colour}" for garment in garments] + [f"upper:{thing.colour}"]
        may += [f"{garment}:{thing.colour}" for garment in ("shirt", "jacket")]
        if "jacket" in pose.extras:  # it is open, over something white
            may += ["shirt:white", "upper:white"]
        if "dress" not in pose.extras:
            said += [f"trousers:{pose.trousers}"]
            may += [f"upper:{pose.trousers}"]
        if pose.hat:
            said += ["hatted", f"hat:{pose.hat}"]
            may += [f"upper:{pose.hat}"]
        (may if pose.hat and "woman" not in category.nouns else said).append(f"hair:{pose.hair}")
        said += ["standing"] if "walking" not in pose.extras else []
        may += ["standing", "walking"] + (["hair:black"] if pose.hair == "brown" else [])
        said += ["bareheaded"] * (not pose.hat) + ["child"] * ("child" in category.nouns)
    else:
        said.append(f"color:{thing.colour}")
        if thing.shade:
            said.append(f"shade:{thing.shade} {thing.colour}")
    if thing.pattern != "plain":
        said.append(f"{'worn' if person else 'pattern'}:{thing.pattern}")
    elif any(other.category is category and other.pattern != "plain" for other in scene.things) and not person:
        said.append("plain")
    if category.name == "zebra":
        said.append("pattern:striped")
    if category.group in ("animal", "vehicle") and "sideless" not in category.traits:
        (said if thing.inside > CUT else may).append(f"facing:{'left' if thing.flip else 'right'}")
    said += sorted(pose.extras - {"dress", "jacket"})
    if thing.airborne:
        said.append("air")
    elif thing.on < 0:
        said.append(f"ground:{'water' if 'afloat' in category.traits else scene.place.ground}")
    for fact, share, least in (("cut", thing.inside, CUT), ("hidden", scene.shown[k], HIDDEN)):
        if share < UNTOUCHED:
            (said if share < least else may).append(fact)
    return dict.fromkeys(may, False) | dict.fromkeys(said, True)
