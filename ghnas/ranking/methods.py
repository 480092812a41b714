"""Ways to score an architecture, by name, and what to score."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ghnas.data import ImageData, evaluation_batches, random_batches
from ghnas.ghn.config import GHNInfo
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import SCORE_BATCH, Batch
from ghnas.scoring.predictor import Predictor, shipped_predictor
from ghnas.scoring.proxies import PROXIES, VOTERS
from ghnas.spaces import Space
from ghnas.spaces.files import EARLIER_NAMES
from ghnas.utils.errors import UserError
from ghnas.utils.processes import LocalPool, Pool

GHN_METHODS = ("ghn-accuracy", "ghn-loss", "ghn-naswot")
COMPOSITE = "composite"
PREDICTED = "predicted"
"""By the predictor that ships for the space and the images."""
COMPONENT_METHODS = {"fit": "ghn-loss", "separability": "ghn-naswot", "size": "ghn-size"}
"""The base method of each of `ghnas.scoring.composite.Components`."""
DERIVED = {"vote": VOTERS, COMPOSITE: tuple(COMPONENT_METHODS.values())}
"""Methods that follow from others' scores, and which."""
ENSEMBLE = "ensemble"
SHORT = re.compile(r"(ghn-)?(steps|tse)-([1-9][0-9]{0,3})")
"""A short training: from which weights, what is looked at, and for how many steps."""
DEFAULT = ("ghn-accuracy", "ghn-loss", COMPOSITE, *PROXIES, "vote", ENSEMBLE)

STEP_IMAGES = 64
"""Images of each step of a short training, as in a search's short list."""


@dataclass(frozen=True)
class ScoreJob:
    """What to score.

    Args:
        space: With the skeleton that weights are predicted for.
        proxy_space: With the skeleton that the proxies see.
        data: Training and validation images.
        architectures: In the space's notation; where the composite score is wanted, random ones
            are scored beside them, see `ghnas.scoring.composite.reference_candidates`.
        methods: Names of methods, as `check_methods` takes them.
        ghn: The hypernetwork, if a method needs one.
        output: The CSV file of scores.
        score_images: Validation images for scores with predicted weights.
        proxy_images: Training images for the proxies.
        seed: Of the proxies' initialisation and of the order of training images.
        pool: Whose workers score, one torch thread each.
    """

    space: Space
    proxy_space: Space
    data: ImageData
    architectures: Sequence[str]
    methods: Sequence[str]
    ghn: GHN | None
    output: Path
    score_images: int = 512
    proxy_images: int = 64
    seed: int = 0
    pool: Pool = field(default_factory=lambda: LocalPool(1))

    @property
    def ghn_name(self) -> str:
        """Of which hypernetwork, skeleton and images predicted weights are; empty without one."""
        if self.ghn is None:
            return ""
        return (
            f"{self.ghn.info.sha256[:12]}; {describe_size(self.space.skeleton)}; "
            f"{self.score_images} validation images, {SCORE_BATCH} at a time"
        )

    @cached_property
    def images(self) -> ImageData:
        """The data as all methods see it, as in a search: as the hypernetwork knows images."""
        info = self.ghn.info if self.ghn else GHNInfo()
        return self.data.normalised_with(info.mean, info.std)

    @cached_property
    def checks(self) -> Sequence[Batch]:
        """Validation batches for predicted weights."""
        data = self.images
        return evaluation_batches(
            data.validation.take(self.score_images), SCORE_BATCH, device="cpu",
            mean=data.mean, std=data.std,
        )  # fmt: skip

    @cached_property
    def batch(self) -> Batch:
        """Training images and labels for the proxies."""
        return next(self._training(self.proxy_images))

    @cached_property
    def steps(self) -> Sequence[Batch]:
        """Training batches for short trainings, augmented as in a search's short list."""
        batches = self._training(STEP_IMAGES, mirror=self.images.mirror, shift=1)
        return list(islice(batches, max(map(steps_of, self.methods))))

    def _training(self, size: int, **augmentation: Any) -> Iterator[Batch]:
        data = self.images
        return random_batches(
            data.train, size, seed=self.seed, device="cpu", mean=data.mean, std=data.std,
            **augmentation,
        )  # fmt: skip

    @cached_property
    def predictor(self) -> Predictor:
        """The one that ships."""
        return shipped_predictor(self.space, self.data.name)

    def settings(self) -> dict[str, Any]:
        """What scores in one file must agree in."""
        normalisation = self.images.mean, self.images.std
        own = (self.data.mean, self.data.std) == normalisation
        return {
            "space": self.space.name,
            "proxy_skeleton": dict(self.proxy_space.skeleton),
            "data": self.data.name,
            "data_fingerprint": self.data.fingerprint,
            "image_size": self.data.image_shape[-1],
            "proxy_images": self.proxy_images,
        } | ({} if own else {"normalised_with": normalisation})

    def weights(self, method: str) -> str:
        """Which weights a method's scores are of."""
        if method == PREDICTED:
            return "none"
        return self.ghn_name if needs_ghn(method) else f"Kaiming, seed {self.seed}"


def describe_size(skeleton: Mapping[str, Any]) -> str:
    """As `5 cells, 8 channels`, where a skeleton has them."""
    known = [key for key in ("cells", "channels") if key in skeleton]
    return ", ".join(f"{skeleton[key]} {key}" for key in known)


@dataclass(frozen=True)
class Scored:
    """A score and the seconds that it took on one core."""

    score: float
    seconds: float


def listed_methods(text: str) -> list[str]:
    """The methods of a comma-separated list, each once; `default` stands for `DEFAULT`.

    Raises:
        UserError: If there is none; naming the one that is not, and all that there are.
    """
    names: dict[str, None] = {}
    for name in filter(None, map(str.strip, text.split(","))):
        names |= dict.fromkeys(DEFAULT if name == "default" else (EARLIER_NAMES.get(name, name),))
    known = [*GHN_METHODS, *PROXIES, *DERIVED, ENSEMBLE, PREDICTED]
    if not names:
        raise UserError(f"no method is named: use {', '.join(known)}")
    for name in names:
        if name not in known and not SHORT.fullmatch(name):
            raise UserError(
                f"unknown method {name!r}: use {', '.join(known)}, or steps-K, tse-K, "
                "ghn-steps-K, ghn-tse-K for K SGD steps"
            )
    return list(names)


def steps_of(method: str) -> int:
    """SGD steps that a method takes."""
    match = SHORT.fullmatch(method)
    return int(match[3]) if match else 0


def base_methods(names: Sequence[str]) -> list[str]:
    """What must be computed for the methods named: themselves, or what they follow from."""
    result: dict[str, None] = {}
    for name in names:
        result |= dict.fromkeys(DERIVED.get(name, () if name == ENSEMBLE else (name,)))
    return list(result)


def needs_ghn(method: str) -> bool:
    """Whether a method predicts weights."""
    return method.startswith("ghn-") or method == COMPOSITE
