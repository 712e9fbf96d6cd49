"""A figure as the eye reads it: shapes by class, texts, and how large the drawing is."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise


class Drawing:
    """A parsed SVG."""

    def __init__(self, svg: str) -> None:
        self.root = ET.fromstring(svg)
        for element in self.root.iter():
            element.tag = element.tag.rpartition("}")[2]
        self.width, self.height = map(float, self.root.attrib["viewBox"].split()[2:])

    @property
    def title(self) -> str:
        return self.root.findtext("title") or ""

    def all(self, tag: str, kind: str = "") -> list[ET.Element]:
        """Elements of a tag that have this class, in the order they are drawn."""
        return [e for e in self.root.iter(tag) if not kind or kind in e.get("class", "").split()]

    def one(self, tag: str, kind: str = "") -> ET.Element:
        (element,) = self.all(tag, kind)
        return element

    def text(self, said: str) -> ET.Element:
        (element,) = [e for e in self.root.iter("text") if e.text == said]
        return element

    def frame_holds_everything(self) -> bool:
        """Whether every shape lies inside the drawing."""
        places = [place for e in self.root.iter() for place in _places(e)]
        return all(0 <= x <= self.width and 0 <= y <= self.height for x, y in places)


def number(element: ET.Element, name: str) -> float:
    return float(element.attrib[name])


def points(line: ET.Element) -> list[tuple[float, float]]:
    """Corners of a polyline."""
    x_and_y = [pair.split(",") for pair in line.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in x_and_y]


def is_rising(values: list[float]) -> bool:
    return all(first < second for first, second in pairwise(values))


def _places(element: ET.Element) -> list[tuple[float, float]]:
    get = {name: float(value) for name, value in element.attrib.items() if re.fullmatch(r"-?[\d.]+", value)}
    if element.tag == "circle":
        return [(get["cx"], get["cy"])]
    if element.tag == "line":
        return [(get["x1"], get["y1"]), (get["x2"], get["y2"])]
    if element.tag == "rect":
        left, top = get.get("x", 0.0), get.get("y", 0.0)
        return [(left, top), (left + get["width"], top + get["height"])]
    if element.tag == "text" and "x" in get:
        return [(get["x"], get["y"])]
    return points(element) if element.tag == "polyline" else []
