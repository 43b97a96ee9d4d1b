"""What schemathesis has to know of Lectern beside openapi.yaml: who calls, and when things happen."""

import json
import os
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone

import schemathesis
from hypothesis import strategies as st

URL = os.environ["LECTERN_URL"]
# A teacher may do all but what only a back end does.
TEACHER = {"sub": "fuzz", "groups": "instructor,admin"}
SERVICE = {"sub": "fuzz-service", "scope": "lectern/service"}


def send(method, path, body=None, **headers):
    """Sends a request of our own."""
    data = None if body is None else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(URL + path, data, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


def token(grant):
    return send("GET", f"/_local/token?{urllib.parse.urlencode(grant)}")


@schemathesis.auth()
class Token:
    """A token of the local run."""

    def get(self, case, context):
        return token(SERVICE if operation_id(case) == "loadClass" else TEACHER)

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


def operation_id(case):
    return case.operation.definition.raw.get("operationId")


def seed():
    """A course in which the teacher learns, too; its ids by the names of parameters."""
    authorization = f"Bearer {token(TEACHER)}"
    section = {"title": "Try it", "content": "Tie ten of them.", "type": "exercise", "order": 1}
    body = {
        "courseData": {"title": "Knots", "description": "", "difficulty": "beginner", "isPublished": True},
        "lessons": [{"title": "Stoppers", "order": 1, "sections": [section]}],
    }
    headers = {"Authorization": authorization, "Content_Type": "application/json"}
    course = json.loads(send("POST", "/courses", body, Idempotency_Key=str(uuid.uuid4()), **headers))
    send("PUT", f"/courses/{course['id']}/enrollment", Authorization=authorization)
    lesson = course["lessons"][0]
    return {"courseId": course["id"], "lessonId": lesson["id"], "sectionId": lesson["sections"][0]["id"]}


SEEDED = seed()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Half of the good ids name something: nobody hits upon one by chance."""
    if context.operation.definition.raw.get("operationId") == "archiveCourse":
        return path_parameters
    for name, value in (path_parameters or {}).items():
        if name in SEEDED and is_uuid(value) and uuid.UUID(value).int % 2:
            path_parameters[name] = SEEDED[name]
    return path_parameters


@schemathesis.hook
def filter_query(context, query):
    """An empty parameter counts as absent, which its schema cannot say."""
    return not any(is_empty(value) for value in (query or {}).values())


def is_empty(value):
    """Whether nothing, or nothing under its name, is left of it in a URL."""
    if isinstance(value, dict):
        return True
    return value in ("", None) or (isinstance(value, list) and all(map(is_empty, value)))


def is_uuid(value):
    try:
        return str(uuid.UUID(value)) == value
    except (AttributeError, TypeError, ValueError):
        return False


# Any moment would do, but few of them are in the window in which events are taken.
NOW = datetime.now(timezone.utc).replace(microsecond=0)
MOMENTS = st.integers(-40 * 86_400, 600).map(lambda seconds: (NOW + timedelta(seconds=seconds)).isoformat())
schemathesis.openapi.format("date-time", MOMENTS)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Events need ids or a key, and which of the two cannot be said in a schema: good ones get a key."""
    if operation_id(case) == "recordProgress" and is_good(case):
        case.headers.setdefault("Idempotency-Key", str(uuid.uuid4()))


def is_good(case):
    return case.meta is None or case.meta.generation.mode.is_positive
