"""One command for a fresh GPU machine: is everything right there, and how fast is it?

    python -m benchmarks.gpu_check [--out results/gpu_check.json] [--skip equal|train|speed ...]

1. equal: detections, losses and gradients of every variant against the CPU, in float64.
2. train: a few epochs on drawn images, in fp32 and (on a GPU) in bf16.
3. speed: images a second, peak memory and share of the GPU's peak: ResNet-50 and ResNet-101 at
   600 and 800 pixels and the compact model, in training and inference, against Faster R-CNN C4 of
   the same trunk, and compiled.

It needs torch, torchvision, lightning and this repository alone, and runs on the CPU too. The
record is written after every row, so that a run cut off leaves what it had; a table lies beside
it. Status 1 if anything of 1 or 2 is wrong.
"""

import argparse
import csv
import sys
import tempfile
import warnings
from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from pathlib import Path

import torch
import yaml
from torch import nn

from als.config import UNREAD, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from als.data.toy import TOY_CLASSES, write_toy
from als.files import write_json
from als.machine import machine, revision
from als.training.train import compile_convolutions, train
from benchmarks import speed
from benchmarks.gpu_peaks import peak_tflops

CLASSES = tuple(f"class {number}" for number in range(1, 21))
COMPACT = Path(__file__).parents[1] / "configs" / "compact-stage2.yaml"
PARTS = ("equal", "train", "speed")
TRAIN_BATCH, DETECT_BATCH = 2, 8
TOLERANCE = 1e-6  # of the largest value, in float64; one wrong operation is far off
PLAIN = {"attention": False, "separation": False}
VARIANTS = {
    "ALS": {},
    "Faster R-CNN C4": PLAIN,
    "separation alone": {"attention": False},
    "attention alone": {"separation": False},
    "residual maps": {"attention_form": "residual"},
    "A_cls on F_loc": {"attention_source": "F_loc"},
    "A_cls without biases": {"attention_cls_biased": False},
    "RoIPool": {"pool": "max"},
    "folded BN": {"fold_batch_norm": True},
    "ResNet-18": {"backbone": "resnet18"},
    "Faster R-CNN, VGG16": {"backbone": "vgg16", **PLAIN},
    "R-FCN": {"family": "rfcn", "pool_size": 3, **PLAIN},
    "SSDLite": {"family": "ssd", "min_size": 96, "max_size": 96, **PLAIN},
    "SSD300": {"family": "ssd", "backbone": "vgg16", "min_size": 300, "max_size": 300, **PLAIN},
}
SMALL = {
    "classes": CLASSES[:3],
    "backbone": "mobilenet_v2",
    "weights": None,
    "min_size": 64,
    "max_size": 96,
    "anchor_sizes": (16, 32, 64),
    # All anchors and RoIs take part in the losses: devices draw differently.
    "rpn_anchors_per_image": 5000,
    "rois_per_image": 400,
    "roi_positive_fraction": 0.5,
    "rpn_post_nms_train": 50,
    "rpn_post_nms_test": 50,
    "score_threshold": 0.0,
}
NARROW = {"attention_width": 16, "pool_size": 7}


def network_of(changes: dict) -> ModelConfig:
    """A small network with `changes`, without options that its family does not read."""
    options = SMALL | NARROW | changes
    unread = UNREAD[options.get("family", "als")]
    return ModelConfig(**{name: value for name, value in options.items() if name not in unread})


def check_equal(name: str, changes: dict, device: torch.device) -> dict:
    """Largest errors of a variant on `device` against the CPU, relative to the largest value."""
    torch.manual_seed(0)
    images, targets = speed.random_batch(2, 64, 3, "cpu")
    images = [image.double() for image in images]
    here = speed.settled_detector(network_of(changes), images)
    outcomes = []
    for detector, place in ((here, torch.device("cpu")), (deepcopy(here).to(device), device)):
        moved = [{k: v.to(place) for k, v in target.items()} for target in targets]
        outcomes.append(_outcome(detector, [image.to(place) for image in images], moved))
    errors = {key: _error(outcomes[0][key], outcomes[1][key]) for key in outcomes[0]}
    worst = max(errors.values())
    return {"variant": name, "errors": errors, "equal": bool(worst < TOLERANCE)}


