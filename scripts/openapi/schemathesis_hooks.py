#!/usr/bin/env python3
"""What schemathesis must not send as allowed, because JSON Schema cannot say that it is forbidden."""

import schemathesis


def written_as_integers(value: object) -> object:
    """JSON Schema takes 1.0 for an integer; the edge wants integers written as such."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [written_as_integers(member) for member in value]
        case dict():
            return {name: written_as_integers(member) for name, member in value.items()}
    return value


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: object) -> object:  # noqa: ARG001 # the hook's form
    return written_as_integers(body)


@schemathesis.hook
def map_query(context: schemathesis.HookContext, query: object) -> object:  # noqa: ARG001 # the hook's form
    return written_as_integers(query)
