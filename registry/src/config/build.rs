// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The document and the secrets it names → [`Config`].

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use stowage_crds::document::{Document, Entry, Schedules};
use stowage_crds::paths::SERVICE_PORT;
use stowage_crds::{
    AccessPolicySpec, Action as GrantedAction, Anonymous, Auth, ImmutableDeletion, KeyRef,
    Mode as DocumentMode, RedirectMode, RegistrySpec, Schedule, SignatureTags, SubjectKind, TagSelector,
};
use stowage_oci::{Glob, TagSelection};

use super::error::ConfigError;
use super::files::Origin;
use super::{
    Backing, Collection, Config, Database, Immutable, Limits, Postgres, Promoting, Pushing, RetentionRun, S3,
    Scrub, Secret, SecretsDir, Sources, Storage, Sync, mirrors, promotions, replications, retention, tls,
    usage, virtuals,
};
use crate::auth::{Actions, Htpasswd, Policy, Realms, Rules, SigningKey, Snapshot, Subject};
use crate::http::Redirect;
use crate::operation::{Action, Mode};
use crate::ops::traces;

/// Where a standalone process keeps the keys of its tokens.
const KEY_FILE: &str = "token-keys.pem";

pub(super) fn config(document: Document, origin: Origin, sources: &Sources) -> Result<Config, ConfigError> {
    let spec = &document.registry.spec;
    let secrets = &sources.secrets;
    let rules = rules(&document, origin)?;
    ensure_not_open_to_the_world(&rules, sources.listen)?;
    let replications = replications::replications(&document, secrets)?;
    let virtuals = virtuals::virtuals(&document)?;
    let retention = retention::retention(&document, &virtuals, mode(spec.mode))?;
    let mut hosts: Vec<String> = urls(&document).iter().map(|url| host(url).to_owned()).collect();
    let redirect = redirect(spec, &hosts)?;
    hosts.extend(spec.aliases.iter().map(ToString::to_string));
    Ok(Config {
        registry: document.registry.name.clone(),
        hash: document.encode().hash,
        redirect,
        hosts,
        storage: storage(spec, secrets)?,
        database: database(spec, secrets)?,
        write_hold: spec.database.write_hold.to_std(),
        mode: mode(spec.mode),
        limits: limits(spec),
        scrub: scrub(spec)?,
        strict_indexes: globs("spec.strictIndexes", &spec.strict_indexes)?,
        immutability: immutability(spec)?,
        schedules: document.runtime.schedules,
        collection: collection(&document)?,
        access: Snapshot {
            users: users(spec.auth.as_ref(), secrets)?,
            realms: realms(&document),
            keys: keys(&document, origin, rules.is_open(), sources)?,
            rules: Arc::new(rules),
        },
        mirrors: mirrors::mirrors(&document, secrets)?,
        evictions: mirrors::evictions(&document)?,
        usage: usage::protection(&document, origin)?,
        copied: replications::copied(&replications),
        virtuals,
        promotions: promotions::policies(&document)?,
        retention: Arc::new(retention),
        troubles: [
            mirrors::troubles(&document, secrets),
            replications::troubles(&replications, mode(spec.mode)),
        ]
        .concat(),
        replications,
        traces: traces_of(&document)?,
        tls: server_tls(spec, secrets)?,
        document,
    })
}

/// What a run of the mirror `name` needs.
pub(super) fn sync(document: &Document, secrets: &SecretsDir, name: &str) -> Result<Sync, ConfigError> {
    let mut all = replications::replications(document, secrets)?;
    let names: Vec<&str> = all.iter().map(|replication| replication.name.as_str()).collect();
    let Some(place) = names.iter().position(|known| *known == name) else {
        let known = listed(names);
        let problem = format!("there is no Mirror {name:?} of mode Replicate; of this Registry: {known}");
        return Err(field("--mirror", problem));
    };
    Ok(Sync { pushing: pushing(document, secrets)?, replication: all.swap_remove(place) })
}

fn pushing(document: &Document, secrets: &SecretsDir) -> Result<Pushing, ConfigError> {
    let spec = &document.registry.spec;
    Ok(Pushing {
        backing: backing(spec, secrets)?,
        mode: mode(spec.mode),
        strict_indexes: globs("spec.strictIndexes", &spec.strict_indexes)?,
        immutability: immutability(spec)?,
        promotions: promotions::policies(document)?,
        max_blob_size: spec.limits().max_blob_size.as_ref().map(stowage_crds::Quantity::bytes),
        retain_for: spec.trash().retain_for.to_std(),
    })
}

