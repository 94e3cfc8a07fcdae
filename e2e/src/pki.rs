// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The certificates of a cluster: one authority, a certificate for each part, and the kubeconfigs that use them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};

use crate::control_plane::SERVER;
use crate::network::{NODE_ADDRESS, NODES};
use crate::state::State;

/// A part that has a certificate: its file name, who it is to the API server, and the names it serves under.
struct Part {
    file: &'static str,
    organization: Option<&'static str>,
    common_name: &'static str,
    serves: &'static [&'static str],
}

const PARTS: &[Part] = &[
    Part {
        file: "apiserver",
        organization: None,
        common_name: "kube-apiserver",
        serves: &[
            "127.0.0.1",
            "10.96.0.1",
            NODE_ADDRESS,
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ],
    },
    Part {
        file: NODES[0].name,
        organization: Some("system:nodes"),
        common_name: "system:node:node-1",
        serves: &["127.0.0.1", NODES[0].address, NODES[0].name],
    },
    Part {
        file: NODES[1].name,
        organization: Some("system:nodes"),
        common_name: "system:node:node-2",
        serves: &["127.0.0.1", NODES[1].address, NODES[1].name],
    },
    Part { file: "admin", organization: Some("system:masters"), common_name: "admin", serves: &[] },
    Part {
        file: "kube-controller-manager",
        organization: None,
        common_name: "system:kube-controller-manager",
        serves: &[],
    },
    Part { file: "kube-scheduler", organization: None, common_name: "system:kube-scheduler", serves: &[] },
    Part { file: "kube-proxy", organization: None, common_name: "system:kube-proxy", serves: &[] },
];

/// Writes every certificate, key and kubeconfig into the `pki` folder of the state.
pub(crate) fn create(state: &State) -> Result<()> {
    let folder = state.path("pki");
    fs::create_dir_all(&folder).context("make the folder of certificates")?;
    let authority = authority()?;
    write(&folder, "ca.crt", &authority.pem())?;
    write(&folder, "ca.key", &authority.key().serialize_pem())?;
    let accounts = KeyPair::generate().context("make the key of service accounts")?;
    write(&folder, "accounts.key", &accounts.serialize_pem())?;
    write(&folder, "accounts.pub", &accounts.public_key_pem())?;
    for part in PARTS {
        issue(&folder, &authority, part)?;
        let kubeconfig = kubeconfig(&folder, part.file, SERVER);
        write(&folder, &format!("{}.kubeconfig", part.file), &kubeconfig)?;
    }
    Ok(())
}

/// A kubeconfig for the part `file`, for an API server at `server`.
pub(crate) fn kubeconfig(folder: &Path, file: &str, server: &str) -> String {
    let folder = folder.display();
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: stowage\n  \
           cluster: {{server: \"{server}\", certificate-authority: {folder}/ca.crt}}\n\
         users:\n\
         - name: {file}\n  \
           user: {{client-certificate: {folder}/{file}.crt, client-key: {folder}/{file}.key}}\n\
         contexts:\n\
         - name: stowage\n  \
           context: {{cluster: stowage, user: {file}}}\n\
         current-context: stowage\n"
    )
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(None, "stowage-e2e");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().context("make the authority's key")?;
    CertifiedIssuer::self_signed(params, key).context("make the authority")
}

fn issue(folder: &Path, authority: &CertifiedIssuer<'static, KeyPair>, part: &Part) -> Result<()> {
    let names: Vec<String> = part.serves.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).context("name a certificate")?;
    params.distinguished_name = name(part.organization, part.common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().context("make a key")?;
    let certificate = params.signed_by(&key, authority).context("sign a certificate")?;
    write(folder, &format!("{}.crt", part.file), &certificate.pem())?;
    write(folder, &format!("{}.key", part.file), &key.serialize_pem())
}

fn name(organization: Option<&str>, common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    fs::write(folder.join(file), text).with_context(|| format!("write {file}"))
}
