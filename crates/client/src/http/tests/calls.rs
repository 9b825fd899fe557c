//! Each call asks what the contract names, and reads what it answers.

use confab_protocol::json::JsonText;
use confab_protocol::query::ListOrder;
use confab_protocol::resource::{ConversationType, MessageContent, Role};

use super::*;

const CREATED_AT: &str = "2026-11-23T10:20:30.123Z";

/// Returns what a call asked, its method and path first, its headers and body behind, and what it made of a good answer.
async fn asked<T>(
    body: &str,
    call: impl AsyncFnOnce(Http) -> Result<T, ClientError>,
) -> (String, T) {
    let (listener, http) = listen().await;
    let (asked, read) = tokio::join!(serve(&listener, answer("200 OK", "", body)), call(http));
    (asked, read.unwrap())
}

fn conversation() -> String {
    format!(
        r#"{{"id":"{TEST_ID}","type":"group","metadata":{{"name":"x"}},"version":3,"createdBy":"alice","createdAt":"{CREATED_AT}","updatedAt":"{CREATED_AT}","deletedAt":null,"lastSeq":9,"lastEventAt":"{CREATED_AT}","role":"admin","joinedAt":"{CREATED_AT}","lastReadSeq":0,"unreadCount":0,"lastMessage":null}}"#
    )
}

fn participant() -> String {
    format!(
        r#"{{"userId":"a b/ü","role":"admin","joinedAt":"{CREATED_AT}","leftAt":null,"lastReadSeq":4}}"#
    )
}

