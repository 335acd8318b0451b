"""structlog for a process that must be small: whoever imports it first decides what it brings along (`imports`)."""

from lateen.lib.imports import without

with without("rich"):
    import structlog

__all__ = ["structlog"]
