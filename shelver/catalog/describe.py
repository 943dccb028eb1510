"""What a catalog holds and where it is thin: counts, depth, balance, missing pieces, repeats, leaks."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shelver.catalog.attributes import Seen, unknown_labels
from shelver.catalog.split import PARTS, Part
from shelver.catalog.store import Catalog, CatalogInfo
from shelver.metrics import FREQUENCIES, head_torso_tail
from shelver.product import title_key

_SHOWN = 8
_SHOWN_ATTRIBUTES = 15


@dataclass(frozen=True, slots=True)
class Balance:
    """How evenly the train products stand on their nodes.

    Attributes:
        n_labels: nodes with a product. n_head, n_torso, n_tail: their parts by `metrics.head_torso_tail`.
        largest, median, smallest: products a node.
        gini: 0 where all nodes have equally many, towards 1 where one has all.
        top: the largest nodes' paths and counts.
    """

    n_labels: int
    n_head: int
    n_torso: int
    n_tail: int
    largest: int
    median: float
    smallest: int
    gini: float
    top: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class AttributeSummary:
    """The labels of one attribute.

    Attributes:
        name, kind, multi: as in the vocabulary.
        n_labelled: products with a label. share: of all products.
        n_values: different values that products have.
        top: the commonest values and how many products have them.
        n_unknown: labels that the vocabulary does not have, kept as seen. unknown: the commonest of them.
    """

    name: str
    kind: str
    multi: bool
    n_labelled: int
    share: float
    n_values: int
    top: tuple[tuple[str, int], ...]
    n_unknown: int
    unknown: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Description:
    """What `shelver describe` shows.

    Attributes:
        name, frozen: the source's name; whether it is a golden set.
        rows_in, n_products, n_quarantined: rows_in is the sum of the other two.
        by_split: products a part. quarantine_by_code, warnings_by_code: counts.
        n_nodes, n_leaves, n_levels: of the tree. n_empty_leaves: leaves without a product in any part.
        n_at_inner_nodes: products whose category has children.
        by_level: labelled products by the level of their node.
        balance: of train; None where train has no labelled product.
        by_language, by_source: counts, most first; "" where a product says none.
        n_unlabelled, n_without_text, n_without_images, n_with_urls_only, n_with_value: missing pieces.
        n_repeated_texts: products whose text (title, else description, compared by `title_key`) an earlier
            product has.
        n_texts_on_several_sides: distinct texts that stand in more than one part.
        n_leaking_products: products tied to another part by a nearly equal text or an equal picture, too; see
            `shelver.catalog.split.SplitReport`.
        largest_group: most products tied together.
        n_narrowed, near_exhaustive: see `n_narrowed` and `exhaustive` of `SplitReport`.
        labels_only_in_test, labels_only_in_validation: nodes there that train lacks.
        products_with_such_a_label: products of validation and test on these nodes.
        n_with_also: products with more than one right category.
        attributes: those that some product has, in the order of the vocabulary.
    """

    name: str
    frozen: bool
    rows_in: int
    n_products: int
    n_quarantined: int
    by_split: dict[Part, int]
    quarantine_by_code: dict[str, int]
    warnings_by_code: dict[str, int]
    n_nodes: int
    n_leaves: int
    n_levels: int
    n_empty_leaves: int
    n_at_inner_nodes: int
    by_level: dict[int, int]
    balance: Balance | None
    by_language: dict[str, int]
    by_source: dict[str, int]
    n_unlabelled: int
    n_without_text: int
    n_without_images: int
    n_with_urls_only: int
    n_with_value: int
    n_repeated_texts: int
    n_texts_on_several_sides: int
    n_leaking_products: int
    largest_group: int
    n_narrowed: int
    near_exhaustive: bool
    labels_only_in_test: int
    labels_only_in_validation: int
    products_with_such_a_label: int
    n_with_also: int
    attributes: tuple[AttributeSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return _render(self)


def describe(catalog: Catalog) -> Description:
    """Reads a catalog's columns, but no picture, and counts."""
    info, taxonomy = catalog.info, catalog.taxonomy
    per_part = {part: np.zeros(taxonomy.n_nodes, np.int64) for part in PARTS}
    languages: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    with_value = 0
    sides: dict[bytes, int] = {}  # hash of a text → the parts it stands in, as bits
    with_key = 0
    seen = Seen()
    columns = ["title", "description", "node_id", "language", "source", "value", "attributes"]
    for bit, part in enumerate(PARTS):
        for batch in catalog.tables(part, columns=columns):
            seen.add(batch)
            labelled = batch.column("node_id").drop_null().to_pylist()
            np.add.at(per_part[part], taxonomy.indices(labelled), 1)
            _count(languages, batch.column("language"))
            _count(sources, batch.column("source"))
            with_value += batch.num_rows - batch.column("value").null_count
            titles, descriptions = batch.column("title").to_pylist(), batch.column("description").to_pylist()
            for title, description in zip(titles, descriptions, strict=True):
                key = title_key(title or "") or title_key(description or "")
                if key:
                    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=12).digest()
                    sides[digest] = sides.get(digest, 0) | (1 << bit)
                    with_key += 1
    total = np.sum([*per_part.values()], axis=0)
    train = per_part["train"]
    unseen = {part: (per_part[part] > 0) & (train == 0) for part in PARTS}
    by_level = np.bincount(taxonomy.level, weights=total, minlength=taxonomy.n_levels + 1)
    return Description(
        **_facts(info),
        n_empty_leaves=int((taxonomy.is_leaf & (total == 0)).sum()),
        n_at_inner_nodes=int(total[~taxonomy.is_leaf].sum()),
        by_level={level: int(n) for level, n in enumerate(by_level.tolist()) if level},
        balance=_balance(catalog, train),
        by_language=dict(languages.most_common()),
        by_source=dict(sources.most_common()),
        n_with_value=with_value,
        n_repeated_texts=with_key - len(sides),
        n_texts_on_several_sides=sum(parts.bit_count() > 1 for parts in sides.values()),
        labels_only_in_test=int(unseen["test"].sum()),
        labels_only_in_validation=int(unseen["validation"].sum()),
        products_with_such_a_label=sum(int(per_part[part][unseen[part]].sum()) for part in PARTS),
        attributes=_attributes(catalog, seen),
    )


