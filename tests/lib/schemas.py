"""Makes the JSON schemas of the package kubernetes-validate such that kubeconform finds what they refer to.

    schemas.py SOURCE TARGET

They name each other by a web address; here they stand in one folder, so a name is enough.
"""

import json
import pathlib
import sys

SHARED = "_definitions.json"


def local(schema):
    """The same schema with references into its own folder."""
    if isinstance(schema, list):
        return [local(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {}
    for key, value in schema.items():
        if key == "$id" and isinstance(value, str):
            continue
        if key == "$ref" and isinstance(value, str):
            value = value.replace("/api/" + SHARED, SHARED)
        made[key] = local(value)
    return made


def main():
    """Rewrites every file of a folder into another."""
    source, target = (pathlib.Path(argument) for argument in sys.argv[1:])
    files = sorted(source.glob("*.json"))
    if SHARED not in [file.name for file in files]:
        sys.exit(f"{source} has no {SHARED}")
    target.mkdir()
    for file in files:
        schema = local(json.loads(file.read_text()))
        (target / file.name).write_text(json.dumps(schema))


main()
