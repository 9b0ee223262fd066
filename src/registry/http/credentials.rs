use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header::AUTHORIZATION};

/// Who may ask what: nothing is asked for where none is set.
#[derive(Clone, Default)]
pub(in crate::registry) struct Credentials {
    /// For everything but what peers do.
    pub(in crate::registry) client: Option<Credential>,
    /// For everything; what peers do needs it if it is set.
    pub(in crate::registry) peer: Option<Credential>,
}

/// A user and a password, as HTTP's Basic authentication sends them.
#[derive(Clone)]
pub(in crate::registry) struct Credential(Box<[u8]>);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    Client,
    Peer,
    Nobody,
}

impl Credential {
    pub(in crate::registry) fn basic(user: &str, password: &str) -> Self {
        Self(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes().into())
    }

    /// Takes as long for a wrong one as for the right one of its length.
    fn is(&self, given: &[u8]) -> bool {
        self.0.len() == given.len()
            && self.0.iter().zip(given).fold(0, |wrong, (own, given)| wrong | (own ^ given)) == 0
    }
}

impl Credentials {
    pub(in crate::registry) fn are_set(&self) -> bool {
        self.client.is_some()
    }

    /// Whether peers have a credential of their own.
    pub(super) fn tell_peers_apart(&self) -> bool {
        self.peer.is_some()
    }

    pub(super) fn asking(&self, headers: &HeaderMap) -> Asking {
        if self.client.is_none() && self.peer.is_none() {
            return Asking::Client;
        }
        let given = headers.get(AUTHORIZATION).map_or(&[] as &[u8], |value| value.as_bytes());
        let is = |credential: &Option<Credential>| credential.as_ref().is_some_and(|credential| credential.is(given));
        if is(&self.peer) {
            Asking::Peer
        } else if self.client.is_none() || is(&self.client) {
            Asking::Client
        } else {
            Asking::Nobody
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("client", &self.client).field("peer", &self.peer).finish()
    }
}
