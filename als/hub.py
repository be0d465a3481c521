"""Models in a folder and on Hugging Face's hub: checkpoint and model card together."""

from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from als.checkpoint import save_checkpoint
from als.errors import InputError
from als.files import atomic_write
from als.model import AnyDetector

CHECKPOINT, CARD = "model.safetensors", "README.md"
MEASURES = {"AP50_area": "AP50 (area)", "AP75": "AP75", "AP": "AP"}  # of a checkpoint's info
TEXT = """
# {title}

A detector of {count} classes: {classes}. {network}
It was trained with ALS (attentive layer separation) on {data}; its license is not that of the
photographs. Its file holds tensors and config; nothing is executed when it is loaded.

```python
# pip install attentive-layer-separation
import als

detector = als.Predictor.from_pretrained("{place}")
detector.predict("photo.jpg").names
```
"""


def checkpoint_in(place: str | Path) -> Path:
    """The checkpoint in a folder, or of a repository of the hub (downloaded once).

    Raises:
        InputError: a folder without one, no such repository, or no connection.
    """
    folder = Path(place)
    if folder.is_dir():
        if not (folder / CHECKPOINT).is_file():
            raise InputError(f"{folder}: holds no {CHECKPOINT}; give a folder that was saved.")
        return folder / CHECKPOINT
    try:
        return Path(hf_hub_download(str(place), CHECKPOINT))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"{place}: is no folder, and the hub says: {_told(error)}.") from error


def _told(error: Exception) -> str:
    """What an error of the hub says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def save_pretrained(
    detector: AnyDetector, info: dict, folder: str | Path, repository: str | None = None
) -> Path:
    """Write checkpoint and card into a folder, and give it.

    The card loads the model from the repository where it will be, or else from the folder.
    """
    folder = Path(folder)
    card = card_of(detector, info, repository or folder.resolve().name)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(detector, folder / CHECKPOINT, info)
    with atomic_write(folder / CARD) as aside:
        aside.write_text(card)
    return folder


def push_to_hub(detector: AnyDetector, info: dict, repository: str, private: bool) -> str:
    """Make the repository where there is none, upload checkpoint and card, and give its address.

    Raises InputError for a name that is not USER/MODEL, or where the hub does not take them.
    """
    if "/" not in repository:  # the hub would make it of the login's user, then know no such name
        raise InputError(f"{repository}: cannot be pushed; give a name as USER/MODEL.")
    with TemporaryDirectory() as folder:
        save_pretrained(detector, info, folder, repository)
        try:
            hub = HfApi()
            address = hub.create_repo(repository, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=folder)
        except Exception as error:  # no login, name or connection: the kinds have no common class
            raise InputError(
                f"{repository}: cannot be pushed, the hub says: {_told(error)}; is the name as "
                "USER/MODEL, and did you run `hf auth login`?"
            ) from error
    return str(address)


def card_of(detector: AnyDetector, info: dict, place: str) -> str:
    """A model card: the hub's YAML (license, task, data, figures), then what the model is.

    place: the repository or folder that its example loads.
    """
    config, data, figures = detector.config, info.get("data"), info.get("figures")
    data = data.get("train") if isinstance(data, dict) else None
    figures = figures if isinstance(figures, dict) and "data" in figures else {}
    results = [
        EvalResult(
            task_type="object-detection",
            dataset_type="custom",
            dataset_name=figures["data"],
            metric_type="mAP",
            metric_name=MEASURES[name],
            metric_value=value,
        )
        for name, value in figures.items()
        if name in MEASURES
    ]
    title = f"ALS, {config.backbone}, {len(config.classes)} classes"
    head = ModelCardData(
        license="apache-2.0",
        library_name="als",
        pipeline_tag="object-detection",
        tags=["object-detection", "attention", "explainability"],
        model_name=title,
        eval_results=results or None,
    )
    attention = f"attention form {config.attention_form}" if config.attention else "no attention"
    text = TEXT.format(
        title=title,
        count=len(config.classes),
        classes=", ".join(config.classes),
        network=f"The network: {config.backbone}, {attention}.",
        data=data or "data that it does not name",
        place=place,
    )
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n{text}"))