#[tokio::test]
async fn conversations_are_listed_changed_and_deleted() {
    let id = TEST_ID.parse().unwrap();
    let filter = ConversationFilter {
        r#type: Some(ConversationType::Channel),
        order: ListOrder::Created,
    };
    let page = format!(
        r#"{{"conversations":[{}],"nextCursor":"c"}}"#,
        conversation()
    );
    let (line, listed) = asked(&page, async |http| {
        http.conversations_of(&filter, 7, None).await
    })
    .await;
    assert!(line.starts_with(
        "GET /below/v1/conversations?limit=7&type=channel&order=created HTTP/1.1\r\n"
    ));
    assert_eq!(listed.next_cursor.as_deref(), Some("c"));

    let patch = JsonText::trusted(r#"{"name":  null}"#.into());
    let body = format!(r#"{{"conversation":{}}}"#, conversation());
    let (line, changed) = asked(&body, async |http| {
        http.update_conversation(id, &patch, Some(2)).await
    })
    .await;
    assert!(line.starts_with(&format!(
        "PATCH /below/v1/conversations/{TEST_ID} HTTP/1.1\r\n"
    )));
    assert!(line.contains("if-match: \"2\"\r\n"), "{line}");
    assert!(line.ends_with(r#"{"metadata":{"name":  null}}"#), "{line}");
    assert_eq!(changed.version, 3);
    let (line, _) = asked(&body, async |http| {
        http.update_conversation(id, &patch, None).await
    })
    .await;
    assert!(!line.contains("if-match"), "{line}");

    let body = format!(r#"{{"deleted":true,"deletedAt":"{CREATED_AT}"}}"#);
    let (line, deleted_at) = asked(&body, async |http| http.delete_conversation(id).await).await;
    assert!(line.starts_with(&format!(
        "DELETE /below/v1/conversations/{TEST_ID} HTTP/1.1\r\n"
    )));
    assert_eq!(deleted_at.to_string(), CREATED_AT);
}

#[tokio::test]
async fn participants_are_read_by_pages_with_roles() {
    let id = TEST_ID.parse().unwrap();
    let (listener, http) = listen().await;
    let page = |next: &str| {
        let body = format!(
            r#"{{"participants":[{}],"nextCursor":{next}}}"#,
            participant()
        );
        answer("200 OK", "", &body)
    };
    let serve = async {
        let first = serve(&listener, page("\"p1-0\"")).await;
        (first, serve(&listener, page("null")).await)
    };
    let filter = ParticipantFilter {
        include_left: true,
        role: Some(Role::Admin),
    };
    let ((first, second), all) = tokio::join!(serve, http.participants(id, &filter));
    assert_eq!(all.unwrap().len(), 2);
    assert!(
        first.contains("/participants?limit=1000&role=admin&includeLeft=true "),
        "{first}"
    );
    assert!(
        second.contains("?limit=1000&cursor=p1-0&role=admin"),
        "{second}"
    );

    let user = "a b/ü".parse().unwrap();
    let body = format!(r#"{{"participant":{}}}"#, participant());
    let (line, changed) = asked(&body, async |http| {
        http.set_role(id, &user, Role::Admin).await
    })
    .await;
    assert!(
        line.starts_with("PATCH ") && line.contains("/participants/a%20b%2F%C3%BC HTTP/1.1\r\n")
    );
    assert!(line.ends_with(r#"{"role":"admin"}"#), "{line}");
    assert_eq!((changed.user_id, changed.role), (user, Role::Admin));
}

#[tokio::test]
async fn one_message_is_read_edited_and_deleted() {
    let id = TEST_ID.parse().unwrap();
    let body = format!(r#"{{"message":{}}}"#, message(7));
    let (line, read) = asked(&body, async |http| http.message(id).await).await;
    assert!(line.starts_with(&format!("GET /below/v1/messages/{TEST_ID} HTTP/1.1\r\n")));
    assert_eq!(read.seq, 7);
    let content = MessageContent {
        content: Some(JsonText::trusted("[1,  2]".into())),
        encrypted_content: None,
        payload_size_bytes: None,
    };
    let (line, _) = asked(&body, async |http| http.edit_message(id, &content).await).await;
    assert!(line.starts_with(&format!("PATCH /below/v1/messages/{TEST_ID} HTTP/1.1\r\n")));
    assert!(line.contains(r#"{"content":[1,  2],"#), "{line}");
    let (line, _) = asked(&body, async |http| http.delete_message(id).await).await;
    assert!(line.starts_with(&format!("DELETE /below/v1/messages/{TEST_ID} HTTP/1.1\r\n")));

    let filter = MessageFilter {
        after: Some(3),
        sender: Some("bob".parse().unwrap()),
        kind: Some("x-a".into()),
        from: Some(CREATED_AT.parse().unwrap()),
        ..MessageFilter::default()
    };
    let page = r#"{"messages":[],"nextCursor":null}"#;
    let (line, _) = asked(page, async |http| {
        http.messages_page(TEST_ID.parse().unwrap(), &filter, 5, Some("m9"))
            .await
    })
    .await;
    assert!(
        line.contains("/messages?limit=5&cursor=m9&after=3&sender=bob&kind=x-a&from=2026-11-23T10%3A20%3A30.123Z "),
        "{line}"
    );
}

#[tokio::test]
async fn reading_is_said_by_seq_or_by_messages() {
    let (conversation, message) = (TEST_ID.parse().unwrap(), TEST_ID.parse().unwrap());
    let body = format!(r#"{{"read":{{"{TEST_ID}":5}}}}"#);
    let (line, read) = asked(&body, async |http| http.mark_read(conversation, 9).await).await;
    assert!(line.starts_with("POST /below/v1/messages/read HTTP/1.1\r\n"));
    assert!(line.ends_with(&format!(r#"{{"conversationId":"{TEST_ID}","upToSeq":9}}"#)));
    assert_eq!(read.get(&conversation), Some(&5));
    let (line, _) = asked(&body, async |http| {
        http.mark_messages_read(&[message]).await
    })
    .await;
    assert!(
        line.ends_with(&format!(r#"{{"messageIds":["{TEST_ID}"]}}"#)),
        "{line}"
    );
}

#[tokio::test]
async fn a_log_is_read_to_its_head() {
    let (listener, http) = listen().await;
    let page = |seqs: &[u64]| {
        let event = |seq: &u64| {
            format!(
                r#"{{"type":"message.deleted","conversationId":"{TEST_ID}","seq":{seq},"id":"{TEST_ID}","actor":"a","createdAt":"{CREATED_AT}","data":{{}}}}"#
            )
        };
        let events: Vec<_> = seqs.iter().map(event).collect();
        let body = format!(r#"{{"events":[{}],"headSeq":7}}"#, events.join(","));
        answer("200 OK", "", &body)
    };
    let serve = async {
        let first = serve(&listener, page(&[4, 5])).await;
        (first, serve(&listener, page(&[6, 7])).await)
    };
    let ((first, second), log) = tokio::join!(serve, http.events(TEST_ID.parse().unwrap(), 3));
    let seqs: Vec<_> = log.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [4, 5, 6, 7]);
    assert!(first.contains("/events?after=3&limit=1000 "), "{first}");
    assert!(second.contains("/events?after=5&limit=1000 "), "{second}");
}

#[tokio::test]
async fn sessions_are_told_and_revoked() {
    let session = format!(
        r#"{{"sessions":[{{"id":"{TEST_ID}","deviceId":"d","loginSessionId":"l","since":"{CREATED_AT}","lastSeenAt":"{CREATED_AT}"}}]}}"#
    );
    let (line, sessions) = asked(&session, async |http| http.sessions().await).await;
    assert!(line.starts_with("GET /below/v1/sessions HTTP/1.1\r\n"));
    let id = sessions[0].id;

    let body = format!(
        r#"{{"revocation":{{"sessionId":"{TEST_ID}","loginSessionId":null,"userId":"a","issuedBefore":null,"createdAt":"{CREATED_AT}","expiresAt":"{CREATED_AT}"}}}}"#
    );
    let (line, revoked) = asked(&body, async |http| http.revoke_session(id).await).await;
    assert!(line.starts_with(&format!("DELETE /below/v1/sessions/{TEST_ID} HTTP/1.1\r\n")));
    assert_eq!(revoked.session_id, Some(id));
    let user_id = "a".parse().unwrap();
    for (revocation, sent) in [
        (
            NewRevocation {
                session_id: Some(id),
                ..NewRevocation::default()
            },
            format!(r#"{{"sessionId":"{TEST_ID}"}}"#),
        ),
        (
            NewRevocation {
                login_session_id: Some("l".into()),
                ..NewRevocation::default()
            },
            r#"{"loginSessionId":"l"}"#.into(),
        ),
        (
            NewRevocation {
                user_id: Some(user_id),
                ..NewRevocation::default()
            },
            r#"{"userId":"a"}"#.into(),
        ),
    ] {
        let (line, _) = asked(&body, async |http| http.revoke(&revocation).await).await;
        assert!(line.starts_with("POST /below/v1/revocations HTTP/1.1\r\n"));
        assert!(line.ends_with(&sent), "{line}");
    }
}
