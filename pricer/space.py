"""Put the app on a Hugging Face Space: `make space SPACE=owner/name`.

    python -m pricer.space owner/name [--private] [--dry-run]

One commit with the files that `space_files` lists, and no others: neither tests nor training go along. --dry-run
shows every file with its size and needs no network and no token.
"""

from __future__ import annotations

import argparse
import re
import sys
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceHardware, metadata_load
from packaging.requirements import InvalidRequirement, Requirement

from pricer.errors import InputError, PricerError, report
from pricer.llama.hub import HUB_ID, Content, listing, size, upload

ROOT = Path(__file__).resolve().parents[1]
TOP = ("app.py", "requirements.txt", "README.md", "LICENSE")
ENDINGS = (".py", ".css", ".js", ".json", ".md", ".parquet", ".safetensors", ".yaml")
# Of one file; one of more than 10 MiB the Hub keeps by LFS, which the upload sees to by itself. Weights of a larger
# adapter belong into a model repository.
MAX_BYTES = 20 * 2**20
PYTHONS = ("3.10", "3.12")  # what ZeroGPU has
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
FIELDS = (
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file"),
    *("license", "short_description", "models", "datasets", "tags"),
    *("suggested_hardware", "startup_duration_timeout"),
)


def space_files(root: Path = ROOT) -> dict[str, Content]:
    """What goes up, by its name in the Space: the app, the library with its assets, and the pictures of README.

    Raises InputError for a file that is missing, too large or of a kind that the app has no use for, and for a
    front matter that the Space would refuse.
    """
    names = [*TOP, *_library(root)]
    for name in names:
        if not (root / name).is_file():
            raise InputError(f"{root} holds no {name}, which the Space needs: run this in a whole checkout.")
    readme = (root / "README.md").read_text(encoding="utf-8")
    names += [name for name in re.findall(r"!\[[^]]*\]\(([\w./-]+)\)", readme) if (root / name).is_file()]
    files: dict[str, Content] = {name: root / name for name in names}
    for name, content in files.items():
        if size(content) > MAX_BYTES:
            raise InputError(
                f"{name} has {size(content):,} bytes where a Space's file has at most {MAX_BYTES:,}: take it out, "
                "or put it into a model repository and name that in PRICER_ADAPTER."
            )
    check_front_matter(_front_matter(root), (root / "requirements.txt").read_text(encoding="utf-8"), files)
    return files


def _library(root: Path) -> list[str]:
    """The names of all files in pricer/ but hidden ones and what Python and Gradio leave behind."""
    names = []
    for path in sorted((root / "pricer").rglob("*")):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if hidden or path.suffix == ".pyi" or not path.is_file():
            continue
        if path.suffix not in ENDINGS:
            raise InputError(f"{'/'.join(parts)} is no file that the app uses: take it out of pricer/.")
        names.append("/".join(parts))
    return names


def _front_matter(root: Path) -> dict[str, Any]:
    try:
        found = metadata_load(root / "README.md")
    except Exception as error:  # of the YAML reader, whichever it is
        raise InputError(
            f"The front matter of README.md is no YAML ({str(error).splitlines()[0]}): correct it."
        ) from error
    if not isinstance(found, dict):
        raise InputError("README.md does not begin with a front matter between two lines of ---: write one.")
    return found


def check_front_matter(card: dict[str, Any], requirements: str, files: Collection[str]) -> None:
    """Raise InputError, with one sentence, where a Space would refuse the card or the app would not start."""
    missing = [field for field in FIELDS if not card.get(field)]
    if missing:
        raise InputError(f"The front matter of README.md lacks {', '.join(missing)}: add it.")
    gradio = _gradio_range(requirements)
    checks = {
        "sdk": (card["sdk"] == "gradio", "gradio"),
        "sdk_version": (
            isinstance(card["sdk_version"], str) and gradio.specifier.contains(card["sdk_version"]),
            f"a version that requirements.txt takes ({gradio})",
        ),
        "python_version": (card["python_version"] in PYTHONS, f"{' or '.join(PYTHONS)}, in quotation marks"),
        "app_file": (card["app_file"] in files, "a file that goes up, such as app.py"),
        "emoji": (_is_emoji(card["emoji"]), "one emoji"),
        "colorFrom": (card["colorFrom"] in COLOURS, f"one of {', '.join(COLOURS)}"),
        "colorTo": (card["colorTo"] in COLOURS, f"one of {', '.join(COLOURS)}"),
        "short_description": (len(str(card["short_description"])) <= 60, "at most 60 characters"),
        "suggested_hardware": (
            card["suggested_hardware"] in [hardware.value for hardware in SpaceHardware],
            "a name of Spaces' hardware, such as cpu-basic",
        ),
        "startup_duration_timeout": (
            re.fullmatch(r"[1-9]\d*[mh]", str(card["startup_duration_timeout"])) is not None,
            "minutes or hours, such as 30m or 1h",
        ),
    }
    checks |= {
        field: (_is_list_of_text(card[field]), "a list of names") for field in ("models", "datasets", "tags")
    }
    for field, (holds, wanted) in checks.items():
        if not holds:
            raise InputError(
                f"{field} is {card[field]!r} in the front matter of README.md: make it {wanted}."
            )


def _gradio_range(requirements: str) -> Requirement:
    for line in requirements.splitlines():
        try:
            requirement = Requirement(line.partition("#")[0])
        except InvalidRequirement:  # a blank line, a comment, an option
            continue
        if requirement.name == "gradio":
            return requirement
    raise InputError("requirements.txt does not name gradio: add it with a range of versions.")


def _is_emoji(text: Any) -> bool:
    """A pictograph, perhaps with a skin tone, a variation or a joiner behind it."""
    kinds = [unicodedata.category(character) for character in text] if isinstance(text, str) else []
    return kinds[:1] == ["So"] and len(kinds) <= 8 and all(kind in ("So", "Sk", "Mn", "Cf") for kind in kinds)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) and entry for entry in value)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pricer.space", description=__doc__.split("\n")[0])
    parser.add_argument("space", nargs="?", default="", help="the Space: owner/name")
    parser.add_argument("--private", action="store_true", help="if the Space is new, only for its owner")
    parser.add_argument("--dry-run", action="store_true", help="show what would go up")
    options = parser.parse_args(argv)
    try:
        if not HUB_ID.fullmatch(options.space) and (options.space or not options.dry_run):
            raise InputError(
                f"The Space is {options.space!r}: give owner/name (make space SPACE=owner/name)."
            )
        files = space_files()
        print(listing(files))
        if options.dry_run:
            print("Nothing was sent.")
        else:
            address = upload(
                files,
                options.space,
                "The app as it is now",
                kind="space",
                private=options.private,
                keep_exactly=("pricer/",),
            )
            print(f"published: {address}")
    except PricerError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
