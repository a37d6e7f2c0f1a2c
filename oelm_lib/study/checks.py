"""Whether plan, records and corpora still belong together."""

from typing import Any

from oelm_lib import config
from oelm_lib.config import Section
from oelm_lib.errors import UserError
from oelm_lib.study.cell import CONFIRM
from oelm_lib.study.grid import Grid
from oelm_lib.study.plan import Plan
from oelm_lib.study.records import Record, read_records, records_path
from oelm_lib.study.schema import Ladder, substance


def read_grid(name: str, plan: Plan) -> Grid:
    """Read the records of a study. Raises UserError for one of another study or plan."""
    records = read_records(records_path(name))
    check_records(records, name, plan)
    return Grid(plan, records)


def check_records(records: list[Record], name: str, plan: Plan) -> None:
    """Raise UserError where a record does not belong to the plan.

    It is of another study, of other settings, or confirms a size that the plan leaves out.
    """
    base = config.load_config(plan.base).science
    for number, record in enumerate(records, 1):
        where = f"reports/{name}/runs.jsonl: record {number}"
        if record.study != name:
            raise UserError(f"{where} is of study {record.study!r}; move it to that study's file")
        if not plan.has(record.cell):
            if record.size in plan.left_out and record.stage == CONFIRM:
                raise UserError(
                    f"{where} confirms size {record.size!r}, whose results are known: it can't be"
                    f" left out any more; delete ladder.sizes.{record.size}.left_out"
                )
            continue
        planned = base | plan.overrides(record.cell, record.rate)
        changed = {key: value for key, value in record.science.items() if planned.get(key) != value}
        if changed:
            key, value = next(iter(changed.items()))
            raise UserError(
                f"{where} ({record.cell}) is of another plan: {key} was {value!r}, is"
                f" {planned.get(key)!r}; take the change back, or declare another study"
            )


def check_corpora(records: list[Record], corpora: dict[str, dict[str, Any]]) -> None:
    """Raise UserError where a prepared corpus has other content than the one that records read.

    Args:
        corpora: Corpus name -> splits of its manifest.
    """
    for record in records:
        for split, facts in record.data["splits"].items():
            now = corpora.get(record.corpus)
            if now is not None and now.get(split, {}).get("sha256") != facts["sha256"]:
                raise UserError(
                    f"corpus {record.corpus}: its {split} split is not the one that recorded runs"
                    f" read (SHA-256 {facts['sha256'][:12]}); prepare it from the same files, or"
                    " declare another study"
                )


def check_only_adds(old: Plan, new: Plan) -> None:
    """Raise UserError where a plan whose confirmation began changes what it trains or judges."""
    for key in ("base", "set", "tune", "confirm"):
        if getattr(old, key) != getattr(new, key):
            raise _changed(key, getattr(old, key), getattr(new, key))
    for key in ("arms", "choices"):
        for name, value in getattr(old, key).items():
            now = getattr(new, key).get(name)
            if now is None or substance(now) != substance(value):
                raise _changed(f"{key}: {name}", value, now)
    if new.corpora[: len(old.corpora)] != old.corpora:
        raise _changed("corpora", old.corpora, new.corpora)
    kept = [substance(claim) for claim in new.claims]
    for claim in old.claims:
        if substance(claim) not in kept:
            raise _changed("claims", claim, None)
    if old.ladder is not None and _all_sizes(new.ladder) != _all_sizes(old.ladder):
        raise _changed("ladder", old.ladder, new.ladder)


def _all_sizes(ladder: Ladder | None) -> dict[str, Any] | None:
    """Return what a ladder says, but not which of its sizes are left out."""
    return ladder and ladder.model_dump(exclude={"sizes": {"__all__": {"left_out"}}})


def _changed(what: str, old: Any, new: Any) -> UserError:
    return UserError(
        f"the plan changed after its confirmation began: {what} was {_short(old)}, is"
        f" {_short(new)};"
        " take it back, or declare another study (only additions are allowed)"
    )


def _short(value: Any) -> str:
    if isinstance(value, Section):
        value = value.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    return "gone" if value is None else str(value)