def _attributes(catalog: Catalog, seen: Seen) -> tuple[AttributeSummary, ...]:
    values: dict[str, Counter[str]] = {}
    for (name, value), n in seen.values.items():
        values.setdefault(name, Counter())[value] = n
    unknown = unknown_labels(seen, catalog.vocabulary)
    return tuple(
        AttributeSummary(
            name=attribute.name,
            kind=attribute.kind,
            multi=attribute.multi,
            n_labelled=seen.products[attribute.name],
            share=round(seen.products[attribute.name] / catalog.info.n_products, 4),
            n_values=len(values[attribute.name]),
            top=_top(values[attribute.name]),
            n_unknown=unknown.get(attribute.name, Counter()).total(),
            unknown=_top(unknown.get(attribute.name, Counter())),
        )
        for attribute in catalog.vocabulary.attributes
        if attribute.name in values
    )


def _top(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:_SHOWN])


def _facts(info: CatalogInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "frozen": info.frozen,
        "rows_in": info.rows_in,
        "n_products": info.n_products,
        "n_quarantined": info.n_quarantined,
        "by_split": dict(info.by_split),
        "quarantine_by_code": dict(info.quarantine_by_code),
        "warnings_by_code": dict(info.warnings_by_code),
        "n_nodes": info.n_nodes,
        "n_leaves": info.n_leaves,
        "n_levels": info.n_levels,
        "n_unlabelled": info.n_products - info.n_labelled,
        "n_without_text": info.n_products - info.n_with_text,
        "n_without_images": info.n_products - info.n_with_images,
        "n_with_urls_only": info.n_with_urls_only,
        "n_leaking_products": info.split.leaking_products,
        "largest_group": info.split.largest_group,
        "n_narrowed": info.split.n_narrowed,
        "near_exhaustive": info.split.exhaustive,
        "n_with_also": info.n_with_also,
    }


def _count(counter: Counter[str], column: pa.Array) -> None:
    for entry in pc.value_counts(column).to_pylist():
        counter[entry["values"] or ""] += entry["counts"]


def _balance(catalog: Catalog, counts: np.ndarray[Any, np.dtype[np.int64]]) -> Balance | None:
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    if not len(order):
        return None
    sizes = counts[order]
    n = len(sizes)
    n_head, n_torso, n_tail = np.bincount(head_torso_tail(sizes), minlength=len(FREQUENCIES)).tolist()
    ranks = np.arange(n, 0, -1)  # of the ascending order, since `sizes` descends
    gini = float(2 * (ranks * sizes).sum() / (n * sizes.sum()) - (n + 1) / n)
    return Balance(
        n_labels=n,
        n_head=n_head,
        n_torso=n_torso,
        n_tail=n_tail,
        largest=int(sizes[0]),
        median=float(np.median(sizes)),
        smallest=int(sizes[-1]),
        gini=round(gini, 4),
        top=tuple((catalog.taxonomy.path(int(k)), int(counts[k])) for k in order[:_SHOWN]),
    )


