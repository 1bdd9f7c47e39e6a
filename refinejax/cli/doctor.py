"""`refinejax doctor`: versions, devices, precision, cache, and what is wrong with them."""

import argparse
from typing import Any

from refinejax.commands.files import print_json
from refinejax.doctor import Diagnosis, diagnose


def add(commands: Any) -> None:
    """Add the command."""
    doctor = commands.add_parser("doctor", description="Versions, devices, precision, cache.")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    diagnosis = diagnose()
    if options.json:
        print_json(**diagnosis._asdict())
    else:
        _print_diagnosis(diagnosis)
    return 1 if diagnosis.problems else 0


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    facts = dict(diagnosis.facts)
    for name, version in facts.pop("versions").items():
        print(f"{name:<18} {version or 'not installed'}")
    for name, fact in facts.items():
        print(f"{name:<18} {', '.join(fact) if isinstance(fact, list) else fact}")
    for text in diagnosis.problems:
        print(f"\nproblem: {text}")
    for text in diagnosis.advice:
        print(f"\nadvice: {text}")
    if not diagnosis.problems:
        print("\nno problems found")
