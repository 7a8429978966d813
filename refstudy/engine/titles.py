"""The titles of tables and figures, as questions where they answer one; those of the papers with their numbers."""

from refstudy.analysis.tables import PAPER_TABLES

# The papers' figures: the name under which each is saved -> its title.
PAPER_FIGURES = {
    "s2rm_fig1": "S²RM, Fig. 1: architecture",
    "s2rm_fig2": "S²RM, Fig. 2: spatial semantic recurrent coparsing",
    "s2rm_fig3": "S²RM, Fig. 3: a stage of CASG",
    "s2rm_fig4": "S²RM, Fig. 4: hard places and borders",
    "s2rm_fig5": "S²RM, Fig. 5: masks of the combinations",
    "s2rm_fig6": "S²RM, Fig. 6: failures",
    "slvit_fig1": "SLViT, Fig. 1: where words and picture meet",
    "slvit_fig2": "SLViT, Fig. 2: hard places and borders of several models",
    "slvit_fig3": "SLViT, Fig. 3: architecture",
    "slvit_fig4": "SLViT, Fig. 4: uncertain region cross-scale enhancement",
    "slvit_fig5a": "SLViT, Fig. 5(a): the number of regions",
    "slvit_fig5b": "SLViT, Fig. 5(b): accuracy against cost",
    "slvit_fig6": "SLViT, Fig. 6: feature maps of the stages",
}
FIRST_FIGURES = ("seed_kinds", "s2rm_ablations", "paper_audit")  # the report opens with the first one that there is
TITLES = (
    PAPER_TABLES
    | PAPER_FIGURES
    | {
        "all_runs": "Which variants were trained, and what do they reach?",
        "absent_referents": "What does the model do when nothing fits the expression?",
        "ceilings": "How good can a mask be that is drawn on a coarse grid?",
        "claims": "The papers' claims and their verdicts",
        "cost_growth": "How do time and memory grow?",
        "cost_per_expression": "What does one more expression cost?",
        "costs": "What does each model cost at its paper's size?",
        "data_areas": "How large are referents, in RefScenes and in the benchmarks?",
        "data_census": "What is in the drawn scenes?",
        "data_gallery_referscenes": "Scenes of ReferScenes, after ReferIt",
        "data_gallery_refscenes": "Scenes of RefScenes, after RefCOCO",
        "data_gallery_refscenesg": "Scenes of RefScenesG, after RefCOCOg",
        "data_gallery_refscenesplus": "Scenes of RefScenes+, after RefCOCO+",
        "data_lengths": "How long are expressions, in RefScenes and in the benchmarks?",
        "data_statistics": "Are the drawn data like the benchmarks?",
        "explanation_curves": "Do longer training or other parts explain the surprises?",
        "explanations": "Suspected causes put to the test",
        "failure_absent": "What is marked when nothing fits the expression?",
        "failure_causes": "Why does a mask miss?",
        "failure_reliability": "Does the model know when it is wrong?",
        "kinds": "Which kinds of expression are hard?",
        "kinds_by_run": "Which kinds of expression does each training learn?",
        "length_buckets": "Are long expressions harder, printed and measured?",
        "length_curve": "How does accuracy change with every word?",
        "length_kinds": "Which kinds of expression are hard?",
        "paper_audit": "Which claims of the papers disagree with their own tables?",
        "paper_cross_check": "Which scores do the two papers print differently?",
        "printed_costs": "Do counted costs meet the printed ones?",
        "reliability": "How good are masks of a given confidence?",
        "s2rm_ablation_curves": "How does each variant learn?",
        "s2rm_ablation_precision": "Do the parts make masks finer, or find more things?",
        "s2rm_ablations": "Do the parts of S²RM and CASG help, printed and measured?",
        "s2rm_cell_maps": "What does one cell compare itself with?",
        "s2rm_fig5_fpn": "Masks of the fusion modules with the FPN (S²RM, Fig. 5)",
        "s2rm_gates": "How much of each group of maps is let through?",
        "s2rm_products": "Do the products follow the words?",
        "s2rm_shifts": "How are rows and columns shifted?",
        "s2rm_walkthrough_mask": "Which mask does S²RM + CASG draw?",
        "s2rm_word_attention": "Which cells take from which words?",
        "seed_kinds": "Which kinds of expression does each seed learn?",
        "slvit_ablations": "Do the parts of SLViT help, printed and measured?",
        "slvit_choices": "Which regions are chosen, and where are borders?",
        "slvit_correlation": "Where do words and picture agree?",
        "slvit_cross_scale": "What do the tokens of a region look at?",
        "slvit_lmfa": "What does each branch of an LMFA answer?",
        "slvit_loudness": "Which branch of an LMFA is loudest?",
        "slvit_reach": "How far does each branch of an LMFA see?",
        "slvit_regions": "What changes when more regions are refined?",
        "slvit_regions_trained": "Does training with more regions help?",
        "slvit_softmax": "Does the order of sum and softmax matter?",
        "slvit_tokens": "Which 85 tokens make up a region?",
        "slvit_uncertainty": "Where do the stages disagree?",
        "slvit_walkthrough_mask": "Which mask does SLViT draw?",
        "slvit_word_scores": "How does each word score each cell?",
        "word_use": "Do masks change with the words?",
        "wordless": "How far above masks without words is each model?",
    }
)


def title_of(stem: str) -> str:
    """The title of a table or figure; of one that has none its name in words."""
    return TITLES.get(stem, stem.replace("_", " ").capitalize())
