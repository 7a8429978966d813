"""Memory of an evaluation: weights, features and maps, for the largest batch of an evaluation of RefCOCO.

The bytes of all tensors that are alive at once, counted on shapes ("meta" tensors), so that no machine has a say in it:
16 images with 163 expressions, at most so many of them together, in fp32. A training holds gradients and AdamW's two
moments as well when it validates: ``in_training_GB`` adds three times the weights.
"""

from live_bytes import evaluation_memory
from measure import write

from refstudy.study.load import load_study
from refstudy.training.evaluation import EXPRESSIONS_AT_ONCE, IMAGES_AT_ONCE

LARGEST = 163  # expressions of 16 images of RefCOCO val that follow each other; 115 in the mean
CEILING = 24  # GB
MODELS = (
    ("refcoco", "slvit", 480),
    ("refcoco", "slvit", 512),
    ("refcoco", "s2rm_casg", 512),
    ("refcoco_swinb", "s2rm_casg", 512),
    ("refcoco_swinb", "lavt", 480),
)


def main() -> None:
    study, rows = load_study(), []
    for profile, variant, side in MODELS:
        config = study.run_config(profile, variant, 0).model.model_copy(update={"image_size": side})
        for together in (LARGEST, EXPRESSIONS_AT_ONCE):
            weights, made = evaluation_memory(config, IMAGES_AT_ONCE, LARGEST, together)
            row = {"what": f"{variant} of {profile} at {side}", "expressions_together": together}
            row |= {"GB": round((weights + made) / 1e9, 2), "in_training_GB": round((4 * weights + made) / 1e9, 2)}
            rows.append(row | {"ceiling_GB": CEILING if together == EXPRESSIONS_AT_ONCE else ""})
    write("evaluation_memory", rows)


if __name__ == "__main__":
    main()
