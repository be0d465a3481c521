"""Every ratio that `make bench` measures, with its goal; the printed table.

A name without a model is of the compact model (the checkpoint `animals`), one that ends in
`_resnet50` of ResNet-50. `maps_vs_detection` is ResNet-50's: maps need no conv5, and its conv5 is
what the goal is about; the compact model's is `maps_vs_detection_compact`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """What a figure should be. bound: None where there is no goal. at_most: or at least."""

    bound: float | None
    at_most: bool = True

    def met(self, value: float) -> bool | None:
        if self.bound is None:
            return None
        return value <= self.bound if self.at_most else value >= self.bound


RATIOS = {
    "detection_vs_frcnn": Goal(1.25),
    "detection_vs_frcnn_resnet50": Goal(1.3),
    "detection_vs_joined_frcnn_resnet50": Goal(None),
    "detection_vs_naive": Goal(0.75),
    "detection_vs_naive_resnet50": Goal(0.75),
    "training_vs_frcnn": Goal(1.35),
    "training_vs_frcnn_resnet50": Goal(1.35),
    "maps_vs_detection": Goal(0.5),
    "maps_vs_detection_compact": Goal(None),
    "gradcam1_vs_detection": Goal(0.3),
    "gradcam1_vs_detection_resnet50": Goal(0.3),
    "gradcam10_vs_gradcam1": Goal(2.5),
    "gradcam10_vs_gradcam1_resnet50": Goal(2.5),
    "gradcam_speedup_vs_peer": Goal(5, at_most=False),
    "gradcam_speedup_vs_peer_resnet50": Goal(5, at_most=False),
    "coco_vs_pycocotools": Goal(1.05),
    "loader_vs_training": Goal(2, at_most=False),
    "predict_folder_speedup": Goal(1.5, at_most=False),
    "memory_vs_frcnn": Goal(1.2),
    "memory_vs_frcnn_resnet50": Goal(1.2),
}
# These stand in the record's `ratios`; all others in its `more_ratios`.
MAIN = (
    *("detection_vs_frcnn", "detection_vs_naive", "training_vs_frcnn", "maps_vs_detection"),
    *("gradcam1_vs_detection", "gradcam10_vs_gradcam1", "gradcam_speedup_vs_peer"),
    *("loader_vs_training", "memory_vs_frcnn"),
)
VOC_SECONDS = Goal(3)


def name_of(ratio: str, subject: str) -> str:
    """The name of a ratio of a subject, "compact" or "resnet50"; see the module's docstring."""
    plain = "resnet50" if ratio == "maps_vs_detection" else "compact"
    return ratio if subject == plain else f"{ratio}_{subject}"


def table(record: dict) -> str:
    """The record's figures beside their goals, as text."""
    lines = [f"{'':36}median  least to most  goal"]
    medians = record["ratios"] | record["more_ratios"]
    medians["voc_eval_seconds"] = record["voc_eval_seconds"]
    for name, goal in (RATIOS | {"voc_eval_seconds": VOC_SECONDS}).items():
        if name not in medians:
            lines.append(f"{name:36}     -  not run")
            continue
        low, high = record["spread"][name]
        sign = "<=" if goal.at_most else ">="
        wanted = "" if goal.bound is None else f"{sign} {goal.bound:g}"
        verdict = {True: "met", False: "missed", None: ""}[goal.met(medians[name])]
        spread = f"{low:.2f} to {high:.2f}"
        lines.append(f"{name:36}{medians[name]:6.2f}  {spread:16} {wanted:8} {verdict}".rstrip())
    return "\n".join(lines)
