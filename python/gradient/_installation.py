"""Tell what is wrong when the package is not whole: other distributions bring the import name `gradient` too."""

from __future__ import annotations

FOREIGN = {
    "gradient-desc": "the ancestor of gradient-store",
    "gradient": "an unrelated, retired SDK",
}
"""Distributions that install a package of our import name, and so overwrite our files."""


def explain(error: ImportError) -> None:
    """Raise an ImportError that names the distribution in our way; return if there is none.

    Looks at what is installed, so it is called only when something is off.
    """
    found = installed_foreign()
    if found:
        listed = " and ".join(f"{name} ({FOREIGN[name]})" for name in found)
        raise ImportError(
            f"gradient is not whole: {error}. {listed} installs the same import name and overwrites gradient-store; "
            f"to mend it: pip uninstall {' '.join(found)} && pip install --force-reinstall --no-deps gradient-store"
        ) from error


def installed_foreign() -> list[str]:
    """Name the installed distributions that bring the import name `gradient` and are not ours."""
    from importlib.metadata import PackageNotFoundError, distribution

    found = []
    for name in FOREIGN:
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found
