"""Writes docs/findings from the checks. A test says when they are out of date."""

from __future__ import annotations

from pathlib import Path

from lateen.analysis.pages import pages

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "findings"


def main() -> None:
    """Writes all pages and removes those of codes that are gone."""
    wanted = pages()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
