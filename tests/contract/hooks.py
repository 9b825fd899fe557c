"""What a schema cannot say, said to schemathesis: relations between fields, ids that are there, refusals that depend on state."""

import base64
import os
import uuid

import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.generation.meta import TestPhase
from schemathesis.specs.openapi.checks import use_after_free

URL = os.environ["CONTRACT_URL"]
ALICE = f"Bearer {os.environ['CONTRACT_ALICE']}"
ADMIN = f"Bearer {os.environ['CONTRACT_ADMIN']}"

# The ids of the description's examples, which nobody has.
CONVERSATION = "01890a5d-ac96-774b-bcce-b302099a8057"
MESSAGE = "01890a5d-ac96-774b-bcce-b302099a8058"

# Codes that a valid request may be answered with, for what the service holds or what the request names there.
BY_STATE = {
    400: {"INVALID_CURSOR", "INVALID_DIRECT_CONVERSATION"},
    410: {"CONVERSATION_DELETED"},
    412: {"PRECONDITION_FAILED"},
    422: {"IDEMPOTENCY_KEY_REUSED"},
}
# What the edit of an encrypted message into one in clear is refused with. Whether a message is encrypted is not in its id.
SEALED = [{"pointer": "/content", "message": "must be encryptedContent: the message is encrypted"}]


def post(path, body):
    answer = requests.post(URL + path, json=body, headers={"Authorization": ALICE}, timeout=30)
    answer.raise_for_status()
    return answer.json()


def is_encrypted(message):
    answer = requests.get(f"{URL}/v1/messages/{message}", headers={"Authorization": ALICE}, timeout=30)
    answer.raise_for_status()
    return answer.json()["message"].get("encryptedContent") is not None


def new_conversation():
    body = {"type": "group", "participants": ["bob"]}
    return post("/v1/conversations", body)["conversation"]["id"]


def new_message(conversation):
    body = {"conversationId": conversation, "kind": "text", "content": {"text": "hello"}}
    return post("/v1/messages", body)["message"]["id"]


def give_what_is_there(path, body):
    """Puts a conversation and a message of alice's where the examples name ones that nobody has."""
    named = [*path.values(), *body.values(), *body.get("messageIds", [])]
    if CONVERSATION not in named and MESSAGE not in named:
        return
    conversation = new_conversation()
    ids = {CONVERSATION: conversation, MESSAGE: new_message(conversation)}
    for fields in (path, body):
        for name, value in fields.items():
            if isinstance(value, str):
                fields[name] = ids.get(value, value)
    if "messageIds" in body:
        body["messageIds"] = [ids.get(one, one) for one in body["messageIds"]]


def relate(operation, body, headers):
    """Makes related fields fit each other."""
    if operation == "createConversation" and body.get("type") == "direct":
        # There is one such conversation a pair.
        body["participants"] = ["alice", f"friend-{uuid.uuid4()}"]
    key = headers.get("Idempotency-Key", "")
    if 0 < len(key) < 200 and not key.startswith('"'):
        # Generators like to repeat themselves, and the same key belongs to the same request.
        headers["Idempotency-Key"] = f"{key}-{uuid.uuid4()}"
    if operation == "addParticipants" and body.get("participants"):
        body["participants"] = list({one["userId"]: one for one in body["participants"]}.values())
    if operation in ("sendMessage", "editMessage") and body.get("payloadSizeBytes") is not None:
        body["payloadSizeBytes"] = len(base64.b64decode(body["encryptedContent"]))
    if operation == "sendMessage" and body.get("clientId"):
        # As above, of a message.
        body["clientId"] = str(uuid.uuid4())
        if "Idempotency-Key" in headers:
            del body["clientId"]
    if operation == "revoke" and body.get("issuedBefore"):
        body["issuedBefore"] = min(body["issuedBefore"], "2026-01-01T00:00:00Z")


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = case.operation.definition.raw.get("operationId")
    headers = case.headers if case.headers is not None else {}
    # Only the product's backend revokes: in a tenant of its own, where it meets nobody else.
    if operation == "revoke" and headers.get("Authorization") == ALICE:
        headers["Authorization"] = ADMIN
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    body = case.body if isinstance(case.body, dict) else {}
    give_what_is_there(case.path_parameters or {}, body)
    relate(operation, body, headers)
    if case.meta.phase.name == TestPhase.COVERAGE and case.query:
        # Made up, it hides what the parameters beside it do; elsewhere links give real ones, and made up ones are refused.
        case.query.pop("cursor", None)


@schemathesis.check
def use_after_free_but_of_messages(ctx, response, case):
    """What was deleted is gone. A message is not: it keeps its seq, loses its content, and is answered with 200."""
    if case.operation.path == "/v1/messages/{id}":
        return None
    return use_after_free(ctx, response, case)


@schemathesis.check
def valid_data_is_not_called_invalid(ctx, response, case):
    """A request that conforms to the schema is never a VALIDATION_ERROR, nor refused for its form otherwise."""
    is_valid = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    if not is_valid or response.status_code not in BY_STATE:
        return
    answer = response.json()
    if answer.get("errors") == SEALED:
        assert is_encrypted(case.path_parameters["id"]), f"a message in clear may be edited: {response.text}"
        return
    code = answer.get("code")
    allowed = BY_STATE[response.status_code]
    assert code in allowed, f"{code} for a request that conforms to the schema: {response.text}"