/// What a promotion by the policy `name` needs.
pub(super) fn promotion(
    document: &Document,
    secrets: &SecretsDir,
    name: &str,
) -> Result<Promoting, ConfigError> {
    let pushing = pushing(document, secrets)?;
    let Some(policy) = pushing.promotions.iter().find(|policy| policy.name == name).cloned() else {
        let names: Vec<&str> = pushing.promotions.iter().map(|policy| policy.name.as_str()).collect();
        let problem = format!("there is no PromotionPolicy {name:?} of this Registry: {}", listed(names));
        return Err(field("policy", problem));
    };
    Ok(Promoting { pushing, mirrors: mirrors::mirrors(document, secrets)?, policy })
}

/// What a run of the retention policy `name` needs.
pub(super) fn retention(
    document: &Document,
    origin: Origin,
    secrets: &SecretsDir,
    name: &str,
) -> Result<RetentionRun, ConfigError> {
    let spec = &document.registry.spec;
    let virtuals = virtuals::virtuals(document)?;
    let retention = retention::retention(document, &virtuals, mode(spec.mode))?;
    retention::ensure_known(&retention, name)?;
    let usage = usage::protection(document, origin)?;
    Ok(RetentionRun { backing: backing(spec, secrets)?, retention, usage })
}

/// Where everything lies.
pub(super) fn backing(spec: &RegistrySpec, secrets: &SecretsDir) -> Result<Backing, ConfigError> {
    Ok(Backing {
        storage: storage(spec, secrets)?,
        database: database(spec, secrets)?,
        grace: spec.garbage_collection().grace_period.to_std(),
    })
}

pub(super) fn field(path: impl Into<String>, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError::Field { field: path.into(), problem: problem.to_string() }
}

/// W-736: what was not said in so many words does not hold beyond this machine.
fn ensure_not_open_to_the_world(rules: &Rules, listen: Option<SocketAddr>) -> Result<(), ConfigError> {
    match listen {
        Some(address) if rules.is_open() && !address.ip().to_canonical().is_loopback() => {
            Err(ConfigError::OpenToTheWorld(address))
        }
        _ => Ok(()),
    }
}

pub(super) fn storage(spec: &RegistrySpec, secrets: &SecretsDir) -> Result<Storage, ConfigError> {
    let Some(s3) = &spec.storage.s3 else { return Ok(Storage::Filesystem) };
    let credentials = match &s3.credentials_secret_ref {
        None => None,
        Some(secret) => Some(s3_credentials(&secret.name, secrets)?),
    };
    Ok(Storage::S3(Box::new(S3 {
        bucket: s3.bucket.clone(),
        prefix: s3.prefix.clone(),
        region: s3.region.clone(),
        endpoint: s3.endpoint.as_ref().map(ToString::to_string),
        force_path_style: s3.force_path_style,
        credentials,
        ca: optional_bytes("spec.storage.s3.caSecretRef", s3.ca_secret_ref.as_ref(), secrets)?,
    })))
}

fn redirect(spec: &RegistrySpec, hosts: &[String]) -> Result<Option<Redirect>, ConfigError> {
    let Some(s3) = &spec.storage.s3 else { return Ok(None) };
    let Some(redirect) = s3.redirect.as_ref().filter(|redirect| redirect.mode == RedirectMode::Always) else {
        return Ok(None);
    };
    let store = store_host(s3);
    if let Some(host) = hosts.iter().map(|host| hostname(host)).find(|host| is_at_or_below(&store, host)) {
        let problem = format!(
            "clients would send their credential for {host} to the store at {store}, which then refuses them: \
             give the store a host that is not below the registry's, or set mode Never"
        );
        return Err(field("spec.storage.s3.redirect.mode", problem));
    }
    Ok(Some(Redirect {
        min_size: redirect.min_size.bytes(),
        exclude_user_agents: redirect.exclude_user_agents.clone(),
    }))
}

/// The host to which clients would be sent, without its port.
fn store_host(s3: &stowage_crds::S3) -> String {
    let endpoint = s3.endpoint.as_ref().map(ToString::to_string);
    let service = match &endpoint {
        Some(url) => hostname(host(url)).to_owned(),
        None => format!("s3.{}.amazonaws.com", s3.region),
    };
    if s3.force_path_style { service } else { format!("{}.{service}", s3.bucket) }
}