def _outcome(detector, images, targets) -> dict[str, torch.Tensor]:
    """Detections, losses and gradients, each flat on the CPU."""
    with torch.no_grad():
        found = detector.eval()(images)
    detector.train()
    for layer in detector.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()  # devices draw differently
    losses = detector.losses(detector.encode(images), targets)
    detector.total_loss(losses).backward()
    values = {f"detected {k}": torch.cat([one[k] for one in found]) for k in found[0]}
    values |= losses
    gradients = [p.grad.flatten() for p in detector.parameters() if p.grad is not None]
    values["gradients"] = torch.cat(gradients)
    return {key: value.detach().cpu().double().flatten() for key, value in values.items()}


def _error(expected: torch.Tensor, found: torch.Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    largest = expected.abs().max().clamp(min=1e-12) if len(expected) else 1.0
    return float((expected - found).abs().max() / largest) if len(expected) else 0.0


def check_training(precision: str, device: torch.device, epochs: int) -> dict:
    """Train the small network on drawn images: finite losses that fall."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lightning, about how small this is
        write_toy(Path(folder) / "toy", images=16, size=(64, 96))
        changes = {"classes": TOY_CLASSES, "rois_per_image": 32, **NARROW}
        data = {"root": f"{folder}/toy", "train": "VOC2012:train", "batch_size": 2, "workers": 0}
        config = TrainConfig(
            out=f"{folder}/run",
            epochs=epochs,
            model=ModelConfig(**(SMALL | changes)),
            data=DataConfig(**data, min_sizes=(64,), max_size=96),
            optimizer=OptimizerConfig(lr=0.01, warmup_steps=2),
        )
        train(
            config,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision={"fp32": "32-true", "bf16": "bf16-mixed"}[precision],
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with open(Path(folder) / "run" / "metrics.csv", newline="") as file:
            losses = torch.tensor([float(row["loss"]) for row in csv.DictReader(file)])
    few = max(1, len(losses) // 4)
    falls = bool(losses[-few:].mean() < losses[:few].mean())
    return {"precision": precision, "losses": losses.tolist(), "falls": falls}


def precisions(device: torch.device) -> tuple[str, ...]:
    """bf16 on GPUs alone: most processors emulate it, at minutes a step."""
    return ("bf16", "fp32") if device.type == "cuda" else ("fp32",)


def speed_cases(device: torch.device, tiny: bool) -> Iterator[dict]:
    """Every row to measure, what matters most first."""
    trunks = [("resnet101", (600, 800)), ("resnet50", (600, 800)), ("compact", (384,))]
    if tiny:
        trunks = [("compact", (64,))]
    for compiled, (trunk, sides) in product((False, True), trunks):
        for side, precision in product(sides, precisions(device)):
            for network in ("ALS", "Faster R-CNN C4"):
                # Compiling takes a minute a row: only where it tells most.
                skipped = tiny or side == 800 or precision != precisions(device)[0]
                if compiled and (skipped or network != "ALS"):
                    continue
                for mode in ("train", "detect"):
                    yield {
                        **{"trunk": trunk, "px": side, "network": network, "mode": mode},
                        **{"precision": precision, "compiled": compiled},
                    }


def measure_speed(case: dict, device: torch.device, repeats: int) -> dict:
    """Images a second, peak memory and share of the peak of one row."""
    side, training = case["px"], case["mode"] == "train"
    options = {"classes": CLASSES, "backbone": case["trunk"]}
    if case["trunk"] == "compact":
        options = yaml.safe_load(COMPACT.read_text())["model"]
    options |= {"weights": None, "min_size": side, "max_size": side * 4 // 3}
    options |= PLAIN if case["network"] != "ALS" else {}
    count = TRAIN_BATCH if training else DETECT_BATCH
    torch.manual_seed(0)
    batch = speed.random_batch(count, side, len(options["classes"]), device)
    detector = speed.settled_detector(ModelConfig(**options), batch[0][:1])
    detector = detector.to(memory_format=torch.channels_last)
    if training:
        optimizer = torch.optim.SGD(detector.parameters(), 1e-6, momentum=0.9)
        call = speed.training_step(detector, batch, case["precision"], optimizer)
    else:
        speed.let_through(detector, batch[0][:1], speed.SHARE_OVER_THRESHOLD)
        call = speed.detection(detector, batch, case["precision"])
    flops = speed.count_flops(call)
    if case["compiled"]:
        compile_convolutions(detector)
    seconds = speed.seconds(call, device, repeats)
    tflops = flops / seconds / 1e12
    peak = peak_tflops(device, case["precision"])
    return case | {
        "images": count,
        "images_per_second": count / seconds,
        "peak_megabytes": speed.peak_megabytes(call, device),
        "gflop_an_image": flops / count / 1e9,
        "tflops": tflops,
        "share_of_peak": None if peak is None else tflops / peak,
    }


def table(record: dict) -> str:
    """The record as Markdown."""
    lines = [f"# GPU check on {record['machine']['gpu'] or record['machine']['cpu']}", ""]
    lines += ["| variant | equal to the CPU | largest error |", "| --- | --- | --- |"]
    for row in record["equal"]:
        worst = max(row["errors"].values())
        lines.append(f"| {row['variant']} | {'yes' if row['equal'] else 'NO'} | {worst:.1e} |")
    lines += ["", "| training | first loss | last loss | falls |", "| --- | --- | --- | --- |"]
    for row in record["train"]:
        first, last = row["losses"][0], row["losses"][-1]
        falls = "yes" if row["falls"] else "NO"
        lines.append(f"| {row['precision']} | {first:.3f} | {last:.3f} | {falls} |")
    columns = "trunk px network mode precision compiled images/s peak_MB TFLOP/s share_of_peak"
    lines += ["", f"| {' | '.join(columns.split())} |", "|" + " --- |" * len(columns.split())]
    for row in record["speed"]:
        memory, share = row["peak_megabytes"], row["share_of_peak"]
        cells = [row[key] for key in ("trunk", "px", "network", "mode", "precision")]
        cells += ["yes" if row["compiled"] else "no", f"{row['images_per_second']:.1f}"]
        cells += ["" if memory is None else f"{memory:.0f}", f"{row['tflops']:.2f}"]
        cells += ["" if share is None else f"{share:.1%}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Check, measure, print and write the table and the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("results/gpu_check.json"))
    parser.add_argument("--skip", nargs="*", choices=PARTS, default=[])
    parser.add_argument("--tiny", action="store_true", help="little of everything, for a test")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    record = {"revision": revision(), "machine": machine(), "equal": [], "train": [], "speed": []}

    def add(part: str, row: dict) -> None:
        record[part].append(row)
        print({key: value for key, value in row.items() if key != "losses"}, flush=True)
        write_json(given.out, record)
        given.out.with_suffix(".md").write_text(table(record))

    if "equal" not in given.skip:
        for name in list(VARIANTS)[:2] if given.tiny else VARIANTS:
            add("equal", check_equal(name, VARIANTS[name], device))
    if "train" not in given.skip:
        for precision in precisions(device):
            add("train", check_training(precision, device, epochs=6 if given.tiny else 20))
    if "speed" not in given.skip:
        for case in speed_cases(device, given.tiny):
            add("speed", measure_speed(case, device, repeats=1 if given.tiny else 10))
    wrong = [row for row in record["equal"] if not row["equal"]]
    wrong += [row for row in record["train"] if not row["falls"]]
    print(table(record) + (f"{len(wrong)} checks failed" if wrong else "all checks passed"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
