"""Mutated inputs through the commands and the page: does each end in a result or a sentence?

`python -m benchmarks attack`. Each input is a good one in which a few values or bytes are odd. The
commands run in a process of their own with a bound on its memory, the page in another.
"""

import contextlib
import copy
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from pathlib import Path

import httpx
import numpy as np
import torch
import yaml

from als.checkpoint import build_detector, save_checkpoint
from als.cli import main
from als.config import ModelConfig
from als.data.convert import to_coco
from als.data.toy import TOY_CLASSES, write_toy
from als.errors import InputError
from benchmarks.app import served
from benchmarks.load import VALUES, Tab, upload
from benchmarks.recording import options, save

# Of the commands' process: bytes of data that it may take.
BOUND = (resource.RLIMIT_DATA, (3 * 2**30, 3 * 2**30))
NETWORK = {
    **{"classes": TOY_CLASSES, "backbone": "mobilenet_v2", "weights": None, "attention_width": 8},
    **{"pool_size": 3, "min_size": 64, "max_size": 96, "rpn_pre_nms_test": 60},
    **{"rpn_post_nms_test": 20, "rpn_pre_nms_train": 60, "rpn_post_nms_train": 20},
}
ODD = [
    *(None, True, 0, -1, 1, 2**63, 1e308, float("nan"), float("inf"), 0.5, "", "1", "nan", ".."),
    *("/", "\ud800", "x" * 5000, "\x00"),
    *([], {}, [[]], [None], {"a": 1}, [1e9, -1e9, float("nan")]),
]
WORDS = [b"", b"-1", b"0", b"NaN", b"1e308", b"&#0;", b"<x>", b"\xff\xfe", b"../..", b"9" * 400]
Mutation = Callable[[np.random.Generator, Path], None]


def mutated(rng: np.random.Generator, value):
    """JSON's value with one part of it replaced, left out or doubled."""
    value = copy.deepcopy(value)
    place, path = value, []
    while isinstance(place, dict | list) and len(place):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = keys[int(rng.integers(len(keys)))]
        path.append((place, key))
        place = place[key]
        if rng.random() < 0.2:
            break
    if path:
        parent, key = path[-1]
        way = rng.integers(4)
        if way == 0:
            del parent[key]
        elif way == 1 and isinstance(parent, list):
            parent.append(parent[key])
        else:
            parent[key] = ODD[int(rng.integers(len(ODD)))]
    return value


def odd_json(rng: np.random.Generator, path: Path) -> None:
    value = mutated(rng, json.loads(path.read_text()))
    path.write_text(json.dumps(value))


def odd_yaml(rng: np.random.Generator, path: Path) -> None:
    value = mutated(rng, yaml.safe_load(path.read_text()))
    path.write_text(json.dumps(value))  # which is YAML


def odd_text(rng: np.random.Generator, path: Path) -> None:
    """One word or value between tags becomes another."""
    content = path.read_bytes()
    words = [match.span() for match in re.finditer(rb"[\w.]+", content)]
    start, end = words[int(rng.integers(len(words)))]
    path.write_bytes(content[:start] + WORDS[int(rng.integers(len(WORDS)))] + content[end:])


def odd_bytes(rng: np.random.Generator, path: Path) -> None:
    """Cut short, or some of its first bytes flipped."""
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        content = content[: int(rng.integers(len(content)))]
    for place in rng.integers(min(len(content), 2000), size=4) if content else ():
        content[place] = int(rng.integers(256))
    path.write_bytes(content)


def odd_head(rng: np.random.Generator, path: Path) -> None:
    """A checkpoint whose config, info or shapes are odd."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    if rng.random() < 0.7:
        told = head["__metadata__"]
        name = ("config", "info")[int(rng.integers(2))]
        told[name] = json.dumps(mutated(rng, json.loads(told[name])))
    else:
        head = mutated(rng, head)
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def worker() -> ProcessPoolExecutor:
    """A process that runs commands of `als` one after another."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), resource.setrlimit, BOUND)


def run_command(arguments: list[str]) -> dict:
    """{"how": "result", "sentence" or "traceback", "said": ...} of a command in this process."""
    said, how = io.StringIO(), "result"
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as end:
            how = "result" if end.code in (None, 0) else "sentence"
        except BaseException:
            how = "traceback"
            traceback.print_exc()
    return {"how": how, "said": said.getvalue()[-1500:]}


