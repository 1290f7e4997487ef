"""The documentation: complete, true, and without a byte from elsewhere."""

import json
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.http import Account, System

#: Who may ask: everybody, who is logged in, who has the connection's token.
PUBLIC = {("post", "/api/v1/login"), ("post", "/api/v1/refresh"), ("get", "/health/live"), ("get", "/health/ready")}
WEBHOOK = ("post", "/webhooks/evolution/{identifier}")
GLOBAL_WEBHOOK = ("post", "/webhooks/evolution/global")


class Links(HTMLParser):
    """Everything that a page asks a browser to load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href", "action", "data") and value]


@pytest.fixture(scope="module")
def document(system: System) -> dict[str, Any]:
    """The OpenAPI document."""
    answer = system.client.get("/docs/openapi.json")
    assert answer.status_code == 200
    decoded: dict[str, Any] = answer.json()
    return decoded


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, told) for path, told_of in document["paths"].items() for method, told in told_of.items()]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [reference for inner in value.values() for reference in references(inner)]
    return [reference for inner in value for reference in references(inner)] if isinstance(value, list) else []


def test_the_page_loads_nothing_from_elsewhere(system: System) -> None:
    answer = system.client.get("/docs", follow_redirects=True)
    assert answer.status_code == 200
    page = Links()
    page.feed(answer.text)
    assert len(page.found) >= 3
    for link in page.found:
        address = urlsplit(link)
        if address.scheme == "data":
            continue
        assert not address.netloc, link
        asset = system.client.get(link)
        assert asset.status_code == 200, link
        assert len(asset.content) > 1000
        assert asset.headers["content-type"].startswith(("text/javascript", "text/css"))
    # Nor does what the page's own script says.
    for elsewhere in ("cdn.", "jsdelivr", "unpkg", "googleapis"):
        assert elsewhere not in answer.text
    assert system.client.get("/").headers["location"] == "/docs"
    for name in ("../app.py", "..%2f..%2fapp.py", "/etc/passwd", "swagger_bundle.js.map"):
        assert system.client.get(f"/docs/assets/{name}").status_code == 404


def test_the_document_holds_together(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "EvoSense"
    for reference in references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]
    names = [told["operationId"] for _, _, told in operations(document)]
    assert len(names) == len(set(names))
    for method, path, told in operations(document):
        assert told["responses"], path
        assert told.get("description") or told.get("summary"), f"{method} {path} is not explained"
        assert told["tags"], path
        wanted = {step[1:-1] for step in path.split("/") if step.startswith("{")}
        given = {parameter["name"] for parameter in told.get("parameters", []) if parameter["in"] == "path"}
        assert wanted == given, path


def test_who_may_ask_is_told(document: dict[str, Any]) -> None:
    scheme = document["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for method, path, told in operations(document):
        needed = told.get("security") or []
        if (method, path) in PUBLIC | {WEBHOOK, GLOBAL_WEBHOOK}:
            assert not needed, path
        else:
            assert needed == [{"bearer": []}], path


def test_every_documented_place_answers(system: System, root: Account, document: dict[str, Any]) -> None:
    """Asked by somebody who may do everything: each operation is there, and its answer is one of those documented."""
    for method, path, told in operations(document):
        place = path.replace("{identifier}", "999999999").replace("{tenant_id}", "00000000-0000-4000-8000-000000000000")
        if (method, path) == WEBHOOK:
            place = path.replace("{identifier}", "00000000-0000-4000-8000-000000000000")
        query = {"q": "oi"} if path.endswith("/search") else {}
        body = {} if "requestBody" in told else None
        answer = system.client.request(method.upper(), place, json=body, params=query, headers=root.headers)
        documented = set(told["responses"])
        if answer.is_success:
            assert str(answer.status_code) in documented, (method, path)
        else:
            assert str(answer.status_code) in documented, (method, path)
            # An id that is none, or a body without its fields: never the answer of an unknown route.
            problem = system.checked(answer, answer.status_code)
            assert answer.status_code in (400, 401, 404), (method, path, answer.text)
            assert problem["detail"] != "Not Found", (method, path)


def test_errors_are_documented_as_they_are(system: System, document: dict[str, Any]) -> None:
    for method, path, told in operations(document):
        for status, response in told["responses"].items():
            if int(status) >= 400 and path != "/health/ready":
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (method, path, status)


def test_no_secret_is_an_example(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for word in ("password_hash", "sealed_token", "argon2", "eyJ"):
        assert word not in text
    shown = {name: schema for name, schema in document["components"]["schemas"].items() if "evo_token" in str(schema)}
    assert set(shown) == {"NewConnection", "TokenRequest"}, "a token goes in and never comes out"
