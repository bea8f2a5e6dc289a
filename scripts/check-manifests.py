"""Every object of a manifest against the schema of its kind: check-manifests.py MANIFEST DEFINITION..."""

import sys

import jsonschema
import kubernetes_validate
import yaml


def strictly(schema):
    """A definition's schema that refuses fields it does not know, as an API server with strict validation does."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            strictly(value)
    elif isinstance(schema, list):
        for value in schema:
            strictly(value)
    return schema


def own_kinds(paths):
    kinds = {}
    for path in paths:
        with open(path) as file:
            definition = yaml.safe_load(file)["spec"]
        for version in definition["versions"]:
            schema = strictly(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            kinds[(f"{definition['group']}/{version['name']}", definition["names"]["kind"])] = schema
    return kinds


manifest, *definitions = sys.argv[1:]
kinds = own_kinds(definitions)
with open(manifest) as file:
    objects = [found for found in yaml.safe_load_all(file) if found]
assert objects, f"{manifest} is empty"
for found in objects:
    name = f"{found['kind']} {found['metadata']['name']}"
    schema = kinds.get((found["apiVersion"], found["kind"]))
    try:
        if schema:
            jsonschema.validate(found, schema)
        else:
            kubernetes_validate.validate(found, "1.33", strict=True)
    except Exception as error:
        path = "/".join(str(part) for part in getattr(error, "path", []))
        sys.exit(f"{name}: {path}: {getattr(error, 'message', error)}")
    print(f"{name}: fits {found['apiVersion']}")
