//! Message commands sent as literal frames.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::support::{Cluster, Raw, User, id_of};

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// A user's connection that says frames as they stand here.
pub(super) struct Frames {
    raw: Raw,
    conversation: String,
    message: Value,
}

impl Frames {
    pub(super) async fn open(
        cluster: &Cluster,
        user: &User,
        gateway: usize,
        path: &str,
        message: &Value,
    ) -> Self {
        let bearer = [format!("Authorization: Bearer {}", user.token)];
        let port = cluster.gateways[gateway].port();
        let mut raw = Raw::upgraded(port, "confab.v1.json", &bearer).await;
        raw.text(r#"{"type":"hello"}"#).await;
        raw.welcome().await;
        Self {
            raw,
            conversation: id_of(path).to_owned(),
            message: message["id"].clone(),
        }
    }

    /// Says a command about the message and gives its answer.
    pub(super) async fn told(&mut self, mut frame: Value) -> Value {
        frame["conversationId"] = self.conversation.clone().into();
        frame["messageId"] = self.message.clone();
        self.raw.text(&frame.to_string()).await;
        let next = async {
            loop {
                let heard = self.raw.json().await;
                if heard["type"] == "ack" || heard["type"] == "error" {
                    assert_eq!(heard["id"], frame["id"], "{heard}");
                    return heard;
                }
            }
        };
        timeout(WAIT_TIMEOUT, next).await.expect("an answer")
    }

    /// Says one that is refused for the message's version, and gives the version told.
    pub(super) async fn stale(&mut self, frame: Value) -> Value {
        let told = self.told(frame).await;
        assert_eq!(told["code"], "PRECONDITION_FAILED", "{told}");
        told["currentVersion"].clone()
    }

    /// Says one that is done, and gives the seq told and whether it was done before.
    pub(super) async fn done(&mut self, frame: Value) -> (Value, Value) {
        let told = self.told(frame).await;
        assert_eq!(told["type"], "ack", "{told}");
        (told["seq"].clone(), told["duplicate"].clone())
    }
}
