// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a registry asks for: `WWW-Authenticate` (RFC 9110, section 11; pure).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token of this endpoint.
    Bearer {
        /// The token endpoint.
        realm: String,
        /// Whom the token is for.
        service: String,
        /// What it must allow; may be empty.
        scope: String,
    },
}

/// Every challenge that we know how to answer, in order.
pub(super) fn read(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    let schemes = values.filter_map(|value| value.to_str().ok()).flat_map(schemes);
    schemes.filter_map(|(scheme, parameters)| challenge(&scheme, &parameters)).collect()
}

type Parameters = Vec<(String, String)>;

fn challenge(scheme: &str, parameters: &Parameters) -> Option<Challenge> {
    let named = |wanted: &str| {
        let found = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.clone())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    let realm = scheme.eq_ignore_ascii_case("bearer").then(|| named("realm")).flatten()?;
    let service = named("service").unwrap_or_default();
    Some(Challenge::Bearer { realm, service, scope: named("scope").unwrap_or_default() })
}

/// The schemes of one value with their parameters: `Scheme a=b, c="d", Scheme2, Scheme3 token68`.
fn schemes(text: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = Reader(text);
    loop {
        rest.skip(|b| b == b',' || b.is_ascii_whitespace());
        let word = rest.word();
        if word.is_empty() {
            // Nothing that could begin here: the value is at its end, or is none.
            return found;
        }
        rest.skip(|b| b.is_ascii_whitespace());
        if rest.take('=') {
            rest.skip(|b| b.is_ascii_whitespace());
            let value = rest.value();
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word, value));
            }
        } else {
            found.push((word, Parameters::new()));
        }
    }
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        self.0 = self.0.trim_start_matches(|c: char| u8::try_from(c).is_ok_and(&is_skipped));
    }

    fn take(&mut self, wanted: char) -> bool {
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A token, or the characters of a token68.
    fn word(&mut self) -> String {
        let end = self.0.find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | '=' | '"'));
        let (word, rest) = self.0.split_at_checked(end.unwrap_or(self.0.len())).unwrap_or((self.0, ""));
        self.0 = rest;
        word.to_owned()
    }

    /// A token or a quoted string. What is not closed goes to the end.
    fn value(&mut self) -> String {
        if !self.take('"') {
            let end = self.0.find(|c: char| c.is_ascii_whitespace() || c == ',').unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
            self.0 = rest;
            return value.to_owned();
        }
        let mut value = String::new();
        let mut characters = self.0.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => value.extend(characters.next()),
                _ => value.push(character),
            }
        }
        self.0 = characters.as_str();
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.to_owned(), scope: scope.to_owned() }
    }

    fn read_all(values: &[&str]) -> Vec<Challenge> {
        let values = values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap()));
        read(&values.collect())
    }

    #[test]
    fn w879_a_challenge_names_realm_service_and_scope() {
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
                   scope=\"repository:library/alpine:pull,push\",error=\"invalid_token\"";
        let wanted = bearer(
            "https://auth.docker.io/token",
            "registry.docker.io",
            "repository:library/alpine:pull,push",
        );
        assert_eq!(read_all(&[hub]), [wanted]);
    }

    #[test]
    fn every_legal_spelling_is_read() {
        assert_eq!(read_all(&["Basic"]), [Challenge::Basic]);
        assert_eq!(read_all(&["basic realm=\"a \\\"b\\\", Bearer c\""]), [Challenge::Basic]);
        assert_eq!(read_all(&["BEARER Realm = https://h/t , SERVICE=s"]), [bearer("https://h/t", "s", "")]);
        assert_eq!(
            read_all(&["Negotiate abc==, Basic realm=\"x\", Bearer realm=\"https://h/t?a=b\""]),
            [Challenge::Basic, bearer("https://h/t?a=b", "", "")]
        );
        assert_eq!(read_all(&["Basic", "Bearer realm=\"r\""]), [Challenge::Basic, bearer("r", "", "")]);
        // Without a realm there is nothing to ask.
        assert_eq!(read_all(&["Bearer service=\"s\""]), []);
        assert_eq!(read_all(&["Digest realm=\"x\", nonce=\"y\""]), []);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_an_end(text: String) {
            let _any = schemes(&text);
        }
    }
}
