"""One command for a fresh GPU machine: is everything right there, and how fast is it?

It needs torch, torchvision, lightning and this repository alone, and runs on the CPU too. The
record is written after every row, so that a run cut off leaves what it had; a table lies beside
it.
"""

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
from torch import Tensor, nn

from als.config import UNREAD, ModelConfig
from als.data.toy import write_toy
from als.files import write_json
from als.training.train import compile_convolutions, train
from benchmarks.gpu_peaks import peak_tflops
from benchmarks.networks import (
    CLASSES,
    PLAIN,
    QUIET,
    SMALL,
    let_through,
    loss_of,
    random_batch,
    random_detector,
    small_training,
    step,
)
from benchmarks.recording import made_with, options
from benchmarks.timing import counted, gpu_megabytes, in_turns

COMPACT = Path(__file__).parents[1] / "configs" / "compact-stage2.yaml"
PARTS = ("equal", "train", "speed")
TRAIN_BATCH, DETECT_BATCH = 2, 8
SHARE = 0.2  # of the proposals over the threshold; only these see the box branch
TOLERANCE = 1e-6  # of the largest value, in float64; one wrong operation is far off
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
    "MR-CNN": {"family": "mrcnn", "pool_size": 3, **PLAIN},
    "SSDLite": {"family": "ssd", "min_size": 96, "max_size": 96, **PLAIN},
    "after LED": {"family": "led", "min_size": 96, "max_size": 96, **PLAIN},
    "SSD300": {"family": "ssd", "backbone": "vgg16", "min_size": 300, "max_size": 300, **PLAIN},
}
# All anchors and RoIs take part in the losses: devices draw differently.
ALL_DRAWN = {"rpn_anchors_per_image": 5000, "rois_per_image": 400, "roi_positive_fraction": 0.5}
CHECKED = SMALL | {"pool_size": 7, "min_size": 64, "max_size": 96, "score_threshold": 0.0}


def network_of(changes: dict) -> ModelConfig:
    """A small network with `changes`, without options that its family does not read."""
    values = {"classes": CLASSES[:3]} | CHECKED | ALL_DRAWN | changes
    unread = UNREAD[values.get("family", "als")]
    return ModelConfig(**{name: value for name, value in values.items() if name not in unread})


def check_equal(name: str, changes: dict, device: torch.device) -> dict:
    """Largest errors of a variant on `device` against the CPU, relative to the largest value."""
    torch.manual_seed(0)
    images, targets = random_batch(2, 64, 3, "cpu")
    images = [image.double() for image in images]
    here = random_detector(network_of(changes), images)
    there = deepcopy(here).to(device)
    moved = [{key: value.to(device) for key, value in target.items()} for target in targets]
    expected = _outcome(here, images, targets)
    found = _outcome(there, [image.to(device) for image in images], moved)
    errors = {key: _error(value, found[key]) for key, value in expected.items()}
    return {"variant": name, "errors": errors, "equal": max(errors.values()) < TOLERANCE}


def _outcome(detector, images, targets) -> dict[str, Tensor]:
    """Detections, losses and gradients, each flat on the CPU."""
    with torch.no_grad():
        found = detector.eval()(images)
    detector.train()
    for layer in detector.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()  # devices draw differently
    losses = detector.losses(detector.encode(images), targets)
    detector.total_loss(losses).backward()
    values = {f"detected {key}": torch.cat([one[key] for one in found]) for key in found[0]}
    gradients = [p.grad.flatten() for p in detector.parameters() if p.grad is not None]
    values |= losses | {"gradients": torch.cat(gradients)}
    return {key: value.detach().cpu().double().flatten() for key, value in values.items()}


def _error(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if len(expected) == 0:
        return 0.0
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-12))


