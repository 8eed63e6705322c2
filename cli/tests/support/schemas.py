"""Validates image documents with the JSON schemas that the OCI image-spec publishes, as Debian packages them.

    schemas.py SCHEMA=FILE...

SCHEMA is the name of a file of the schemas without its ending, such as image-manifest-schema.  Prints what a schema
refuses, with the place in the document, and exits with 1 if there was anything.  Nothing is fetched: all that the schemas
refer to lies beside them.
"""

import datetime
import json
import os
import sys
import urllib.parse

import jsonschema

SCHEMAS = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema"
FORMATS = jsonschema.FormatChecker(formats=[])


@FORMATS.checks("date-time", raises=ValueError)
def is_time(text):
    return not isinstance(text, str) or datetime.datetime.fromisoformat(text).tzinfo is not None


@FORMATS.checks("uri", raises=ValueError)
def is_uri(text):
    return not isinstance(text, str) or bool(urllib.parse.urlsplit(text).scheme)


def load(name):
    with open(os.path.join(SCHEMAS, name), "rb") as file:
        return json.load(file)


def beside(uri):
    """What a schema refers to by a name beside its own, which the ids within schemas move to many places."""
    return load(os.path.basename(urllib.parse.urlsplit(uri).path))


def refused(schema, path):
    schema = load(schema + ".json")
    with open(path, "rb") as file:
        document = json.load(file)
    resolver = jsonschema.RefResolver.from_schema(schema, handlers={"https": beside})
    jsonschema.Draft4Validator.check_schema(schema)
    validator = jsonschema.Draft4Validator(schema, resolver=resolver, format_checker=FORMATS)
    for error in validator.iter_errors(document):
        place = "/".join(str(step) for step in error.absolute_path)
        yield "%s: /%s: %s" % (path, place, error.message)


def main(words):
    found = [line for word in words for line in refused(*word.split("=", 1))]
    print("\n".join(found), end="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
