"""Every ratio that `make bench` measures, with its goal; the printed table and the figure.

A name without a model is of the compact model (the checkpoint `animals`), one that ends in
`_resnet50` of ResNet-50. `maps_vs_detection` is ResNet-50's: maps need no conv5, and its conv5 is
what the goal is about; the compact model's is `maps_vs_detection_compact`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Goal:
    """What a figure should be. bound: None where there is no goal. at_most: or at least."""

    bound: float | None
    says: str
    at_most: bool = True

    def met(self, value: float) -> bool | None:
        if self.bound is None:
            return None
        return value <= self.bound if self.at_most else value >= self.bound

    def used(self, value: float) -> float:
        """The share of the goal that a value uses up: 1 is the goal, less is better."""
        return value / self.bound if self.at_most else self.bound / value


BOTH = "detection / both branches on every proposal"
PEER = "grad-cam on torchvision's detector / ours"
RATIOS = {
    "detection_vs_frcnn": Goal(1.25, "detection / Faster R-CNN's"),
    "detection_vs_frcnn_resnet50": Goal(1.3, "detection / Faster R-CNN's"),
    "detection_vs_joined_frcnn_resnet50": Goal(
        None, "detection / Faster R-CNN's with BN in convolutions too"
    ),
    "detection_vs_naive": Goal(0.75, BOTH),
    "detection_vs_naive_resnet50": Goal(0.75, BOTH),
    "training_vs_frcnn": Goal(1.35, "training step / Faster R-CNN's"),
    "training_vs_frcnn_resnet50": Goal(1.35, "training step / Faster R-CNN's"),
    "maps_vs_detection": Goal(0.5, "both maps alone / a detection (ResNet-50)"),
    "maps_vs_detection_compact": Goal(None, "both maps alone / a detection"),
    "gradcam1_vs_detection": Goal(0.3, "Grad-CAM after a detection / the detection"),
    "gradcam1_vs_detection_resnet50": Goal(0.3, "Grad-CAM after a detection / the detection"),
    "gradcam10_vs_gradcam1": Goal(2.5, "Grad-CAM of ten / of one"),
    "gradcam10_vs_gradcam1_resnet50": Goal(2.5, "Grad-CAM of ten / of one"),
    "gradcam_speedup_vs_peer": Goal(5, PEER, at_most=False),
    "gradcam_speedup_vs_peer_resnet50": Goal(5, PEER, at_most=False),
    "coco_vs_pycocotools": Goal(1.05, "COCO evaluation / pycocotools alone"),
    "loader_vs_training": Goal(2, "images/s of the loader / of the training step", at_most=False),
    "predict_folder_speedup": Goal(1.5, "images/s of a folder / of one by one", at_most=False),
    "memory_vs_frcnn": Goal(1.2, "peak memory of detection / Faster R-CNN's"),
    "memory_vs_frcnn_resnet50": Goal(1.2, "peak memory of detection / Faster R-CNN's"),
}
# These stand in the record's `ratios`; all others in its `more_ratios`.
MAIN = (
    *("detection_vs_frcnn", "detection_vs_naive", "training_vs_frcnn", "maps_vs_detection"),
    *("gradcam1_vs_detection", "gradcam10_vs_gradcam1", "gradcam_speedup_vs_peer"),
    *("loader_vs_training", "memory_vs_frcnn"),
)
VOC_SECONDS = Goal(3, "seconds of VOC's evaluation")


def name_of(ratio: str, subject: str) -> str:
    """The name of a ratio of a subject, "compact" or "resnet50"; see the module's docstring."""
    plain = "resnet50" if ratio == "maps_vs_detection" else "compact"
    return ratio if subject == plain else f"{ratio}_{subject}"


def table(record: dict) -> str:
    """The record's figures beside their goals, as text."""
    lines = [f"{'':36}median  least to most  goal"]
    for name, goal, value, (low, high) in _figures(record):
        if value is None:
            lines.append(f"{name:36}     -  not run")
            continue
        sign = "<=" if goal.at_most else ">="
        wanted = "" if goal.bound is None else f"{sign} {goal.bound:g}"
        verdict = {True: "met", False: "missed", None: ""}[goal.met(value)]
        spread = f"{low:.2f} to {high:.2f}"
        lines.append(f"{name:36}{value:6.2f}  {spread:16} {wanted:8} {verdict}".rstrip())
    return "\n".join(lines)


def _figures(record: dict) -> Iterator[tuple[str, Goal, float | None, tuple[float, float]]]:
    """(name, goal, median or None, (least, most)) of every figure."""
    medians = record["ratios"] | record["more_ratios"]
    medians["voc_eval_seconds"] = record["voc_eval_seconds"]
    for name, goal in (RATIOS | {"voc_eval_seconds": VOC_SECONDS}).items():
        yield name, goal, medians.get(name), record["spread"].get(name, (0.0, 0.0))


def draw(record: dict, path: Path) -> None:
    """A bar a figure: how much of its goal it uses up."""
    shown = [one for one in _figures(record) if one[2] is not None and one[1].bound is not None]
    figure = Figure(figsize=(9, 0.36 * len(shown) + 1.4), layout="constrained")
    axes = figure.subplots()
    for row, (_, goal, value, ends) in enumerate(shown):
        colour = "#2f7d4f" if goal.met(value) else "#b3402e"
        axes.barh(row, goal.used(value), color=colour, height=0.6)
        axes.plot([goal.used(end) for end in ends], [row, row], color="black", linewidth=1)
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--")
    labels = [f"{name}\n{goal.says}" for name, goal, *_ in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("share of the goal that is used up (the goal is 1; the line spans the rounds)")
    cpu, threads, gpu, torch = (
        record["machine"][key] for key in ("cpu", "threads", "gpu", "torch")
    )
    where = filter(None, (f"{cpu}, {threads} threads", gpu, f"torch {torch}"))
    axes.set_title(f"{'; '.join(where)}; on {record['device']}", fontsize=8)
    figure.savefig(path, dpi=150, format="png")