def _render(d: Description) -> str:
    kind = "golden set, frozen" if d.frozen else "catalog"
    lines = [
        f"{d.name} ({kind})",
        f"rows        {d.rows_in:,} = {d.n_products:,} accepted + {d.n_quarantined:,} quarantined"
        + (f" ({_pairs(d.quarantine_by_code)})" if d.n_quarantined else ""),
        f"split       {_pairs(d.by_split)}",
        f"tree        {d.n_nodes:,} nodes, {d.n_leaves:,} leaves ({d.n_empty_leaves:,} without a product), "
        f"{d.n_levels} levels",
        f"depth       {_pairs({f'level {level}': n for level, n in d.by_level.items()})}"
        + (f"; {d.n_at_inner_nodes:,} at inner nodes" if d.n_at_inner_nodes else ""),
    ]
    if d.balance is not None:
        b = d.balance
        lines.append(
            f"balance     {b.n_labels:,} labels in train: head {b.n_head:,}, torso {b.n_torso:,}, tail "
            f"{b.n_tail:,}; a label has {b.smallest:,} to {b.largest:,} products, median {b.median:g}; "
            f"Gini {b.gini:.2f}"
        )
        lines += [f"            {n:>9,}  {path}" for path, n in b.top]
    for title, counts in (("languages", d.by_language), ("sources", d.by_source)):
        if set(counts) - {""}:
            lines.append(f"{title:<12}{_pairs({name or 'not said': n for name, n in counts.items()})}")
    lines += [
        f"missing     {d.n_unlabelled:,} without a category, {d.n_without_text:,} without text, "
        f"{d.n_without_images:,} without pictures ({d.n_with_urls_only:,} of them with an address)",
        f"repeats     {d.n_repeated_texts:,} products repeat an earlier text; {d.n_texts_on_several_sides:,} "
        "texts stand in more than one part",
        f"leaks       {d.n_leaking_products:,} products are tied to another part by an equal or nearly equal "
        f"text or an equal picture; largest group {d.largest_group:,}",
        *(f"            {line}" for line in near_caveats(d.n_narrowed, exhaustive=d.near_exhaustive)),
        f"unseen      {d.labels_only_in_test:,} labels of test and {d.labels_only_in_validation:,} of "
        f"validation are not in train ({d.products_with_such_a_label:,} products)",
    ]
    if d.n_with_also:
        lines.append(f"also        {d.n_with_also:,} products have more than one right category")
    lines += _attribute_lines(d.attributes)
    if d.warnings_by_code:
        lines.append(f"warnings    {_pairs(d.warnings_by_code)}")
    return "\n".join(lines)


def _attribute_lines(attributes: tuple[AttributeSummary, ...]) -> list[str]:
    lines: list[str] = []
    for attribute in sorted(attributes, key=lambda a: -a.n_labelled)[:_SHOWN_ATTRIBUTES]:
        shown = ", ".join(f"{value[:40]} {n:,}" for value, n in attribute.top[:5])
        unknown = f"; {attribute.n_unknown:,} labels are not in the vocabulary" if attribute.n_unknown else ""
        if attribute.unknown:
            unknown += f" ({', '.join(f'{value[:40]} {n:,}' for value, n in attribute.unknown[:3])})"
        lines.append(
            f"{'' if lines else 'attributes':<12}{attribute.name}: {attribute.share:.1%} of the products, "
            f"{attribute.n_values:,} values ({shown}{', …' if attribute.n_values > 5 else ''}){unknown}"
        )
    if len(attributes) > _SHOWN_ATTRIBUTES:
        lines.append(f"            and {len(attributes) - _SHOWN_ATTRIBUTES:,} more attributes; --json has all")
    return lines


def near_caveats(n_narrowed: int, *, exhaustive: bool) -> list[str]:
    """What the search for nearly equal texts could not promise, a sentence each; mostly none."""
    caveats = []
    if n_narrowed:
        caveats.append(
            f"{n_narrowed:,} texts are one chain of nearly equal ones that no part could hold: it was parted, and "
            "the leaks across it are counted"
        )
    if not exhaustive:
        caveats.append("too many texts are alike to compare all of them: some nearly equal ones may be apart")
    return caveats


def _pairs(counts: Any) -> str:
    shown = [f"{name} {n:,}" for name, n in list(counts.items())[:12]]
    return ", ".join([*shown, "…"] if len(counts) > 12 else shown) or "none"