/// A host without its port: clients compare hosts so when they decide who may see a credential.
fn hostname(host: &str) -> &str {
    let host = host.split('/').next().unwrap_or_default();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_at_or_below(host: &str, parent: &str) -> bool {
    let (host, parent) = (host.to_ascii_lowercase(), parent.to_ascii_lowercase());
    host.strip_suffix(&parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The folder of the keys, when they are there.
fn s3_credentials(name: &str, secrets: &SecretsDir) -> Result<PathBuf, ConfigError> {
    for key in ["accessKeyId", "secretAccessKey"] {
        secrets.text(name, key).map_err(secret_error("spec.storage.s3.credentialsSecretRef"))?;
    }
    Ok(secrets.path().join(name))
}

pub(super) fn database(spec: &RegistrySpec, secrets: &SecretsDir) -> Result<Database, ConfigError> {
    let Some(postgres) = &spec.database.postgres else { return Ok(Database::Sqlite) };
    let path = "spec.database.postgres.urlSecretRef";
    Ok(Database::Postgres(Postgres {
        url: text(path, &postgres.url_secret_ref, secrets)?,
        ca: optional_file("spec.database.postgres.caSecretRef", postgres.ca_secret_ref.as_ref(), secrets)?,
        max_connections: u32::try_from(postgres.max_connections)
            .map_err(|error| field("spec.database.postgres.maxConnections", error))?,
    }))
}

const fn mode(mode: DocumentMode) -> Mode {
    match mode {
        DocumentMode::ReadWrite => Mode::ReadWrite,
        DocumentMode::NoDelete => Mode::NoDelete,
        DocumentMode::ReadOnly => Mode::ReadOnly,
    }
}

fn scrub(spec: &RegistrySpec) -> Result<Option<Scrub>, ConfigError> {
    let Some(scrub) = &spec.scrub else { return Ok(None) };
    let bytes = NonZeroU64::new(scrub.bytes_per_second.bytes());
    let bytes_per_second =
        bytes.ok_or_else(|| field("spec.scrub.bytesPerSecond", "at least one byte a second must be read"))?;
    Ok(Some(Scrub { interval: scrub.interval.to_std(), bytes_per_second }))
}

fn limits(spec: &RegistrySpec) -> Limits {
    let limits = spec.limits();
    let count = |number: i32| usize::try_from(number).unwrap_or(1).max(1);
    Limits {
        max_blob_size: limits.max_blob_size.as_ref().map(stowage_crds::Quantity::bytes),
        max_concurrent_requests: count(limits.max_concurrent_requests),
        max_concurrent_uploads: count(limits.max_concurrent_uploads),
        upload_memory: limits.upload_memory.bytes(),
        cache_memory: limits.cache_memory.bytes(),
    }
}

pub(super) fn collection(document: &Document) -> Result<Collection, ConfigError> {
    let spec = &document.registry.spec;
    let asked = spec.garbage_collection();
    // Whoever starts the runs reads their schedule.
    let schedule = match document.runtime.schedules {
        Schedules::Jobs => None,
        Schedules::InProcess => {
            Some(Schedule::of(&asked).map_err(|problem| field("spec.garbageCollection", problem))?)
        }
    };
    Ok(Collection {
        schedule: schedule.filter(|_| !asked.suspend),
        grace: asked.grace_period.to_std(),
        retain_for: spec.trash().retain_for.to_std(),
    })
}

pub(super) fn globs(path: &str, globs: &[stowage_crds::Glob]) -> Result<Vec<Glob>, ConfigError> {
    let parse = |(at, glob): (usize, &stowage_crds::Glob)| {
        glob.as_str().parse().map_err(|error| field(format!("{path}[{at}]"), error))
    };
    globs.iter().enumerate().map(parse).collect()
}

/// The tags that are wanted: all, where nothing is said of them.
pub(super) fn tags(path: &str, asked: Option<&TagSelector>) -> Result<TagSelection, ConfigError> {
    let parsed = asked.map(|tags| tags.parse(&path.into())).transpose();
    let parsed = parsed.map_err(|violation| field(violation.path.to_string(), violation.message))?;
    Ok(parsed.unwrap_or_default())
}

/// Names, for whoever asked for one that is not among them.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    if names.is_empty() { "there is none".to_owned() } else { names.join(", ") }
}

pub(super) fn immutability(spec: &RegistrySpec) -> Result<Vec<Immutable>, ConfigError> {
    let parse = |(at, rule): (usize, &stowage_crds::ImmutabilityRule)| {
        let path = format!("spec.immutability[{at}]");
        let tags = tags(&format!("{path}.tags"), rule.tags.as_ref())?;
        Ok(Immutable {
            name: rule.name.clone(),
            repositories: globs(&format!("{path}.repositories"), &rule.repositories)?,
            tags,
            signature_tags: rule.signature_tags == SignatureTags::Included,
            retention_deletes: rule.deletion == ImmutableDeletion::RetentionOnly,
        })
    };
    spec.immutability.iter().enumerate().map(parse).collect()
}

fn traces_of(document: &Document) -> Result<Option<traces::Settings>, ConfigError> {
    let registry = &document.registry;
    let Some(telemetry) = &registry.spec.telemetry else { return Ok(None) };
    let base = telemetry.otlp_endpoint.as_str().trim_end_matches('/');
    let collector = format!("{base}/v1/traces").parse::<http::Uri>();
    Ok(Some(traces::Settings {
        collector: collector.map_err(|error| field("spec.telemetry.otlpEndpoint", error))?,
        share: f64::from(telemetry.sampling_percentage.clamp(0, 100)) / 100.0,
        registry: registry.name.clone(),
        namespace: registry.namespace.clone(),
    }))
}

fn rules(document: &Document, origin: Origin) -> Result<Rules, ConfigError> {
    let uncounted =
        document.registry.spec.pull_tracking.iter().flat_map(|tracking| &tracking.ignore_subjects);
    let uncounted: Vec<Subject> = subjects(uncounted);
    let everybody = match (&document.registry.spec.auth, origin) {
        (None, Origin::Standalone) if document.access_policies.is_empty() => {
            return Ok(Rules::open().not_counting(uncounted));
        }
        (None, _) => Anonymous::None,
        (Some(auth), _) => auth.anonymous,
    };
    let everybody = match everybody {
        Anonymous::None => Actions::NONE,
        Anonymous::Pull => Actions::NONE.with(Action::Pull),
        Anonymous::PullPush => Actions::NONE.with(Action::Pull).with(Action::Push),
    };
    let active = document.access_policies.iter().filter(|policy| !policy.spec.suspend);
    Ok(Rules::new(everybody, active.map(policy).collect::<Result<_, _>>()?).not_counting(uncounted))
}

fn policy(entry: &Entry<AccessPolicySpec>) -> Result<Policy, ConfigError> {
    let path = format!("AccessPolicy {}: spec.repositories", entry.name);
    Ok(Policy {
        name: entry.name.as_str().into(),
        repositories: globs(&path, &entry.spec.repositories)?,
        subjects: subjects(&entry.spec.subjects),
        actions: entry.spec.actions.iter().map(|granted| action(*granted)).collect(),
    })
}

/// A subject of a newer version matches nobody.
pub(super) fn subjects<'a>(subjects: impl IntoIterator<Item = &'a stowage_crds::Subject>) -> Vec<Subject> {
    subjects.into_iter().filter_map(stowage_crds::Subject::kind).map(subject).collect()
}

fn subject(subject: SubjectKind<'_>) -> Subject {
    match subject {
        SubjectKind::User(name) => Subject::User(name.to_owned()),
        SubjectKind::Group(name) => Subject::Group(name.to_owned()),
        SubjectKind::Anonymous => Subject::Anonymous,
        SubjectKind::Authenticated => Subject::Authenticated,
    }
}

const fn action(action: GrantedAction) -> Action {
    match action {
        GrantedAction::Pull => Action::Pull,
        GrantedAction::Push => Action::Push,
        GrantedAction::Delete => Action::Delete,
        GrantedAction::Promote => Action::Promote,
        GrantedAction::Administer => Action::Administer,
    }
}

fn users(auth: Option<&Auth>, secrets: &SecretsDir) -> Result<Htpasswd, ConfigError> {
    let Some(htpasswd) = auth.and_then(|auth| auth.htpasswd.as_ref()) else { return Ok(Htpasswd::empty()) };
    let path = "spec.auth.htpasswd.secretRef";
    let broken = |field| move |source| ConfigError::Users { field, source };
    let lines = text(path, &htpasswd.secret_ref, secrets)?;
    let users =
        Htpasswd::parse(&shown(&htpasswd.secret_ref, secrets), lines.expose()).map_err(broken(path))?;
    let Some(groups) = &htpasswd.groups_secret_ref else { return Ok(users) };
    let path = "spec.auth.htpasswd.groupsSecretRef";
    let lines = text(path, groups, secrets)?;
    users.with_groups(&shown(groups, secrets), lines.expose()).map_err(broken(path))
}

/// The URLs under which the registry answers, the external one first; in a cluster those of its Service too.
fn urls(document: &Document) -> Vec<String> {
    let registry = &document.registry;
    let spec = &registry.spec;
    let scheme = if spec.tls.is_some() { "https" } else { "http" };
    let service = registry.namespace.as_ref().map(|namespace| format!("{}.{namespace}.svc", registry.name));
    let service = service.into_iter().flat_map(|host| [host.clone(), format!("{host}.cluster.local")]);
    let written = std::iter::once(&spec.external_url).chain(&spec.alternate_urls).map(ToString::to_string);
    written.chain(service.map(|host| format!("{scheme}://{host}:{SERVICE_PORT}"))).collect()
}

fn host(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host)
}

