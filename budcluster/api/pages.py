"""Pages for people, served without anything from the internet: kinds of problems, and the API's documentation."""

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from budcluster.api.errors import every_kind
from budcluster.api.openapi import document
from budcluster.api.problems import problem_type, render_status
from budcluster.kit.errors import DomainError

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f4f5f7;padding:.8rem;overflow:auto;border-radius:6px}
details{border:1px solid #d8dce1;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}summary{cursor:pointer}
table{border-collapse:collapse;width:100%}td,th{text-align:left;border-bottom:1px solid #e4e7eb;padding:.3rem .6rem;
vertical-align:top}.m{display:inline-block;min-width:4.5rem;font-weight:700}.get{color:#0a6b3d}.post{color:#0b57a4}
.delete{color:#a4262c}.patch,.put{color:#8a5a00}
@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#15181c}pre{background:#20252b}
details,td,th{border-color:#39414a}.get{color:#5fd39a}.post{color:#7ab8f5}.delete{color:#f28b90}}
"""
_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Vary": "Accept"}


def router(app: FastAPI) -> APIRouter:
    """`/docs`, `/openapi.json`, `/problems` and `/problems/{slug}`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/openapi.json")
    async def openapi() -> Response:
        return Response(json.dumps(document(app)), media_type="application/json")

    @routes.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(_page("budcluster API", _documentation(document(app))), headers=_HEADERS)

    @routes.get("/problems")
    async def list_problems(request: Request) -> Response:
        return _explain(request, "Kinds of problems", every_kind())

    @routes.get("/problems/{slug}")
    async def explain_problem(slug: str, request: Request) -> Response:
        kinds = [kind for kind in every_kind() if kind.slug() == slug]
        if not kinds:
            return render_status(404, request.scope)
        return _explain(request, kinds[0].title, kinds)

    return routes


def _explain(request: Request, title: str, kinds: Iterable[type[DomainError]]) -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        text = "\n\n".join(f"{problem_type(k)} ({k.status})\n{k.title}\n\n{_meaning(k)}" for k in kinds)
        return PlainTextResponse(text + "\n", headers={"Vary": "Accept"})
    entries = (
        f"<h2>{escape(k.title)}</h2><p><code>{escape(problem_type(k))}</code>, status {k.status}</p>"
        f"<p>{_prose(_meaning(k))}</p>"
        for k in kinds
    )
    return HTMLResponse(_page(title, "".join(entries)), headers=_HEADERS)


def _meaning(kind: type[DomainError]) -> str:
    return " ".join((kind.__doc__ or kind.title).split())


def _page(title: str, body: str) -> str:
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title>"
    return f"<!doctype html><html lang=en>{head}<style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>"


def _documentation(spec: dict[str, Any]) -> str:
    parts = [f"<p>{_prose(line)}</p>" for line in spec["info"]["description"].split("\n\n")]
    parts.append(
        "<p>The same for programs: <a href=/openapi.json>openapi.json</a>; errors: <a href=/problems>/problems</a>.</p>"
    )
    for path, item in spec["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in item.items()]
    parts.append("<h2>Schemas</h2>")
    for name, schema in spec["components"]["schemas"].items():
        parts.append(
            f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>{_pre(schema)}</details>"
        )
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    head = (
        f"<span class='m {method}'>{method.upper()}</span> <code>{escape(path)}</code> {escape(operation['summary'])}"
    )
    parts = [f"<p>{_prose(operation.get('description', ''))}</p>"]
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code><td>{p['in']}{', required' if p.get('required') else ''}"
            f"<td>{_prose(p.get('description', ''))}<td><code>{escape(_brief(p.get('schema', {})))}</code>"
            for p in parameters
        )
        parts.append(f"<table><tr><th>Parameter<th>Where<th>Meaning<th>Type{rows}</table>")
    if body := operation.get("requestBody"):
        parts.append(f"<h4>Body</h4>{_pre(body['content'])}")
    rows = "".join(
        f"<tr><td>{escape(status)}<td>{_prose(answer.get('description', ''))}<td>{_links(answer)}"
        for status, answer in sorted(operation["responses"].items())
    )
    parts.append(f"<table><tr><th>Status<th>Meaning<th>What{rows}</table>")
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _links(answer: dict[str, Any]) -> str:
    shown = []
    for media in answer.get("content", {}).values():
        name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if media.get("examples"):
            shown += [f"<a href='/problems/{escape(slug)}'>{escape(slug)}</a>" for slug in media["examples"]]
        elif name:
            shown.append(f"<a href='#{escape(name)}'>{escape(name)}</a>")
    return ", ".join(shown)


def _brief(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(_brief(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"[{_brief(schema.get('items', {}))}]"
    return str(schema.get("$ref", "").rpartition("/")[2] or schema.get("type", "any"))


def _pre(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _prose(text: str) -> str:
    """A sentence as HTML; what stands between backticks is code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


_CODE: Final = re.compile(r"`([^`]+)`")
