//! Calls against a server of the test's own, which answers what the test wants and tells what it was asked.

use confab_protocol::error::Code;
use confab_protocol::resource::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

mod calls;

/// Answers one request, and gives it.
async fn serve(listener: &TcpListener, answer: String) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = vec![0; 8192];
    let mut length = 0;
    let mut whole = false;
    while !whole {
        length += stream.read(&mut request[length..]).await.unwrap();
        let text = String::from_utf8_lossy(&request[..length]).to_lowercase();
        whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let wanted = head
                .split_once("content-length: ")
                .map_or("0", |(_, rest)| rest);
            let wanted = wanted.lines().next().unwrap().parse().unwrap();
            body.len() >= wanted
        });
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    request.truncate(length);
    String::from_utf8(request).unwrap()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

async fn listen() -> (TcpListener, Http) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/below", listener.local_addr().unwrap());
    (listener, Http::new(&url, "secret").unwrap())
}

const TEST_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A message as it is answered.
fn message(seq: u64) -> String {
    format!(
        r#"{{"id":"{TEST_ID}","conversationId":"{TEST_ID}","seq":{seq},"sender":"alice","clientId":null,"kind":"text","content":{{"b":  1}},"payloadSizeBytes":null,"replyTo":null,"metadata":{{}},"createdAt":"2026-11-23T10:20:30.123Z","editedAt":null,"deletedAt":null}}"#
    )
}

#[tokio::test]
async fn problem_has_code_fields_and_retry_time() {
    let (listener, http) = listen().await;
    let body = r#"{"type":"about:blank","title":"t","status":400,"detail":"d","code":"VALIDATION_ERROR","requestId":"r","errors":[{"pointer":"/kind","message":"must be given"}]}"#;
    let answer = answer("400 Bad Request", "Retry-After: 7\r\n", body);
    let call = http.conversation(TEST_ID.parse().unwrap());
    let (_, failed) = tokio::join!(serve(&listener, answer), call);
    let Err(ClientError::Problem(problem)) = failed else {
        panic!("{failed:?}")
    };
    assert_eq!((problem.status, problem.code), (400, Code::Validation));
    assert_eq!(problem.extension.errors[0].pointer, "/kind");
    assert_eq!(problem.retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn an_answer_of_another_kind_is_foreign() {
    let (listener, http) = listen().await;
    let answer = answer("502 Bad Gateway", "", "<html>");
    let call = http.conversations(10, Some("a b"));
    let (asked, failed) = tokio::join!(serve(&listener, answer), call);
    assert!(asked.starts_with("GET /below/v1/conversations?limit=10&cursor=a+b HTTP/1.1\r\n"));
    assert!(matches!(
        failed,
        Err(ClientError::Foreign { status: 502, .. })
    ));
}

#[tokio::test]
async fn sent_content_comes_back_byte_for_byte() {
    let (listener, http) = listen().await;
    let body = format!(r#"{{"message":{}}}"#, message(7));
    let answer = answer("201 Created", "Idempotent-Replayed: true\r\n", &body);
    let sent: Message = serde_json::from_str(&message(7)).unwrap();
    let message = NewMessage {
        conversation_id: TEST_ID.parse().unwrap(),
        client_id: Some(TEST_ID.parse().unwrap()),
        body: confab_protocol::resource::MessageBody {
            kind: "text".into(),
            content: sent.content.clone(),
            encrypted_content: None,
            payload_size_bytes: None,
            reply_to: None,
            metadata: sent.metadata.clone(),
        },
    };
    let (asked, stored) = tokio::join!(serve(&listener, answer), http.send_message(&message));
    assert!(
        asked
            .to_lowercase()
            .contains("\r\nauthorization: bearer secret\r\n")
    );
    assert!(asked.contains(r#""content":{"b":  1}"#), "{asked}");
    let stored = stored.unwrap();
    assert_eq!((stored.answer, stored.replayed), (sent, true));
}

#[tokio::test]
async fn history_is_read_by_pages_oldest_first() {
    let (listener, http) = listen().await;
    let page = |seqs: &[u64], next: &str| {
        let messages: Vec<_> = seqs.iter().copied().map(message).collect();
        let body = format!(
            r#"{{"messages":[{}],"nextCursor":{next}}}"#,
            messages.join(",")
        );
        answer("200 OK", "", &body)
    };
    let serve = async {
        let first = serve(&listener, page(&[9, 7], "\"more\"")).await;
        (first, serve(&listener, page(&[4], "null")).await)
    };
    let ((first, second), history) = tokio::join!(serve, http.history(TEST_ID.parse().unwrap()));
    let seqs: Vec<_> = history.unwrap().iter().map(|message| message.seq).collect();
    assert_eq!(seqs, [4, 7, 9]);
    assert!(first.contains("/messages?limit=200 "), "{first}");
    assert!(second.contains("/messages?limit=200&before=7 "), "{second}");
}

#[tokio::test]
async fn raw_request_has_exactly_given_headers() {
    let (listener, http) = listen().await;
    let headers = [("x-a", "1"), ("x-a", "2")];
    let call = http.raw("PUT", "/v1/x", &headers, "body");
    let (asked, response) =
        tokio::join!(serve(&listener, answer("404 No", "X-B: 3\r\n", "no")), call);
    let asked = asked.to_lowercase();
    assert!(asked.starts_with("put /below/v1/x "));
    assert!(
        asked.contains("x-a: 1\r\nx-a: 2\r\n") && !asked.contains("authorization"),
        "{asked}"
    );
    let response = response.unwrap();
    assert_eq!((response.status, response.header("x-b")), (404, Some("3")));
}

#[test]
fn invalid_http_request_is_refused_before_sending() {
    assert!(matches!(
        Http::new("nonsense", ""),
        Err(ClientError::Invalid("URL", _))
    ));
    assert!(matches!(
        Http::new("mailto:a", ""),
        Err(ClientError::Invalid("URL", _))
    ));
    assert!(matches!(
        header_map(&[("a b", "")]),
        Err(ClientError::Invalid("header", _))
    ));
    assert!(matches!(
        header_map(&[("a", "\n")]),
        Err(ClientError::Invalid("header", _))
    ));
}
