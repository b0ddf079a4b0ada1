"""Bar charts as one SVG file, without a library: a panel a figure, a bar a contestant, ours in colour. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 920
COLUMNS = 2
MARGIN, GAP = 24, 32
LABEL_WIDTH, VALUE_WIDTH = 112, 62
BAR_HEIGHT, BAR_STEP = 15, 21
TITLE_HEIGHT, HEADER_HEIGHT, FOOTER_LINE = 30, 58, 16

STYLE = """
  svg { font: 12px system-ui, sans-serif; }
  .paper { fill: #ffffff } .text { fill: #1f2328 } .faint { fill: #656d76 }
  .own { fill: #0969da } .sealed { fill: #8c959f } .clear { fill: #d0d7de }
  .title { font-weight: 600 } .head { font-size: 17px; font-weight: 600 } .small { font-size: 11px }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .text { fill: #e6edf3 } .faint { fill: #8d96a0 }
    .own { fill: #4493f8 } .sealed { fill: #768390 } .clear { fill: #3d444d }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One contestant's value; `kind` is own, sealed or clear (plaintext)."""

    label: str
    value: float
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        return TITLE_HEIGHT + BAR_STEP * len(self.bars) + GAP // 2


def draw(title: str, panels: Sequence[Panel], footer: Sequence[str]) -> str:
    """The whole picture."""
    panel_width = (WIDTH - 2 * MARGIN - GAP * (COLUMNS - 1)) // COLUMNS
    parts, y = [], HEADER_HEIGHT
    for start in range(0, len(panels), COLUMNS):
        row = panels[start : start + COLUMNS]
        for column, panel in enumerate(row):
            parts += _panel(panel, MARGIN + column * (panel_width + GAP), y, panel_width)
        y += max(panel.height for panel in row)
    parts += [_text(MARGIN, y + FOOTER_LINE * (n + 1), line, "faint small") for n, line in enumerate(footer)]
    height = y + FOOTER_LINE * (len(footer) + 1)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        _text(MARGIN, 30, title, "text head"),
        *_legend(48),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _legend(y: int) -> list[str]:
    parts, x = [], MARGIN
    for kind, label in (
        ("own", "l2overlay (encrypted)"),
        ("sealed", "others, encrypted"),
        ("clear", "others, plaintext"),
    ):
        parts += [
            f'<rect class="{kind}" x="{x}" y="{y - 9}" width="10" height="10"/>',
            _text(x + 15, y, label, "faint small"),
        ]
        x += 40 + 6 * len(label)
    return parts


def _panel(panel: Panel, x: int, y: int, width: int) -> list[str]:
    parts = [_text(x, y + 20, panel.title, "text title")]
    largest = max((bar.value for bar in panel.bars), default=0) or 1
    room = width - LABEL_WIDTH - VALUE_WIDTH
    for number, bar in enumerate(panel.bars):
        top = y + TITLE_HEIGHT + number * BAR_STEP
        length = max(1.0, room * bar.value / largest)
        parts += [
            _text(x + LABEL_WIDTH - 8, top + 12, bar.label, "text", "end"),
            f'<rect class="{bar.kind}" x="{x + LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}"/>',
            _text(x + LABEL_WIDTH + length + 6, top + 12, bar.text, "faint"),
        ]
    return parts


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
