// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What Quay lists beyond the registry API: the repositories of an organization (`GET /api/v1/repository`, Quay's
//! public API).

use std::collections::BTreeSet;

use http::HeaderValue;
use serde::Deserialize;
use stowage_oci::Name;

use super::credentials::Credential;
use super::error::{Error, Kind};
use super::exchange::Ask;
use super::lists::Extent;
use super::{Answered, Budget, Upstream};

/// The longest page in bytes.
const MAX_PAGE: usize = 8 << 20;
/// The user name that goes with an OAuth token where a registry asks for name and password.
const OAUTH_USER: &str = "$oauthtoken";

/// Repositories that were listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Their names.
    pub repositories: BTreeSet<Name>,
    /// How many more there were whose names are none.
    pub ignored: usize,
}

#[derive(Deserialize)]
struct Page {
    repositories: Vec<Entry>,
    next_page: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    namespace: String,
    name: String,
}

impl Upstream {
    /// The repositories of an organization of Quay: public ones, and with an OAuth token those that it may see. All
    /// pages.
    pub async fn organization(&self, organization: &str) -> Result<Answered<Listed>, Error> {
        let what = format!("the repositories of the organization {organization}");
        let authorization = self.0.oauth()?;
        let (mut listed, mut next, mut seen) = (Listed::default(), None::<String>, BTreeSet::new());
        let mut read = Extent::default();
        loop {
            let mut url = self.0.settings.origin.at("/api/v1/repository");
            url.query_pairs_mut().append_pair("namespace", organization).append_pair("public", "true");
            if let Some(next) = &next {
                url.query_pairs_mut().append_pair("next_page", next);
            }
            let ask = Ask { what: what.clone(), ..Ask::get(url, String::new()) };
            let answer = self.0.ask_as(&ask, authorization.as_ref()).await?;
            self.refuse_page(&answer)?;
            let budget = answer.budget.clone();
            let body = self.body(answer, MAX_PAGE, &what).await?;
            read = read.and(body.len());
            let page: Page = serde_json::from_slice(&body)
                .map_err(|error| self.wrong_list(format!("{what} cannot be read: {error}"), &budget))?;
            for Entry { namespace, name } in page.repositories {
                // The API may show more than was asked for.
                match format!("{namespace}/{name}").parse() {
                    Ok(name) if namespace == organization => drop(listed.repositories.insert(name)),
                    Ok(_) => {}
                    Err(_) => listed.ignored += 1,
                }
            }
            let Some(after) = page.next_page.filter(|after| !after.is_empty()) else {
                return Ok(Answered { value: listed, budget });
            };
            self.ensure_ends(read, &what, &budget)?;
            if !seen.insert(after.clone()) {
                return Err(self.wrong_list(format!("{what} go on where they were before"), &budget));
            }
            next = Some(after);
        }
    }

    fn wrong_list(&self, cause: String, budget: &Budget) -> Error {
        self.0.error(Kind::WrongContent, cause).with(budget)
    }
}

impl super::Inner {
    /// What to show to Quay's API, if our credential is one for it.
    fn oauth(&self) -> Result<Option<HeaderValue>, Error> {
        let access = self.access()?;
        let token = match access.credential() {
            Some(Credential::Password { user, password }) if user == OAUTH_USER => password,
            Some(Credential::Identity(token) | Credential::Registry(token)) => token,
            Some(Credential::Password { .. }) | None => return Ok(None),
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_quotes| {
            self.error(Kind::Refused(super::Refusal::Credential), "the token is no text")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