def check_training(precision: str, device: torch.device, epochs: int) -> dict:
    """Train the small network on drawn images: finite losses that fall."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lightning, about how small this is
        write_toy(Path(folder) / "toy", images=16, size=(64, 96))
        data = {"min_sizes": (64,), "max_size": 96, "workers": 0}
        network = CHECKED | {"rois_per_image": 32}
        accelerator = "gpu" if device.type == "cuda" else "cpu"
        train(
            small_training(Path(folder) / "toy", Path(folder) / "run", epochs, network, data),
            precision={"fp32": "32-true", "bf16": "bf16-mixed"}[precision],
            **QUIET | {"accelerator": accelerator, "devices": 1, "log_every_n_steps": 1},
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
    trunks = {"resnet101": (600, 800), "resnet50": (600, 800), "compact": (384,)}
    for compiled, (trunk, sides) in product(
        (False, True), ({"compact": (64,)} if tiny else trunks).items()
    ):
        for px, precision, network, mode in product(
            sides, precisions(device), ("ALS", "Faster R-CNN C4"), ("train", "detect")
        ):
            # Compiling takes a minute a row: only where it tells most.
            tells = not tiny and px != 800 and precision == precisions(device)[0]
            if not compiled or (tells and network == "ALS"):
                case = {"trunk": trunk, "px": px, "network": network, "mode": mode}
                yield case | {"precision": precision, "compiled": compiled}


def measure_speed(case: dict, device: torch.device, repeats: int) -> dict:
    """Images a second, peak memory and share of the peak of one row."""
    side, training, precision = case["px"], case["mode"] == "train", case["precision"]
    values = {"classes": CLASSES, "backbone": case["trunk"]}
    if case["trunk"] == "compact":
        values = yaml.safe_load(COMPACT.read_text())["model"]
    values |= {"weights": None, "min_size": side, "max_size": side * 4 // 3}
    values |= {} if case["network"] == "ALS" else PLAIN
    count = TRAIN_BATCH if training else DETECT_BATCH
    torch.manual_seed(0)
    batch = random_batch(count, side, len(values["classes"]), device)
    detector = random_detector(ModelConfig(**values), batch[0][:1])
    detector = detector.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def detect() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            detector(batch[0])

    if training:
        call = step(detector, [lambda: loss_of(detector, batch, precision)])
    else:
        let_through(detector, batch[0][:1], SHARE)
        call = detect
    _, flops = counted(call)
    if case["compiled"]:
        compile_convolutions(detector)
    seconds = in_turns({"": call}, repeats).seconds("").median
    tflops, peak = flops / seconds / 1e12, peak_tflops(device, precision)
    return case | {
        "images": count,
        "images_per_second": count / seconds,
        "peak_megabytes": gpu_megabytes(call, device),
        "gflop_an_image": flops / count / 1e9,
        "tflops": tflops,
        "share_of_peak": None if peak is None else tflops / peak,
    }


def table(record: dict) -> str:
    """The record as Markdown."""
    machine, verdict = record["machine"], {True: "yes", False: "NO"}
    lines = ["| variant | equal to the CPU | largest error |", "| --- | --- | --- |"]
    for row in record["equal"]:
        worst = max(row["errors"].values())
        lines.append(f"| {row['variant']} | {verdict[row['equal']]} | {worst:.1e} |")
    lines += ["", "| training | first loss | last loss | falls |", "| --- | --- | --- | --- |"]
    for row in record["train"]:
        first, last = row["losses"][0], row["losses"][-1]
        lines.append(f"| {row['precision']} | {first:.3f} | {last:.3f} | {verdict[row['falls']]} |")
    keys = "trunk px network mode precision compiled images_per_second peak_megabytes tflops"
    keys = [*keys.split(), "share_of_peak"]
    lines += ["", f"| {' | '.join(keys)} |", "|" + " --- |" * len(keys)]
    for row in record["speed"]:
        cells = [f"{row[k]:.3g}" if isinstance(row[k], float) else str(row[k]) for k in keys]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"# GPU check on {machine['gpu'] or machine['cpu']}", "", *lines, ""])


def gpu_check(arguments: list[str]) -> None:
    """Is everything right on this machine, and how fast is it? Status 1 if anything is wrong.

    equal: detections, losses and gradients of every variant against the CPU, in float64. train: a
    few epochs on drawn images, in fp32 and (on a GPU) in bf16. speed: images a second, peak memory
    and share of the GPU's peak, in training and inference, against Faster R-CNN C4, and compiled.
    """
    parser = options(gpu_check, "results/gpu_check.json")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--skip", nargs="*", choices=PARTS, default=[])
    parser.add_argument("--tiny", action="store_true", help="little of everything, for a test")
    given = parser.parse_args(arguments)
    device, tiny = torch.device(given.device), given.tiny
    record = made_with() | {part: [] for part in PARTS}
    names = list(VARIANTS)[: 2 if tiny else None]
    rows = {
        "equal": (check_equal(name, VARIANTS[name], device) for name in names),
        "train": (check_training(p, device, 6 if tiny else 20) for p in precisions(device)),
        "speed": (
            measure_speed(case, device, 1 if tiny else 10) for case in speed_cases(device, tiny)
        ),
    }
    for part in [part for part in PARTS if part not in given.skip]:
        for row in rows[part]:
            record[part].append(row)
            print({key: value for key, value in row.items() if key != "losses"}, flush=True)
            write_json(given.out, record)
            given.out.with_suffix(".md").write_text(table(record))
    wrong = [row for row in record["equal"] if not row["equal"]]
    wrong += [row for row in record["train"] if not row["falls"]]
    print(table(record) + (f"{len(wrong)} checks failed" if wrong else "all checks passed"))
    sys.exit(bool(wrong))
