"""Mutated pictures: each ends as an RGB picture or as an ImageError, within two seconds."""

from __future__ import annotations

import resource
import time

import numpy as np
import pytest
from hostile_pictures import mutated

from shelver.errors import ImageError
from shelver.images import IMAGE_CODES, MAX_PIXELS, ImageSpec, decode, fit

SPEC = ImageSpec()
SLOWEST_S = 2.0


def run(n_pictures: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes: dict[str, int] = {}
    for number in range(n_pictures):
        data = mutated(rng)
        start = time.perf_counter()
        try:
            image = decode(data, target_px=(224, 224))
            code = "rgb"
        except ImageError as error:
            code = error.code
        else:
            assert image.mode == "RGB"
            assert image.width * image.height <= MAX_PIXELS
            assert fit(image, SPEC).shape == (224, 224, 3)
        elapsed_s = time.perf_counter() - start
        assert code == "rgb" or code in IMAGE_CODES
        assert elapsed_s < SLOWEST_S, f"picture {number} of seed {seed} took {elapsed_s:.1f} s and ended as {code}"
        codes[code] = codes.get(code, 0) + 1
    assert sum(codes.values()) == n_pictures
    assert codes["rgb"] > n_pictures / 10
    assert len(codes) >= 4, codes
    peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) / 1024
    assert peak_mb < 1_000, f"decoding took {peak_mb:.0f} MB"


def test_100_mutated_pictures_end_as_a_picture_or_a_code() -> None:
    run(100, seed=1)


@pytest.mark.drill
def test_1000_mutated_pictures_end_as_a_picture_or_a_code() -> None:
    run(1_000, seed=2)