fn realms(document: &Document) -> Realms {
    let urls = urls(document);
    Realms::new(&urls[0], urls[1..].iter().map(String::as_str))
}

fn keys(
    document: &Document,
    origin: Origin,
    open: bool,
    sources: &Sources,
) -> Result<Vec<SigningKey>, ConfigError> {
    let registry = &document.registry;
    // Commands that serve nobody make no tokens, and without authentication nobody looks at one.
    let own = if open || sources.listen.is_none() {
        Some((SigningKey::ephemeral(), "the token key"))
    } else if origin == Origin::Standalone && registry.spec.has_own_token_key() {
        Some((SigningKey::load_or_make(&sources.data_dir.join(KEY_FILE)), "the token key in --data-dir"))
    } else {
        None
    };
    if let Some((keys, field)) = own {
        return keys.map_err(|source| ConfigError::Keys { field, source });
    }
    let path = "spec.auth.tokens.signingKeySecretRef";
    let key = registry.spec.token_key(&registry.name);
    let pem = sources.secrets.bytes(&key.name, &key.key).map_err(secret_error(path))?;
    SigningKey::parse(pem.expose()).map_err(|source| ConfigError::Keys { field: path, source })
}

fn server_tls(
    spec: &RegistrySpec,
    secrets: &SecretsDir,
) -> Result<Option<Arc<rustls::ServerConfig>>, ConfigError> {
    let Some(tls) = &spec.tls else { return Ok(None) };
    let read = |key| secrets.bytes(&tls.secret_ref.name, key).map_err(secret_error("spec.tls.secretRef"));
    let (chain, key) = (read("tls.crt")?, read("tls.key")?);
    let client_ca = optional_bytes("spec.tls.clientCASecretRef", tls.client_ca_secret_ref.as_ref(), secrets)?;
    let server = tls::server(chain.expose(), key.expose(), client_ca.as_deref());
    server.map(Some).map_err(ConfigError::Tls)
}

