// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! cosign with a key of its own, and with nobody to ask: no transparency log, no authority.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::signatures::{Key, Keys};

use crate::support::program::ask;
use crate::support::s3::tool;
use crate::upstream::servers::{Image, push_blob};

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// In which form it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A bundle that refers to the image.
    Bundle,
    /// A payload under the tag of the image.
    Tag,
}

/// A registry that it signs in.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) address: &'a str,
    pub(crate) repository: &'a str,
    /// User and password.
    pub(crate) login: Option<(&'a str, &'a str)>,
}

impl At<'_> {
    fn fields(&self) -> String {
        self.login.map_or(String::new(), |_| crate::sync::site::login())
    }

    /// Pushes bytes as a manifest, whatever they are.
    pub(crate) fn put(&self, reference: &str, manifest: &Value) {
        self.put_as(reference, manifest, IMAGE);
    }

    /// Pushes an index.
    pub(crate) fn put_index(&self, reference: &str, index: &Value) -> Digest {
        self.put_as(reference, index, INDEX)
    }

    fn put_as(&self, reference: &str, manifest: &Value, media_type: &str) -> Digest {
        let target = format!("/v2/{}/manifests/{reference}", self.repository);
        let fields = format!("{}Content-Type: {media_type}\r\n", self.fields());
        let body = manifest.to_string();
        let (status, head, _) = ask(self.address, "PUT", &target, &fields, body.as_bytes());
        assert_eq!(status, 201, "{head}");
        Digest::of(Algorithm::Sha256, body.as_bytes())
    }

    pub(crate) fn put_blob(&self, content: &[u8]) -> Digest {
        push_blob(self.address, &self.fields(), self.repository, content)
    }

    /// What it has, as JSON.
    pub(crate) fn get(&self, path: &str) -> Value {
        let target = format!("/v2/{}/{path}", self.repository);
        let accept = format!("{}Accept: {IMAGE}, application/vnd.oci.image.index.v1+json\r\n", self.fields());
        let (status, head, body) = ask(self.address, "GET", &target, &accept, b"");
        assert_eq!(status, 200, "{target}: {head}");
        serde_json::from_slice(&body).unwrap()
    }
}

/// The tag with the signatures of an image.
pub(crate) fn tag_of(image: &Digest) -> String {
    format!("sha256-{}.sig", image.hex())
}

/// A manifest with one layer that is a signature of the form before bundles.
pub(crate) fn signature(payload: &Digest, size: usize, config: &Digest, signature: &str) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": payload, "size": size,
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        }],
    })
}

/// Somebody with a key.
pub(crate) struct Signer {
    name: String,
    folder: tempfile::TempDir,
}

impl Signer {
    /// With the key that cosign makes.
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |signer| signer.run(&["generate-key-pair", "--output-key-prefix", "own"]))
    }

    /// With an RSA key.
    pub(crate) fn rsa(name: &str) -> Self {
        Self::with(name, |signer| signer.import(&PKCS_RSA_SHA256))
    }

    /// With an ECDSA key on P-384.
    pub(crate) fn p384(name: &str) -> Self {
        Self::with(name, |signer| signer.import(&PKCS_ECDSA_P384_SHA384))
    }

    fn with(name: &str, prepare: impl FnOnce(&Self)) -> Self {
        let signer = Self { name: name.to_owned(), folder: tempfile::tempdir().unwrap() };
        prepare(&signer);
        signer.run(&["signing-config", "create", "--out", "services"]);
        signer.run(&["trusted-root", "create", "--out", "root"]);
        signer
    }

    fn import(&self, algorithm: &'static SignatureAlgorithm) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        fs::write(self.folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        self.run(&["import-key-pair", "--key", "key.pem", "--output-key-prefix", "own"]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(tool("cosign"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("COSIGN_PASSWORD", "").env("HOME", self.folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Its public key.
    pub(crate) fn key(&self) -> Key {
        let pem = fs::read(self.path("own.pub")).unwrap();
        let der = SubjectPublicKeyInfoDer::from_pem_slice(&pem).unwrap();
        Key::new(&self.name, der.to_vec()).unwrap()
    }

    /// Only its key.
    pub(crate) fn only(&self) -> Keys {
        Keys::new(vec![self.key()])
    }

    pub(crate) fn sign(&self, at: At<'_>, image: &Digest, form: Form) {
        let image = format!("{}/{}@{image}", at.address, at.repository);
        let mut arguments = vec!["sign", "--yes", "--key", "own.key", "--allow-http-registry"];
        if let Some((user, password)) = at.login {
            arguments.extend(["--registry-username", user, "--registry-password", password]);
        }
        match form {
            Form::Bundle => arguments.extend(["--signing-config", "services", "--trusted-root", "root"]),
            Form::Tag => arguments.extend([
                "--use-signing-config=false",
                "--tlog-upload=false",
                "--new-bundle-format=false",
            ]),
        }
        arguments.push(&image);
        self.run(&arguments);
    }

    /// Says something else about an image, signed by the same key: no signature of it.
    pub(crate) fn attest(&self, at: At<'_>, image: &Image) {
        self.attest_as(at, &image.digest, "custom", "{}", Form::Bundle);
    }

    /// Makes a statement of a type about an image.
    pub(crate) fn attest_as(&self, at: At<'_>, image: &Digest, kind: &str, predicate: &str, form: Form) {
        fs::write(self.path("statement"), predicate).unwrap();
        let image = format!("{}/{}@{image}", at.address, at.repository);
        let mut arguments = vec!["attest", "--yes", "--key", "own.key", "--allow-http-registry"];
        match form {
            Form::Bundle => arguments.extend(["--signing-config", "services", "--trusted-root", "root"]),
            Form::Tag => arguments.extend([
                "--use-signing-config=false",
                "--tlog-upload=false",
                "--new-bundle-format=false",
            ]),
        }
        arguments.extend(["--type", kind, "--predicate", "statement", &image]);
        self.run(&arguments);
    }
}
