//! Hand-written HTTP calls with any route and body, and JSON answers.

use std::ops::Index;

use confab_client::Response;
use serde_json::{Value, json};

use super::User;

/// An answer, with its body read as JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Null where there was none.
    pub(crate) body: Value,
    pub(crate) response: Response,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.header(name)
    }

    /// The answer, which must be a success of this status.
    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    /// The answer, which must be a problem of this code (RFC 9457), whole in body and headers.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        let body = &self.body;
        assert_eq!(
            (self.status, &body["code"]),
            (status, &json!(code)),
            "{body}"
        );
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["type"], format!("urn:confab:problem:{code}"));
        assert!(
            body["title"].is_string() && body["detail"].is_string(),
            "{body}"
        );
        assert_eq!(self.header("x-request-id"), body["requestId"].as_str());
        self
    }

    /// The answer, which must refuse exactly these fields.
    #[track_caller]
    pub(crate) fn invalid(self, pointers: &[&str]) -> Self {
        let answer = self.refused(400, "VALIDATION_ERROR");
        let errors = answer["errors"].as_array().unwrap();
        let mut found: Vec<_> = errors
            .iter()
            .map(|e| e["pointer"].as_str().unwrap())
            .collect();
        found.sort_unstable();
        assert_eq!(found, pointers, "{}", answer.body);
        answer
    }

    /// A member's elements.
    #[track_caller]
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        self.body[name]
            .as_array()
            .unwrap_or_else(|| panic!("{}", self.body))
    }

    /// Of a member's elements, one member each.
    #[track_caller]
    pub(crate) fn each(&self, name: &str, member: &str) -> Vec<Value> {
        let list = self.list(name).iter();
        list.map(|element| element[member].clone()).collect()
    }

    /// A text inside the body, by its JSON pointer.
    #[track_caller]
    pub(crate) fn text(&self, pointer: &str) -> String {
        let found = self.body.pointer(pointer).and_then(Value::as_str);
        found
            .unwrap_or_else(|| panic!("{pointer}: {}", self.body))
            .to_owned()
    }
}

impl Index<&str> for Answer {
    type Output = Value;
    fn index(&self, name: &str) -> &Value {
        &self.body[name]
    }
}

impl User {
    /// A call with the user's token.
    pub(crate) async fn call(
        &self,
        gateway: usize,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![("authorization", bearer.as_str())];
        if body.is_some() && !more.iter().any(|(name, _)| *name == "content-type") {
            headers.push(("content-type", "application/json"));
        }
        headers.extend_from_slice(more);
        let bytes = body.map(|body| body.to_string().into_bytes());
        let http = self.http(gateway);
        let response = http.raw(method, path, &headers, bytes.unwrap_or_default());
        let response = response.await.unwrap();
        Answer {
            status: response.status,
            body: response.json().unwrap_or_default(),
            response,
        }
    }

    /// A call with a body as it stands here.
    pub(crate) async fn write(
        &self,
        gateway: usize,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        json: &str,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let own = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let headers = [&own[..], more].concat();
        let http = self.http(gateway);
        let response = http.raw(method, path, &headers, json.to_owned()).await;
        let response = response.unwrap();
        Answer {
            status: response.status,
            body: response.json().unwrap_or_default(),
            response,
        }
    }

    pub(crate) async fn get(&self, gateway: usize, path: &str) -> Answer {
        self.call(gateway, "GET", path, &[], None).await
    }

    pub(crate) async fn post(&self, gateway: usize, path: &str, body: Value) -> Answer {
        self.call(gateway, "POST", path, &[], Some(body)).await
    }

    pub(crate) async fn patch(&self, gateway: usize, path: &str, body: Value) -> Answer {
        self.call(gateway, "PATCH", path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, gateway: usize, path: &str) -> Answer {
        self.call(gateway, "DELETE", path, &[], None).await
    }

    /// Begins a conversation and gives its path.
    pub(crate) async fn begins(&self, gateway: usize, r#type: &str, others: &[&str]) -> String {
        let conversation = json!({"type": r#type, "participants": others});
        let created = self
            .post(gateway, "/v1/conversations", conversation)
            .await
            .ok(201);
        created.header("location").unwrap().to_owned()
    }

    /// Sends a text to the conversation at `path` and gives the message.
    pub(crate) async fn says(&self, gateway: usize, path: &str, words: &str) -> Value {
        let message =
            json!({"conversationId": id_of(path), "kind": "text", "content": {"text": words}});
        let sent = self.post(gateway, "/v1/messages", message).await.ok(201);
        sent["message"].clone()
    }
}

/// The id at a path's end.
pub(crate) fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}
