"""Operations on what the service answers with: models, policies, the tree."""

from __future__ import annotations

from urllib.parse import quote

from shelver.client.call import Call, Stated, checked, get, given, nothing, part, post, reads
from shelver.decide import Policy
from shelver.service.models.node_payloads import NodeQualityOut
from shelver.service.models.payloads import (
    ChangedOut,
    FoundNodes,
    ModelOut,
    ModelsOut,
    NodeDetail,
    PoliciesOut,
    PolicyOut,
    TaxonomyOut,
)
from shelver.service.models.preview_payloads import PolicySource, PreviewOut


def list_models() -> Call[ModelsOut]:
    """All registered models."""
    return get("/v1/models", ModelsOut)


def read_model(version: str) -> Call[ModelOut]:
    """One registered model."""
    return get(f"/v1/models/{part(version)}", ModelOut)


def register_model(path: str, *, model_version: str | None = None, challenger: bool = False) -> Call[ModelOut]:
    """Register a folder that lies in the service's import folder."""
    body = {"path": path, "challenger": challenger} | given(model_version=model_version)
    return post("/v1/models", ModelOut, body)


def promote_model(version: str) -> Call[ChangedOut]:
    """Let a registered model answer."""
    return Call("POST", f"/v1/models/{part(version)}/promote", reads(ChangedOut))


def roll_back() -> Call[ChangedOut]:
    """Let the previous model answer again."""
    return Call("POST", "/v1/models/rollback", reads(ChangedOut))


def list_policies() -> Call[PoliciesOut]:
    """The policies that a prediction may name."""
    return get("/v1/policies", PoliciesOut)


def read_policy(name: str) -> Call[PolicyOut]:
    """One policy."""
    return get(f"/v1/policies/{part(name)}", PolicyOut)


def write_policy(name: str, policy: Policy | Stated) -> Call[PolicyOut]:
    """Keep a policy that fits the current model."""
    kept: Policy = checked(policy, Policy, "policy")
    body = {"json": kept.model_dump(mode="json", exclude_defaults=True)}
    return Call("PUT", f"/v1/policies/{part(name)}", reads(PolicyOut), body=body, repeatable=True)


def preview_policy(
    name: str = "default",
    *,
    precision: float | None = None,
    policy: Policy | Stated | None = None,
    delta: float | None = None,
    source: PolicySource | None = None,
    days: int | None = None,
    limit: int | None = None,
    skip: int | None = None,
) -> Call[PreviewOut]:
    """What a policy, or a target precision in place of its thresholds, would change; nothing is saved."""
    kept: Policy | None = None if policy is None else checked(policy, Policy, "policy")
    body = {"name": name} | given(
        precision=precision, delta=delta, source=source, days=days, limit=limit, skip=skip
    )
    if kept is not None:
        body["policy"] = kept.model_dump(mode="json", exclude_defaults=True)
    return post("/v1/policies/preview", PreviewOut, body)


def delete_policy(name: str) -> Call[None]:
    """Forget a policy of the service."""
    return Call("DELETE", f"/v1/policies/{part(name)}", nothing)


def read_taxonomy() -> Call[TaxonomyOut]:
    """Size and first level of the tree."""
    return get("/v1/taxonomy", TaxonomyOut)


def search_nodes(q: str, *, n: int = 20) -> Call[FoundNodes]:
    """Nodes of the tree by words of their names and paths."""
    return get("/v1/taxonomy/search", FoundNodes, q=q, n=n)


def read_node(node_id: str) -> Call[NodeDetail]:
    """A node: its path, its children, the attributes that apply to it."""
    return get(f"/v1/taxonomy/nodes/{quote(node_id)}", NodeDetail)


def read_node_quality(node_id: str | None = None, *, days: int = 30) -> Call[NodeQualityOut]:
    """Products, predictions, accuracy and confusions of a node and its children; of the whole tree without one."""
    return get("/v1/taxonomy/quality", NodeQualityOut, **given(node_id=node_id), days=days)