def commands(folder: Path, inputs: int, seed: int) -> Iterator[dict]:
    """Outcomes of the commands on `inputs` mutated inputs, those of data sets by two commands."""
    good = folder / "good"
    write_toy(good / "voc", images=8, seed=1, size=(64, 80))
    to_coco(good / "voc" / "VOC2012", ["val"], good / "coco" / "set")
    torch.manual_seed(0)
    save_checkpoint(build_detector(ModelConfig(**NETWORK)), good / "tiny.safetensors", {"a": 1})
    run = {"epochs": 1, "model": NETWORK | {"classes": list(TOY_CLASSES)}}
    run["data"] = {"train": "VOC2012:val", "batch_size": 1, "workers": 0, "min_sizes": [64]}
    run["data"]["max_size"] = 96
    (good / "run.yaml").write_text(yaml.safe_dump(run))
    (good / "tmp").mkdir()
    voc, coco = "voc/VOC2012", "coco/set"
    listed = (good / voc / "ImageSets/Main/val.txt").read_text().split()[0]
    photo = f"{voc}/JPEGImages/{listed}.jpg"
    judged = ["--workers", "0", "--out", "@out/r.json"]
    judge = ["evaluate", "@tiny.safetensors", *judged, "--data"]
    of_voc = [["data", "check", f"@{voc}"], [*judge, "VOC2012:val", "--root", "@voc"]]
    of_coco = [["data", "check", f"@{coco}"], [*judge, "set:val", "--root", "@coco"]]
    train = ["train", "@run.yaml", "--data.root", "@voc", "--out", "@out/run"]
    train += ["--trainer.max_steps", "1", "--trainer.enable_progress_bar", "false"]
    predict = ["predict", "@tiny.safetensors", f"@{photo}", "--out", "@out"]
    kinds: list[tuple[str, str, Mutation, list[list[str]]]] = [
        ("COCO's JSON", f"{coco}/annotations/instances_val.json", odd_json, of_coco),
        ("VOC's XML", f"{voc}/Annotations/{listed}.xml", odd_text, of_voc),
        ("lists of images", f"{voc}/ImageSets/Main/val.txt", odd_text, of_voc),
        ("masks", f"{voc}/SegmentationClass/{listed}.png", odd_bytes, of_voc),
        ("photographs", photo, odd_bytes, [predict]),
        ("checkpoints' heads", "tiny.safetensors", odd_head, [predict]),
        ("checkpoints' bytes", "tiny.safetensors", odd_bytes, [predict]),
        ("configs", "run.yaml", odd_yaml, [train]),
    ]
    (folder / "tmp").mkdir()
    os.environ |= {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}  # the worker's
    place, pool = folder / "input", worker()

    def outcome(arguments: list[str]) -> dict:
        nonlocal pool
        given = [one.replace("@", f"{place}/") for one in arguments]
        try:
            told = pool.submit(run_command, given).result()
        except BrokenProcessPool:
            pool, told = worker(), {"how": "signal", "said": ""}
        left = [str(path) for path in (*place.rglob(".als-*"), *(folder / "tmp").iterdir())]
        return told | {"command": arguments[0], "left": left}

    for number in range(-len(kinds), inputs):  # first each kind as it is: that must work
        kind, name, mutate, runs = kinds[number % len(kinds)]
        shutil.copytree(good, place)
        if number >= 0:
            mutate(np.random.default_rng([seed, number]), place / name)
        for arguments in runs:
            told = outcome(arguments)
            if number >= 0:
                yield told | {"kind": kind, "number": number}
            elif told["how"] != "result":
                raise InputError(f"{kind}: {arguments} fails on good data: {told['said']}")
            for leftover in (folder / "tmp").iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        shutil.rmtree(place)
    pool.shutdown()


def page(folder: Path, events: int, seed: int) -> Iterator[dict]:
    """Outcomes of events of the page with odd values; the server's log tells of tracebacks."""
    told = {"kind": "the page's events", "said": "", "left": []}
    log, checkpoint = folder / "server.log", folder / "good" / "tiny.safetensors"
    with log.open("wb") as file, served(checkpoint, log=file) as (url, _):
        tab = Tab(url)
        photo = next((folder / "good").rglob("*.jpg")).read_bytes()
        usual = [upload(tab.web, "a.jpg", photo), *VALUES]
        indices = [one["id"] for one in tab.config["dependencies"]]
        for number in range(events):
            rng = np.random.default_rng([seed, 10_000 + number])
            body = {"fn_index": int(rng.choice(indices)), "data": usual, "event_data": {"row": 0}}
            try:
                tab.join(mutated(rng, mutated(rng, body)))
                how = "result"
            except (httpx.HTTPError, UnicodeError, ValueError) as error:
                how = f"client: {type(error).__name__}"
            yield told | {"number": number, "how": how}
        alive = tab.event("photo", "change", usual)["success"]
    text = log.read_text(errors="replace")
    if "Traceback" in text:
        yield told | {"how": "traceback", "said": text[-3000:]}
    if not alive:
        yield told | {"how": "signal", "said": "it answers no more"}


def attack(arguments: list[str]) -> None:
    """Mutated inputs through check, evaluate, train, predict and the page; see the module."""
    parser = options(attack, "results/reliability/attack.json")
    parser.add_argument("--inputs", type=int, default=400, help="of the commands")
    parser.add_argument("--events", type=int, default=100, help="of the page")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    started, outcomes = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as place:
        runs = commands(Path(place), given.inputs, given.seed)
        for told in chain(runs, page(Path(place), given.events, given.seed)):
            outcomes.append(told)
            if told["how"] in ("traceback", "signal") or told["left"]:
                print(json.dumps(told, indent=1), flush=True)
    counts: dict[str, Counter] = {}
    for told in outcomes:
        counts.setdefault(told["kind"], Counter())[told["how"]] += 1
    record = {
        "inputs": given.inputs + given.events,
        "seed": given.seed,
        "tracebacks": sum(told["how"] == "traceback" for told in outcomes),
        "signals": sum(told["how"] == "signal" for told in outcomes),
        "files_left": sum(len(told["left"]) for told in outcomes),
        "outcomes": {kind: dict(count) for kind, count in counts.items()},
        "minutes": (time.perf_counter() - started) / 60,
    }
    print(json.dumps(record, indent=2))
    save(given.out, record)
