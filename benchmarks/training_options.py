"""What each option of a training costs or saves on this machine, taken in turns with the plain run.

Times whole steps (forward, backward, update) of a config's network on one batch.
"""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from als.config import ModelConfig
from als.data.dataset import DetectionDataset
from als.data.layouts import load_records
from als.data.toy import TOY_CLASSES, write_toy
from als.data.transforms import training_transforms
from als.tables.stage_config import read_config
from als.training.train import compile_convolutions
from benchmarks.networks import Batch, loss_of, random_batch, random_detector, step
from benchmarks.recording import made_with, options, save
from benchmarks.timing import Spread, in_turns

PHOTO = (375, 500)  # height, width in pixels: VOC's most common size
ROUNDS = 7
PAYS = 0.95  # an option pays if steps take less than this share of the plain ones'


def step_of(
    model: ModelConfig,
    batch: Batch,
    precision: str = "fp32",
    channels_last: bool = False,
    compiled: bool = False,
    parts: int = 1,
) -> Callable[[], None]:
    """A step on `batch`; in `parts` its gradients accumulate."""
    torch.manual_seed(0)
    detector = random_detector(model, batch[0][:1])
    if channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    if compiled:
        compile_convolutions(detector)
    size = len(batch[0]) // parts
    chunks = [tuple(kind[i * size : (i + 1) * size] for kind in batch) for i in range(parts)]
    return step(detector, [lambda c=c: loss_of(detector, c, precision) / parts for c in chunks])


def mixed(batch: Batch) -> Batch:
    """The batch with every other image and its target turned by a quarter."""
    images, targets = list(batch[0]), list(batch[1])
    for i in range(0, len(images), 2):
        images[i] = images[i].transpose(1, 2).contiguous()
        targets[i] = targets[i] | {
            "boxes": targets[i]["boxes"][:, [1, 0, 3, 2]],
            "object_map": targets[i]["object_map"].T.contiguous(),
        }
    return images, targets


def measure_steps(model: ModelConfig, batch: Batch, skip: list[str]) -> list[dict]:
    """A row an option: seconds without and with it, their ratio, peak memory."""
    device = batch[0][0].device
    makers = {  # what makes a step, so that one option's network is held at a time
        "channels_last": lambda: step_of(model, batch, channels_last=True),
        "bf16 autocast": lambda: step_of(model, batch, "bf16"),
        "bf16 autocast, channels_last": lambda: step_of(model, batch, "bf16", True),
        "compile": lambda: step_of(model, batch, compiled=True),
        "lying and standing images mixed": lambda: step_of(model, mixed(batch)),
        "2 half batches accumulated": lambda: step_of(model, batch, parts=2),
    }
    if len(batch[0]) == 1:
        del makers["2 half batches accumulated"]
    names = [name for name in makers if not any(word in name for word in skip)]
    plain_memory = peak_alone(lambda: step_of(model, batch), device)
    memory = {name: peak_alone(makers[name], device) for name in names}
    plain, rows = step_of(model, batch), []
    for name in names:
        turns = in_turns({"plain": plain, name: makers[name]()}, ROUNDS)
        row = {"option": name, "plain_seconds": turns.seconds("plain")}
        row |= {"seconds": turns.seconds(name), "ratio": turns.ratio(name, "plain")}
        rows.append(row | {"plain_megabytes": plain_memory, "megabytes": memory[name]})
        print(row_text(rows[-1]), flush=True)
    return rows


def peak_alone(make: Callable[[], Callable], device: torch.device) -> float | None:
    """Peak memory (MiB) of a step with momenta, while no other network is held; None on the CPU."""
    if device.type != "cuda":
        return None
    run = make()
    run()  # SGD makes its momenta
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) / 2**20


def measure_loading(min_size: int, max_size: int) -> dict[str, Spread]:
    """Seconds an image of the whole sample on one core, and with decoded images kept."""
    with TemporaryDirectory() as folder:
        write_toy(Path(folder) / "toy", 8, size=PHOTO)
        records = load_records("VOC2012:trainval", Path(folder) / "toy", TOY_CLASSES)
        transform = training_transforms((min_size,), max_size, jitter=False)
        whole = DetectionDataset(records, TOY_CLASSES, transform)
        kept = DetectionDataset(records, TOY_CLASSES, transform, keep_decoded=True)
        sides = {
            "the whole sample": lambda: [whole[i] for i in range(len(records))],
            "decoded images kept": lambda: [kept[i] for i in range(len(records))],
        }
        turns = in_turns(sides, ROUNDS)
    return {name: Spread.of(turns.rounds[name], scale=1 / len(records)) for name in sides}


def row_text(row: dict) -> str:
    """A row of the table: what a step takes with the option, as a share of the plain step."""
    ratio, memory = row["ratio"], row["megabytes"]
    pays = "yes" if ratio.high < PAYS else "no"
    share = "" if memory is None else f"{memory / row['plain_megabytes']:.2f}"
    return (
        f"| {row['option']} | {row['plain_seconds'].median:.3f} s | "
        f"{row['seconds'].median:.3f} s | {ratio.median:.2f} ({ratio.low:.2f} to "
        f"{ratio.high:.2f}) | {share} | {pays} |"
    )


def table(record: dict) -> str:
    """The record as Markdown."""
    sample, kept = (spread.median for spread in record["loading"].values())
    image = record["rows"][0]["plain_seconds"].median / record["batch"]
    place = record["machine"]["gpu"] or f"{record['machine']['cpu']}, {record['threads']} threads"
    rows = "\n".join(map(row_text, record["rows"]))
    return f"""{record["config"]}, {record["batch"]} images of {record["side"]} px, on {place}:

| option | step without | step with | ratio (lowest to highest) | memory | faster |
| --- | --- | --- | --- | --- | --- |
{rows}

Loading takes, with flips alone, {1000 * sample:.1f} ms an image of {PHOTO[1]}x{PHOTO[0]} pixels \
on one core, {1000 * kept:.1f} ms with `--data.keep_decoded true`, the step {1000 * image:.1f} ms \
an image."""


def training_options(arguments: list[str]) -> None:
    """What each option of a training costs or saves on this machine."""
    parser = options(training_options, "results/training_options.json")
    parser.add_argument("--config", type=Path, default=Path("configs/compact-stage2.yaml"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", type=int, help="shorter side in pixels; default: the config's")
    parser.add_argument("--batch", type=int, help="images a step; default: the config's")
    parser.add_argument("--skip", nargs="*", default=[], help="words of options to leave out")
    given = parser.parse_args(arguments)
    config = read_config(given.config, {"model.weights": None})
    model, sizes = config.model, config.data.min_sizes
    count, side = given.batch or config.data.batch_size, given.side or sizes[len(sizes) // 2]
    batch = random_batch(count, side, len(model.classes), torch.device(given.device))
    record = {
        "config": given.config.stem,
        "batch": count,
        "side": side,
        "rows": measure_steps(model, batch, given.skip),
        "loading": measure_loading(side, side * 4 // 3),
        "threads": torch.get_num_threads(),
    } | made_with()
    print(table(record))
    save(given.out, json.loads(json.dumps(record, default=vars)))
