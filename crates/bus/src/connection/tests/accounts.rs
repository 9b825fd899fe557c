//! An operator with an account, and the JWTs that nats-server wants of them (its own format: `ed25519-nkey`, version 2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;

/// Who gives out credentials.
pub(super) struct Operator {
    operator: KeyPair,
    system: KeyPair,
    account: KeyPair,
}

impl Operator {
    pub(super) fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            system: KeyPair::new_account(),
            account: KeyPair::new_account(),
        }
    }

    /// Returns what a server needs to take the account's users.
    pub(super) fn config(&self) -> String {
        let (system, account) = (self.system.public_key(), self.account.public_key());
        let claims = json!({ "type": "operator", "version": 2, "system_account": system });
        let operator = jwt(&self.operator, &self.operator, None, &claims);
        let of_account = |account: &KeyPair, storage: i64| {
            let limits = json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
                "conn": -1, "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage,
                "consumer": storage,
            });
            let claims = json!({ "type": "account", "version": 2, "limits": limits,
                "default_permissions": { "pub": {}, "sub": {} } });
            jwt(&self.operator, account, None, &claims)
        };
        format!(
            "operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {system}: {}, {account}: {} }}\n",
            of_account(&self.system, 0),
            of_account(&self.account, -1),
        )
    }

    /// A credentials file of a new user, good for so long.
    pub(super) fn credentials(&self, life: Duration) -> String {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1,
            "payload": -1 });
        let expires = (OffsetDateTime::now_utc() + life).unix_timestamp();
        let jwt = jwt(&self.account, &user, Some(expires), &claims);
        let seed = user.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\nKeep it.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, expires: Option<i64>, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let mut body = json!({
        "jti": subject.public_key(), "iat": now, "iss": issuer.public_key(),
        "sub": subject.public_key(), "name": "test", "nats": claims,
    });
    if let Some(expires) = expires {
        body["exp"] = expires.into();
    }
    let text = format!("{}.{}", encode(&header), encode(&body));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}
