"""Colours and markers: readable on both papers, the same for a kernel everywhere, distinct within a family."""

from __future__ import annotations

from itertools import combinations

from kerneldyno.reports import styles


def luminance(color: str) -> float:
    """Relative luminance by WCAG 2."""
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_colour_has_three_to_one_on_its_paper() -> None:
    for (light, dark), _ in [*styles.FAMILIES.values(), *styles.STRANGERS]:
        assert contrast(light, styles.LIGHT_PAPER) >= 3
        assert contrast(dark, styles.DARK_PAPER) >= 3


def test_known_families_differ_in_colour_or_marker() -> None:
    looks = [(colors[0], symbol) for colors, symbol in styles.FAMILIES.values()]
    assert len(set(looks)) == len(looks)
    assert {symbol for _, symbol in looks} | set(styles.SIBLING_SYMBOLS) <= set(styles.PATHS)


def test_a_family_shares_a_colour_but_no_marker() -> None:
    drawn = styles.styles([(f"attention/{name}", "sdpa", False) for name in ("sdpa_math", "sdpa", "sdpa_flash", "sdpa_cudnn")])
    assert len({look.light for look in drawn.values()}) == 1
    assert all(one.symbol != other.symbol for one, other in combinations(drawn.values(), 2))
    assert drawn["attention/sdpa"].symbol == "square"


def test_a_family_looks_alike_in_every_operator_and_approximations_are_hollow() -> None:
    drawn = styles.styles([("attention/int8", "int8", True), ("layer/int8", "int8", True), ("layer/mine", "mine", False)])
    assert drawn["attention/int8"] == drawn["layer/int8"]
    assert drawn["attention/int8"].hollow
    assert drawn["attention/int8"].path == styles.PATHS["circle"]
    assert not drawn["layer/mine"].hollow
