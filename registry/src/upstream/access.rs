// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What follows from the files of an upstream's Secrets: connections, and tokens.
//!
//! They are read for each request, which costs little beside the request, and takes no note of clocks or of what a
//! file system can tell about changes. Other content makes other connections and forgets all tokens.

use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use url::Url;

use super::Inner;
use super::connect::{self, Http, Proxy};
use super::credentials::{self, Credential};
use super::error::{Error, Kind, Refusal};
use super::settings::Settings;
use super::tls::{self, Identity};
use super::tokens::Tokens;
use crate::config::Secret;

/// How an upstream is spoken to, with the Secrets as they are.
#[derive(Debug)]
pub(super) struct Access {
    material: Material,
    /// To the registry's own host, which may know who we are by our certificate.
    own: Http,
    /// To others: storage that it redirects to, token endpoints elsewhere.
    others: Http,
    pub(super) tokens: Tokens,
}

#[derive(Debug, PartialEq, Eq)]
struct Material {
    credential: Option<Credential>,
    authorities: Option<Vec<u8>>,
    identity: Option<Identity>,
    proxy: Option<Secret<String>>,
}

type Failure = (Kind, String);

impl Inner {
    /// With the Secrets as they are now.
    pub(super) fn access(&self) -> Result<Arc<Access>, Error> {
        let material = Material::read(&self.settings).map_err(|(kind, cause)| self.error(kind, cause))?;
        let mut kept = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(access) = kept.as_ref().filter(|access| access.material == material) {
            return Ok(Arc::clone(access));
        }
        let made = Access::new(material, &self.settings).map_err(|(kind, cause)| self.error(kind, cause))?;
        let made = Arc::new(made);
        *kept = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl Access {
    fn new(material: Material, settings: &Settings) -> Result<Self, Failure> {
        let unavailable = |error: connect::ProxyError| (Kind::UNAVAILABLE, error.to_string());
        let proxy = material.proxy.as_ref().map(|url| Proxy::parse(url.expose()));
        let proxy = proxy.transpose().map_err(unavailable)?;
        let client = |identity: Option<&Identity>| {
            let tls = tls::client(material.authorities.as_deref(), identity, settings.verification);
            let tls = tls.map_err(|error| (Kind::CertificateInvalid, error.to_string()))?;
            Ok::<_, Failure>(connect::client(settings, proxy.as_ref(), tls))
        };
        let others = client(None)?;
        let own = match &material.identity {
            None => others.clone(),
            Some(identity) => client(Some(identity))?,
        };
        Ok(Self { material, own, others, tokens: Tokens::default() })
    }

    pub(super) const fn credential(&self) -> Option<&Credential> {
        self.material.credential.as_ref()
    }

    /// The connections to the host of `url`.
    pub(super) fn http(&self, url: &Url, settings: &Settings) -> &Http {
        if url.host() == settings.origin.host() { &self.own } else { &self.others }
    }
}

impl Material {
    fn read(settings: &Settings) -> Result<Self, Failure> {
        let credential = settings.credentials.as_ref().map(|folder| credentials::read(folder, settings));
        let credential = credential.transpose();
        Ok(Self {
            credential: credential
                .map_err(|error| (Kind::Refused(Refusal::Credential), error.to_string()))?,
            authorities: settings.authorities.as_deref().map(certificate_file).transpose()?,
            identity: settings.client_certificate.as_deref().map(identity).transpose()?,
            proxy: settings.proxy.as_deref().map(proxy).transpose()?,
        })
    }
}

fn identity(folder: &Path) -> Result<Identity, Failure> {
    let folder = credentials::current(folder);
    let chain = certificate_file(&folder.join("tls.crt"))?;
    Ok(Identity { chain, key: Secret::new(certificate_file(&folder.join("tls.key"))?) })
}

fn certificate_file(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| (Kind::CertificateInvalid, unread(path, &error)))
}

fn proxy(path: &Path) -> Result<Secret<String>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| (Kind::UNAVAILABLE, unread(path, &error)))?;
    Ok(Secret::new(text))
}

fn unread(path: &Path, error: &std::io::Error) -> String {
    format!("the secret file {} cannot be read: {error}", path.display())
}
