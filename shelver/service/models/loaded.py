"""A model that is open, and what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shelver.decide import Policy, policy_named
from shelver.decide.attributes import check_rules
from shelver.decide.plan import plan_of
from shelver.decide.policies import DEFAULT
from shelver.pipeline import Classifier
from shelver.registry import Manifest
from shelver.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False, slots=True)
class Loaded:
    """A model that answers, and what belongs to it. A request takes it once and uses nothing else.

    Attributes:
        classifier: the open model.
        manifest: what its folder says of itself.
        folder: where it lies.
        own: the policies of the folder, by name.
        policies: these, and before them those of the service.
    """

    classifier: Classifier
    manifest: Manifest
    folder: Path
    own: Mapping[str, Policy]
    policies: Mapping[str, Policy]

    @property
    def model_version(self) -> str:
        return self.classifier.model_version

    @property
    def taxonomy(self) -> Taxonomy:
        return self.classifier.taxonomy

    @property
    def taxonomy_version(self) -> str:
        return self.manifest.taxonomy_version

    def policy(self, name: str | None = None) -> Policy:
        """A policy by its name; the default one where none is named.

        Raises:
            ConfigError: none has this name.
        """
        return policy_named(name if name is not None else DEFAULT, self.policies)

    def check(self, policy: Policy) -> None:
        """See to it that a policy fits this model.

        Raises:
            ConfigError: it names a node or an attribute that the model does not have.
        """
        stage = self.classifier.prob2pred
        plan_of(policy, stage.groups)
        check_rules(policy, stage.attributes)