fn secret_error(field: &'static str) -> impl Fn(super::SecretError) -> ConfigError {
    move |source| ConfigError::Secret { field, source }
}

fn text(field: &'static str, key: &KeyRef, secrets: &SecretsDir) -> Result<Secret<String>, ConfigError> {
    secrets.text(&key.name, &key.key).map_err(secret_error(field))
}

fn optional_bytes(
    field: &'static str,
    key: Option<&KeyRef>,
    secrets: &SecretsDir,
) -> Result<Option<Vec<u8>>, ConfigError> {
    let read = |key: &KeyRef| secrets.bytes(&key.name, &key.key).map_err(secret_error(field));
    key.map(read).transpose().map(|bytes| bytes.as_ref().map(Secret::expose).cloned())
}

/// The file of a key that can be read.
fn optional_file(
    field: &'static str,
    key: Option<&KeyRef>,
    secrets: &SecretsDir,
) -> Result<Option<PathBuf>, ConfigError> {
    optional_bytes(field, key, secrets)?;
    key.map(|key| secrets.file(&key.name, &key.key).map_err(secret_error(field))).transpose()
}

/// How a secret's file is named in errors.
fn shown(key: &KeyRef, secrets: &SecretsDir) -> String {
    secrets.path().join(&key.name).join(&key.key).display().to_string()
}
