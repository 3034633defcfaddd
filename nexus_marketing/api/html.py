"""Pages for people who have no account here: what they read, and nothing that runs or is fetched."""

from pyramid.response import Response

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><title>{title}</title></head>
<body><main><h1>{title}</h1>{body}</main></body></html>
"""
_POLICY = "default-src 'none'; form-action 'self'; frame-ancestors 'none'"


def page(title: str, body: str, status: int = 200) -> Response:
    """A whole page.

    Args:
        title: text without markup of others.
        body: HTML.
        status: of the answer.
    """
    response = Response(_PAGE.format(title=title, body=body), status=status, content_type="text/html", charset="utf-8")
    response.headers["Content-Security-Policy"] = _POLICY
    return response
