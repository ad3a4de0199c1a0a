"""Colour profiles of pictures to sRGB, by Pillow's Little CMS."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode for the pixels that a profile is of."""

LEAST_WHITE = 240
"""Of 255 in sRGB: conversion keeps white, unless bytes of the profile are damaged."""


class Profile(NamedTuple):
    """A colour profile that fits its picture.

    Args:
        name: As the profile calls itself.
        mode: Of the pixels that it is of.
        to_srgb: What converts them to sRGB, perceptually; None if they are in sRGB already.
        data: The profile's bytes.
    """

    name: str
    mode: str
    to_srgb: ImageCms.ImageCmsTransform | None
    data: bytes


def profile_of(image: Image.Image, notes: list[str]) -> Profile | None:
    """Return a picture's profile; None without one, or if it is broken or of other channels.

    An RGB profile is good for grey pictures too.

    Args:
        image: Its mode and profile count; LAB pictures need none.
        notes: Gets a line about a profile that is left out.
    """
    if "icc_profile" not in image.info or image.mode == "LAB":
        return None
    data = image.info["icc_profile"] or b""
    try:
        name, mode, transform = _transform(data)
        is_grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
        if (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and not is_grey):
            raise ValueError(f"it is of {mode}, the picture of {image.mode}")
    except Exception as error:  # Little CMS's errors have no common class
        reason = " ".join(str(error).split())
        notes.append(
            f"has a colour profile that cannot be used: its colours are taken as they are ({reason})"
        )
        return None
    return Profile(name, mode, transform, data)


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> tuple[str, str, ImageCms.ImageCmsTransform | None]:
    """Return a profile's name, the mode of its pixels, and what converts them; None if they are in sRGB."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    name = "".join(filter(str.isprintable, ImageCms.getProfileDescription(opened).strip()))
    space = opened.profile.xcolor_space.strip()
    if space not in MODES:
        raise ValueError(f"it is of {space}")
    mode = MODES[space]
    transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    white = Image.new(mode, (1, 1), (0, 0, 0, 0) if mode == "CMYK" else "white")
    brightest = tuple(np.array(converted(white, transform))[0, 0].tolist())
    if min(brightest) < LEAST_WHITE:
        raise ValueError(f"its white is {brightest} in sRGB")
    return name or "without a name", mode, None if _keeps_srgb(transform) else transform


def converted(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """Return a picture with its colours converted."""
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # as it is where a picture is converted in place
    return result


def _keeps_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether a transform changes no colour by more than 1 of 255: then only its rounding does."""
    if transform.input_mode == "CMYK":
        return False
    if transform.input_mode == "L":
        colors = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        colors = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3))
    result = np.array(converted(colors, transform)).astype(int)
    return bool(abs(result - np.array(colors.convert("RGB"))).max() <= 1)
