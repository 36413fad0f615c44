"""The data card, README.md of a data set on the Hub: what its rows are, whence they come and how they are loaded."""

from typing import Any

import jinja2
import orjson
import pyarrow as pa

from recipekit import ROOT, content_scan
from recipekit.content_scan import TYPE_ERRORS, merged
from recipekit.dataset_release import Release
from recipekit.errors import UserError
from recipekit.runs import relative

ORIGIN_KEYS = ("repo", "origin", "commit", "limit", "license", "terms", "homepage")  # of SOURCE.json
SIZES = ("K", "M", "B", "T")


def row_type(release: Release) -> pa.StructType:
    """Merge the types of all splits' rows: `load_dataset` wants the same of each.

    Raises:
        UserError: A key has another type in another file.
    """
    kind = pa.struct([])
    for file in release.files:
        if file.split:
            try:
                kind = merged(kind, release.found[file.path].type)
            except TYPE_ERRORS as error:
                what = f"{content_scan.other_type(error)} in the files before it and here"
                raise UserError(f"{relative(file.path)}: {what}; write a key's values in one type") from None
    return kind


def size_category(rows: int) -> str:
    """Name the Hub's category of a number of rows: 1K<n<10K."""
    powers = [(10**n, f"{10 ** (n % 3)}{SIZES[n // 3 - 1]}") for n in range(3, 13)]
    below = next((i for i, (bound, _) in enumerate(powers) if rows < bound), len(powers))
    if below in (0, len(powers)):
        return "n<1K" if below == 0 else "n>1T"
    return f"{powers[below - 1][1]}<n<{powers[below][1]}"


def front_matter(release: Release, kind: pa.StructType) -> str:
    """Write the card's metadata as YAML; with it `load_dataset` finds the splits and the type of every key."""
    from datasets import Features
    from huggingface_hub import DatasetCardData

    splits = [{"split": file.split, "path": file.name} for file in release.files if file.split]
    features = Features.from_arrow_schema(pa.schema(list(kind)))._to_yaml_list()
    layout: dict[str, Any] = {
        "configs": [{"config_name": "default", "data_files": splits}],
        "dataset_info": [{"config_name": "default", "features": features}],
    }
    return DatasetCardData(
        language=["ja"], license=release.licences if len(release.licences) > 1 else release.licences[0],
        pretty_name=release.task.title, size_categories=[size_category(release.rows)],
        task_categories=["text-generation"], tags=["japanese", release.task.spec["kind"]],
        **(layout if splits else {}),
    ).to_yaml()  # fmt: skip


def type_name(kind: pa.DataType) -> str:
    """Name a key's type for readers."""
    if pa.types.is_struct(kind):
        return "object"
    return f"list of {type_name(kind.value_type)}" if pa.types.is_list(kind) else str(kind)


def write_card(release: Release) -> str:
    """Render the card.

    Raises:
        UserError: As `row_type`.
    """
    kind = row_type(release)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "tools" / "recipekit"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("dataset_card.md.j2").render(
        front_matter=front_matter(release, kind).strip(),
        release=release,
        task=release.task,
        origins=[{key: origin.get(key) for key in ORIGIN_KEYS} for origin in release.origins],
        fields=[(name.name, type_name(name.type)) for name in kind],
        schema=orjson.dumps(release.task.output_schema, option=orjson.OPT_INDENT_2).decode(),
        changes=sorted({what for origin in release.origins for what in origin.get("changed") or []}),
        mixes={name: spec for name, spec in release.task.spec["data"]["train"].items() if "base" in spec},
        counts=release.counts,
    )
