// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use stowage_crds::Kind;
use stowage_crds::conditions::Reason;
use stowage_crds::report::Report;

use super::*;
use crate::auth::Actions;
use crate::operation::Mode;
use crate::ops::health::Health;

const REGISTRY: &str = "apiVersion: stowage.dev/v1alpha1
kind: Registry
metadata: {name: main}
spec:
  externalURL: http://localhost:5000
  storage: {filesystem: {}}
  database: {sqlite: {}}
";

const POLICY: &str = "---
apiVersion: stowage.dev/v1alpha1
kind: AccessPolicy
metadata: {name: team}
spec:
  registryRef: {name: main}
  repositories: [\"team/**\"]
  subjects: [{user: alice}]
  actions: [Pull, Push]
";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("secrets/users")).unwrap();
        std::fs::create_dir(folder.path().join("config")).unwrap();
        Self(folder)
    }

    fn with(text: &str) -> Self {
        let folder = Self::new();
        folder.write("config/registry.yaml", text);
        folder
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.0.path().join(path), text).unwrap();
    }

    fn sources(&self) -> Sources {
        Sources {
            paths: vec![self.0.path().join("config")],
            registry: None,
            secrets: SecretsDir::new(self.0.path().join("secrets")),
            data_dir: self.0.path().join("data"),
            listen: Some(([127, 0, 0, 1], 5000).into()),
        }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        load(&self.sources())
    }

    fn error(&self) -> String {
        explained(&self.load().unwrap_err())
    }
}

fn embedded(listen: &str) -> Result<Config, ConfigError> {
    let folder = Folder::new();
    load(&Sources { paths: Vec::new(), listen: Some(listen.parse().unwrap()), ..folder.sources() })
}

#[test]
fn without_a_file_the_registry_is_embedded_and_open() {
    let config = embedded("127.0.0.1:5000").unwrap();
    assert_eq!((config.storage, config.database), (Storage::Filesystem, Database::Sqlite));
    assert!(config.access.rules.is_open() && config.tls.is_none());
    assert_eq!(config.limits.max_concurrent_uploads, 256);
}

#[test]
fn w736_w796_without_authentication_only_this_machine_is_served() {
    for listen in ["127.0.0.1:5000", "[::1]:5000", "[::ffff:127.0.0.1]:1"] {
        assert!(embedded(listen).is_ok(), "{listen}");
    }
    for listen in ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:80"] {
        assert!(matches!(embedded(listen), Err(ConfigError::OpenToTheWorld(_))), "{listen}");
    }
    let world = Some(([0, 0, 0, 0], 5000).into());
    let folder = Folder::with(REGISTRY);
    assert!(load(&Sources { listen: world, ..folder.sources() }).is_err());
    let folder = Folder::with(&format!("{REGISTRY}  auth: {{anonymous: PullPush}}\n"));
    assert!(load(&Sources { listen: world, ..folder.sources() }).is_ok());
}

const MIRROR: &str = "---
apiVersion: stowage.dev/v1alpha1
kind: Mirror
metadata: {name: hub}
spec:
  registryRef: {name: main}
  path: mirrors/hub
  mode: PullThrough
  upstream: {url: https://hub.example.com, hosts: [docker.io], secretRef: {name: login}, caSecretRef: {name: ca, key: ca.crt}, requestsPerSecond: 50}
  cache: {tagTTL: 5m}
";

const VIRTUAL: &str = "---
apiVersion: stowage.dev/v1alpha1
kind: VirtualRepository
metadata: {name: all}
spec:
  registryRef: {name: main}
  path: all
  members:
  - {name: team, repository: team-a}
  - {name: hub, mirrorRef: {name: hub}, include: [\"library/*\"], exclude: [\"library/internal-*\"]}
  pushTo: team
";

#[test]
fn a_mirror_and_a_virtual_repository_become_checked_values() {
    let folder = Folder::with(&format!("{REGISTRY}{MIRROR}{VIRTUAL}"));
    let config = folder.load().unwrap();
    let [hub] = &config.mirrors[..] else { panic!("{:?}", config.mirrors) };
    let secrets = folder.0.path().join("secrets");
    assert_eq!((hub.path.as_str(), hub.upstream.url.host()), ("mirrors/hub", Some("hub.example.com")));
    assert_eq!(hub.upstream.credentials, Some(secrets.join("login")));
    assert_eq!(hub.upstream.authorities, Some(secrets.join("ca/ca.crt")));
    assert_eq!(
        (hub.upstream.hosts.as_slice(), hub.upstream.max_concurrent),
        (&["docker.io".to_owned()][..], 16)
    );
    assert_eq!(hub.upstream.requests_per_second.map(std::num::NonZeroU32::get), Some(50));
    assert_eq!(hub.upstream.network, UpstreamNetwork::Public);
    assert_eq!((hub.cache.tag_ttl, hub.cache.stale_for), (Duration::from_mins(5), Duration::from_hours(720)));
    assert!(hub.asks_upstream && !hub.is_default);

    let [all] = &config.virtuals[..] else { panic!("{:?}", config.virtuals) };
    let [team, hub] = &all.members[..] else { panic!("{:?}", all.members) };
    assert_eq!((&team.source, team.takes_pushes), (&Source::Local("team-a".parse().unwrap()), true));
    assert_eq!((&hub.source, hub.takes_pushes), (&Source::Mirror("hub".to_owned()), false));
    assert_eq!(hub.include, ["library/*".parse().unwrap()]);
    assert_eq!(hub.exclude, ["library/internal-*".parse().unwrap()]);
    assert_eq!(all.remote_shadowing, RemoteShadowing::Forbid);
    assert_eq!((all.tag_resolution, all.is_suspended), (TagResolution::FirstMember, false));
}

const VERIFY: &str = "  verify:
    keys:
    - name: release
      publicKey: |
        -----BEGIN PUBLIC KEY-----
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOwZyhh+ivCw5y35hvhtdJoaIeTGP
        VhQzqEFQYt4YQL8mabq/EmpXWmrMvjqqgjuaQzQfFGjveqpYLpFG9atbkQ==
        -----END PUBLIC KEY-----
";

#[test]
fn what_is_pinned_is_so_by_each_name_that_docker_hub_has_for_it() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let pinned = |url: &str, repository: &str| {
        let mirror = MIRROR.replace("https://hub.example.com, hosts: [docker.io]", url);
        let pins = format!("  pins: [{{repository: {repository}, tag: \"1\", digest: \"{digest}\"}}]\n");
        let config = Folder::with(&format!("{REGISTRY}{mirror}{VIRTUAL}{pins}")).load().unwrap();
        let names: BTreeSet<String> =
            config.retention.pinned.iter().map(|(name, _)| name.to_string()).collect();
        names.into_iter().filter(|name| name.starts_with("mirrors/")).collect::<Vec<_>>().join(" ")
    };
    for (written, names) in [
        ("alpine", "mirrors/hub/alpine mirrors/hub/library/alpine"),
        ("library/alpine", "mirrors/hub/library/alpine"),
        ("docker.io/alpine", "mirrors/hub/docker.io/alpine mirrors/hub/library/alpine"),
        ("acme/app", "mirrors/hub/acme/app"),
    ] {
        assert_eq!(pinned("https://docker.io", written), names, "{written}");
    }
    assert_eq!(pinned("https://quay.example.com", "alpine"), "mirrors/hub/alpine");
}

#[test]
fn p20_nothing_is_evicted_that_could_not_be_fetched_again() {
    let evicting = "tagTTL: 5m, eviction: {unusedFor: 30d}";
    for (cache, line, caches) in [
        ("tagTTL: 5m", "", 0),
        (evicting, "", 1),
        ("offline: true, eviction: {unusedFor: 30d}", "", 0),
        (evicting, "  suspend: true\n", 0),
    ] {
        let mirror = MIRROR.replace("tagTTL: 5m", cache);
        let config = Folder::with(&format!("{REGISTRY}{mirror}{line}")).load().unwrap();
        assert_eq!(config.evictions.len(), caches, "{cache} {line}");
    }
}

#[test]
fn a_mirror_that_pulls_through_asks_for_referrers_unless_it_is_told_not_to() {
    for (line, asks) in [("", true), ("  referrers: Include\n", true), ("  referrers: Exclude\n", false)] {
        let config = Folder::with(&format!("{REGISTRY}{MIRROR}{line}")).load().unwrap();
        assert_eq!(config.mirrors[0].with_referrers, asks, "{line}");
    }
}

#[test]
fn keys_of_signatures_are_read_and_what_is_none_is_refused_with_its_place() {
    let config = Folder::with(&format!("{REGISTRY}{MIRROR}{VERIFY}{COPY}{VERIFY}")).load().unwrap();
    assert!(config.mirrors[0].keys.is_some());
    assert_eq!(config.mirrors[0].keys, config.replications[0].keys);
    let cut = VERIFY.replace("VhQzqEFQYt4YQL8mabq", "");
    let error = Folder::with(&format!("{REGISTRY}{MIRROR}{cut}")).error();
    assert!(error.contains("spec.verify.keys[0].publicKey: "), "{error}");
}

const COPY: &str = "---
apiVersion: stowage.dev/v1alpha1
kind: Mirror
metadata: {name: base}
spec:
  registryRef: {name: main}
  path: base
  mode: Replicate
  upstream: {url: https://quay.example.com, secretRef: {name: login}}
  artifacts:
  - {repository: library/alpine, tags: {semver: {range: \">=3.20 <4\"}, exclude: [\"*-rc*\"]}, newest: 5, platforms: [linux/arm64]}
  - {discover: {quayOrganization: acme, exclude: [\"acme/tmp-*\"]}}
  prune: RemovedUpstream
  limits: {bytesPerSecond: 50M}
";

#[test]
fn a_mirror_that_replicates_becomes_checked_values() {
    let text = format!("{REGISTRY}{MIRROR}{COPY}  schedule: \"0 */6 * * *\"\n{VIRTUAL}");
    let config =
        Folder::with(&text.replace("mirrorRef: {name: hub}", "mirrorRef: {name: base}")).load().unwrap();
    let [base] = &config.replications[..] else { panic!("{:?}", config.replications) };
    assert_eq!((base.name.as_str(), base.parallelism, config.mirrors.len()), ("base", 4, 1));
    assert_eq!(base.bytes_per_second.map(NonZeroU64::get), Some(50_000_000));
    assert!(base.prunes && base.with_referrers && matches!(base.due, Some(Due::By(_))));
    let [alpine, acme] = &base.artifacts[..] else { panic!("{:?}", base.artifacts) };
    assert_eq!(alpine.repositories, ReplicatedRepositories::One("library/alpine".parse().unwrap()));
    assert_eq!(
        (alpine.newest, alpine.platforms.as_slice()),
        (Some(5), &["linux/arm64".parse().unwrap()][..])
    );
    assert!(alpine.tags.takes(&"3.20.1".parse().unwrap()) && !alpine.tags.takes(&"latest".parse().unwrap()));
    let exclude = vec!["acme/tmp-*".parse().unwrap()];
    let organization = ReplicatedRepositories::Organization { name: "acme".to_owned(), exclude };
    assert_eq!(acme.repositories, organization);
    let names = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (names(&base.taken), names(&config.copied)),
        (vec!["mirrors/hub".to_owned(), "all".to_owned()], vec!["base".to_owned()])
    );
    let member = &config.virtuals[0].members[1];
    assert_eq!(member.source, Source::Copied("base".parse().unwrap()), "its copies are here, and not ours");
    let text = text.replace("repository: team-a", "repository: base/team");
    let config = Folder::with(&text).load().unwrap();
    assert_eq!(config.virtuals[0].members[0].source, Source::Copied("base/team".parse().unwrap()));
}

#[test]
fn a_run_reads_only_what_it_needs_of_the_mirror_that_is_asked_for() {
    let users = "  auth: {htpasswd: {secretRef: {name: absent, key: htpasswd}}}\n";
    let folder = Folder::with(&format!("{REGISTRY}{users}{COPY}  interval: 1m\n"));
    assert!(folder.load().is_err(), "a replica needs the users");
    let sync = load_sync(&folder.sources(), "base").unwrap();
    assert!(matches!(sync.replication.due, Some(Due::After(pause)) if pause == Duration::from_mins(1)));
    let error = explained(&load_sync(&folder.sources(), "hub").unwrap_err());
    assert!(error.contains("no Mirror \"hub\" of mode Replicate") && error.contains("base"), "{error}");
    let broken = COPY.replace(">=3.20 <4", "latest");
    let error = Folder::with(&format!("{REGISTRY}{broken}")).error();
    assert!(error.contains("spec.artifacts[0].tags.semver.range: not a range of versions"), "{error}");
    let suspended = Folder::with(&format!("{REGISTRY}{COPY}  interval: 1m\n  suspend: true\n"));
    assert!(suspended.load().unwrap().replications[0].due.is_none());
    let forbidden = Folder::with(&format!("{REGISTRY}  mode: NoDelete\n{COPY}  interval: 1m\n"));
    let troubles = forbidden.load().unwrap().troubles;
    assert!(troubles.iter().any(|trouble| trouble.reason == Reason::Refused), "it prunes: {troubles:?}");
}

#[test]
fn a_suspended_mirror_asks_nobody_and_a_suspended_path_answers_nothing() {
    let suspended = format!("{REGISTRY}{MIRROR}  suspend: true\n{VIRTUAL}  suspend: true\n");
    let config = Folder::with(&suspended).load().unwrap();
    assert!(!config.mirrors[0].asks_upstream && config.virtuals[0].is_suspended);
}

#[test]
fn a_missing_secret_of_a_mirror_is_its_own_trouble() {
    let folder = Folder::with(&format!("{REGISTRY}{MIRROR}"));
    let trouble = || folder.load().unwrap().troubles.pop().map(|trouble| trouble.message);
    let login = "spec.upstream.secretRef: Secret login must have .dockerconfigjson, or username and password, or token";
    assert_eq!(trouble().as_deref(), Some(login));
    for secret in ["login", "ca"] {
        std::fs::create_dir(folder.0.path().join("secrets").join(secret)).unwrap();
    }
    folder.write("secrets/login/username", "me");
    assert_eq!(trouble().as_deref(), Some(login));
    folder.write("secrets/login/password", "secret");
    assert_eq!(trouble().as_deref(), Some("spec.upstream.caSecretRef: Secret ca must have ca.crt"));
    folder.write("secrets/ca/ca.crt", "pem");
    assert_eq!(trouble(), None);
}

#[test]
fn the_report_names_every_resource_and_the_trouble_of_a_mirror() {
    let folder = Folder::with(&format!("{REGISTRY}{POLICY}{MIRROR}{VIRTUAL}"));
    let live = Live::new(folder.load().unwrap());
    let found = Trouble {
        kind: Kind::Mirror,
        name: "hub".to_owned(),
        reason: Reason::UpstreamUnreachable,
        message: "no answer".to_owned(),
    };
    let report = |live: &Live| {
        let facts = Facts { troubles: vec![found.clone()], ..Facts::default() };
        let report = live.report(&Health::default(), &facts);
        let report: Report = serde_json::from_value(report).unwrap();
        report.resources.into_iter().map(|r| (r.kind, r.name, r.reason)).collect::<Vec<_>>()
    };
    let expected = |reason: &str| {
        [
            ("AccessPolicy", "team", None),
            ("Mirror", "hub", Some(reason.to_owned())),
            ("VirtualRepository", "all", None),
        ]
        .map(|(kind, name, reason)| (kind.to_owned(), name.to_owned(), reason))
    };
    assert_eq!(report(&live), expected("SecretNotFound"), "the configuration lacks something");
    for (secret, key) in [("login", "token"), ("ca", "ca.crt")] {
        std::fs::create_dir(folder.0.path().join("secrets").join(secret)).unwrap();
        folder.write(&format!("secrets/{secret}/{key}"), "x");
    }
    let live = Live::new(folder.load().unwrap());
    assert_eq!(report(&live), expected("UpstreamUnreachable"), "serving found something");
}

#[test]
fn paths_that_meet_are_an_error_that_names_the_second_by_name() {
    let below = VIRTUAL.replace("path: all", "path: mirrors/hub/all");
    let error = Folder::with(&format!("{REGISTRY}{MIRROR}{below}")).error();
    assert!(error.contains("document 2: spec.path: VirtualRepository all has the path"), "{error}");
    let gone = VIRTUAL.replace("mirrorRef: {name: hub}", "mirrorRef: {name: gone}");
    let error = Folder::with(&format!("{REGISTRY}{MIRROR}{gone}")).error();
    assert!(error.contains("document 3: spec.members[1].mirrorRef.name"), "{error}");
    let loops = MIRROR.replace("https://hub.example.com", "http://localhost:5000");
    let error = Folder::with(&format!("{REGISTRY}{loops}")).error();
    assert!(error.contains("document 2: spec.upstream: localhost:5000 is this registry"), "{error}");
}

#[test]
fn a_policy_beside_a_registry_without_auth_closes_it() {
    let config = Folder::with(&format!("{REGISTRY}{POLICY}")).load().unwrap();
    assert!(!config.access.rules.is_open());
    let name = "team/a".parse().unwrap();
    assert_eq!(config.access.rules.granted(None, &name), Actions::NONE);
}

#[test]
fn every_problem_is_named_with_file_document_and_field() {
    let registry = REGISTRY.replace("sqlite: {}", "sqlite: {}, colour: red");
    let policy = POLICY.replace("name: team", "name: 7").replace("[Pull, Push]", "[Fly]");
    let error = Folder::with(&format!("{registry}{policy}")).error();
    for part in
        ["registry.yaml, document 1: spec.database.colour", "registry.yaml, document 2: metadata.name"]
    {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert!(error.contains("document 2: spec.actions[0]"), "{error}");
}

#[test]
fn dangling_references_and_repeated_names_are_errors() {
    let dangling = POLICY.replace("{name: main}", "{name: other}");
    let error = Folder::with(&format!("{REGISTRY}{dangling}")).error();
    assert!(error.contains("document 2: spec.registryRef.name"), "{error}");
    let error = Folder::with(&format!("{REGISTRY}{POLICY}{POLICY}")).error();
    assert!(error.contains("document 3: metadata.name"), "{error}");
}

#[test]
fn what_is_no_yaml_or_no_resource_is_an_error_that_names_the_file() {
    assert!(Folder::with("a: [").error().contains("registry.yaml: not YAML"));
    assert!(Folder::with("a: 1").error().contains("registry.yaml, document 1: kind: expected Registry"));
    assert!(matches!(Folder::with("").load(), Err(ConfigError::NoRegistry)));
    let twice = format!("{REGISTRY}  mode: ReadOnly\n  mode: NoDelete\n");
    assert!(Folder::with(&twice).error().contains("not YAML"));
}

#[test]
fn one_of_several_registries_must_be_chosen() {
    let second = REGISTRY.replace("name: main", "name: second");
    let folder = Folder::with(&format!("{REGISTRY}---\n{second}"));
    assert!(
        matches!(folder.load(), Err(ConfigError::SeveralRegistries(names)) if names == ["main", "second"])
    );
    let choose = |name: &str| load(&Sources { registry: Some(name.to_owned()), ..folder.sources() });
    assert_eq!(choose("second").unwrap().registry, "second");
    assert!(matches!(choose("third"), Err(ConfigError::UnknownRegistry(_))));
}

fn with_users(hash: &str) -> Folder {
    let auth = "  auth: {htpasswd: {secretRef: {name: users, key: htpasswd}}}\n";
    let folder = Folder::with(&format!("{REGISTRY}{auth}"));
    folder.write("secrets/users/htpasswd", &format!("# people\nalice:{hash}\n"));
    folder
}

#[test]
fn a_plain_text_password_is_an_error_that_names_file_and_line() {
    let error = with_users("hunter2").error();
    assert!(error.contains("secrets/users/htpasswd, line 2: "), "{error}");
    assert!(error.starts_with("spec.auth.htpasswd.secretRef") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_missing_secret_is_an_error_that_names_field_and_file() {
    let folder = with_users("x");
    std::fs::remove_file(folder.0.path().join("secrets/users/htpasswd")).unwrap();
    let error = folder.error();
    assert!(error.starts_with("spec.auth.htpasswd.secretRef: cannot read"), "{error}");
}

/// What the operator would mount for the resources.
fn compiled(folder: &Folder) -> (String, String) {
    let sources = folder.sources();
    let encoded = read(&sources).unwrap().0.encode();
    (encoded.json, encoded.hash)
}

fn operators(auth: &str) -> Folder {
    let (json, hash) = compiled(&Folder::with(&format!("{REGISTRY}{auth}")));
    let folder = Folder::new();
    folder.write("config/document.json", &json);
    folder.write("config/hash", &hash);
    folder
}

#[test]
fn the_operators_document_is_read_and_checked_against_its_hash() {
    let folder = operators("  auth: {anonymous: PullPush}\n");
    assert!(folder.error().starts_with("spec.auth.tokens.signingKeySecretRef"), "{}", folder.error());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    std::fs::create_dir(folder.0.path().join("secrets/main-token-key")).unwrap();
    folder.write("secrets/main-token-key/keys.pem", &key);
    assert_eq!(folder.load().unwrap().registry, "main");
    folder.write("config/hash", "sha256:0");
    let document = std::fs::read(folder.0.path().join("config/document.json")).unwrap();
    assert_eq!(files::hash(&folder.sources().paths), Some(stowage_crds::document::hash(&document)));
    assert!(matches!(folder.load(), Err(ConfigError::Document { .. })));
    folder.write("config/other.yaml", REGISTRY);
    assert!(matches!(folder.load(), Err(ConfigError::Mixed(_))));
}

#[test]
fn w605_the_operators_document_without_auth_is_closed() {
    let folder = operators("");
    let config = load(&Sources { listen: None, ..folder.sources() }).unwrap();
    assert!(!config.access.rules.is_open());
}

/// What is shown for a folder, and what the shown text is shown as.
fn shown_twice(sources: &Sources) -> [Shown; 2] {
    let first = show(sources).unwrap();
    let folder = Folder::with(&first.yaml());
    let second = show(&folder.sources()).unwrap();
    [first, second]
}

#[test]
fn what_is_shown_as_resources_reads_back_as_the_same() {
    let folder = Folder::with(&format!("{REGISTRY}  mode: NoDelete\n{POLICY}{MIRROR}{VIRTUAL}"));
    let nothing = Sources { paths: Vec::new(), ..folder.sources() };
    for sources in [nothing, folder.sources()] {
        let [first, second] = shown_twice(&sources);
        assert_eq!(first.hash, second.hash);
        assert_eq!(first.yaml(), second.yaml());
        assert!(first.yaml().starts_with(&format!("# {}\n---\n", first.hash)), "{}", first.yaml());
    }
}

#[test]
fn the_operators_document_without_auth_is_shown_as_closed_as_it_is() {
    let [_, second] = shown_twice(&operators("").sources());
    let folder = Folder::with(&second.yaml());
    let config = load(&Sources { listen: None, ..folder.sources() }).unwrap();
    assert!(!config.access.rules.is_open());
}

/// A registry at `registry.example.com:5000` that redirects to this store.
#[test]
fn a_collection_runs_by_its_schedule_where_no_jobs_do() {
    let asked = "  garbageCollection: {schedule: \"0 */6 * * *\", timeZone: Europe/Berlin, gracePeriod: 2d}\n  trash: {retainFor: 0s}\n";
    let config = Folder::with(&format!("{REGISTRY}{asked}")).load().unwrap();
    let collection = &config.collection;
    assert_eq!((collection.grace, collection.retain_for), (Duration::from_hours(48), Duration::ZERO));
    assert_eq!(collection.schedule.as_ref().unwrap().longest_gap(), Duration::from_hours(6));

    let collection = Folder::with(REGISTRY).load().unwrap().collection;
    assert_eq!(
        (collection.grace, collection.retain_for),
        (Duration::from_hours(24), Duration::from_hours(168))
    );
    let suspended = format!("{REGISTRY}  garbageCollection: {{suspend: true}}\n");
    assert!(Folder::with(&suspended).load().unwrap().collection.schedule.is_none());
    let (mut document, _) = read(&Folder::with(REGISTRY).sources()).unwrap();
    document.runtime.schedules = stowage_crds::document::Schedules::Jobs;
    assert!(build::collection(&document).unwrap().schedule.is_none(), "Kubernetes starts the runs");

    let never = format!("{REGISTRY}  garbageCollection: {{timeZone: Mars/Base}}\n");
    let error = Folder::with(&never).error();
    assert!(error.contains("spec.garbageCollection") && error.contains("Mars/Base"), "{error}");
}

fn redirecting(store: &str) -> Folder {
    let registry = REGISTRY
        .replace("filesystem: {}", &format!("s3: {{bucket: content, redirect: {{mode: Always}}, {store}}}"))
        .replace("sqlite: {}", "postgres: {urlSecretRef: {name: db, key: url}}");
    let folder = Folder::with(&registry.replace("localhost:5000", "registry.example.com:5000"));
    std::fs::create_dir_all(folder.0.path().join("secrets/db")).unwrap();
    folder.write("secrets/db/url", "postgresql://localhost/stowage");
    folder
}

#[test]
fn w149_a_redirect_to_the_registrys_own_host_or_below_it_is_refused() {
    for store in [
        "endpoint: \"https://registry.example.com:9000\", forcePathStyle: true",
        "endpoint: \"https://s3.Registry.example.com\", forcePathStyle: true",
        "endpoint: \"https://registry.example.com:9000\"",
    ] {
        let error = redirecting(store).error();
        assert!(error.starts_with("spec.storage.s3.redirect.mode: "), "{store}: {error}");
    }
    for store in [
        "region: eu-central-1",
        "endpoint: \"https://s3.example.com\"",
        "endpoint: \"https://s3-registry.example.com:5000\", forcePathStyle: true",
    ] {
        let config = redirecting(store).load().unwrap();
        let expected = Redirect { min_size: 1 << 20, exclude_user_agents: Vec::new() };
        assert_eq!(config.redirect, Some(expected), "{store}");
    }
}

#[test]
fn w446_aliases_are_hosts_that_are_asked_for_here_and_nowhere_to_go() {
    let folder = Folder::with(&format!("{REGISTRY}  aliases: [docker.io]\n"));
    let config = folder.load().unwrap();
    assert_eq!(config.hosts.last().map(String::as_str), Some("docker.io"));
    assert_ne!(config.hosts.first(), config.hosts.last(), "the external one stays the first");
    assert_eq!(config.redirect, None);
    let broken = Folder::with(&format!("{REGISTRY}  aliases: [\"https://docker.io\"]\n")).error();
    assert!(broken.contains("spec.aliases[0]"), "{broken}");
}

#[test]
fn w023_blobs_are_proxied_unless_the_configuration_says_otherwise() {
    assert_eq!(Folder::with(REGISTRY).load().unwrap().redirect, None);
    let text =
        std::fs::read_to_string(redirecting("region: a").0.path().join("config/registry.yaml")).unwrap();
    let folder = redirecting("region: a");
    folder.write("config/registry.yaml", &text.replace("mode: Always", "mode: Never"));
    assert_eq!(folder.load().unwrap().redirect, None);
}

#[test]
fn traces_go_to_the_conventional_path_of_the_collector() {
    assert_eq!(Folder::with(REGISTRY).load().unwrap().traces, None);
    for (endpoint, collector) in [
        ("http://otel.monitoring:4318", "http://otel.monitoring:4318/v1/traces"),
        ("https://otel.example.com/team/a/", "https://otel.example.com/team/a/v1/traces"),
    ] {
        let folder = Folder::with(&format!("{REGISTRY}  telemetry: {{otlpEndpoint: \"{endpoint}\"}}\n"));
        let traces = folder.load().unwrap().traces.unwrap();
        assert_eq!((traces.collector.to_string().as_str(), traces.registry.as_str()), (collector, "main"));
        assert!((traces.share - 0.1).abs() < f64::EPSILON, "{traces:?}");
    }
}

#[test]
fn the_port_for_grpc_is_refused_with_what_to_write_instead() {
    let folder = Folder::with(&format!("{REGISTRY}  telemetry: {{otlpEndpoint: \"http://otel:4317\"}}\n"));
    let error = explained(&show(&folder.sources()).unwrap_err());
    assert!(error.contains("document 1: spec.telemetry: ") && error.contains("4318"), "{error}");
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..500 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within five seconds");
}

#[tokio::test]
async fn a_change_is_swapped_in_and_a_broken_one_keeps_the_last_good() {
    let folder = Folder::with(REGISTRY);
    let live = Live::new(folder.load().unwrap());
    let stopping = CancellationToken::new();
    let sources = folder.sources();
    let apply = |_: &Config| {};
    let watching = watch(&live, &sources, &apply, &stopping, Duration::from_millis(5));
    let story = async {
        folder.write("config/registry.yaml", &format!("{REGISTRY}  mode: ReadOnly\n"));
        until(|| live.current().mode == Mode::ReadOnly).await;
        folder.write("config/registry.yaml", "nonsense");
        until(|| live.rejected().is_some()).await;
        assert_eq!(live.current().mode, Mode::ReadOnly);
        replace(folder.0.path(), &format!("{REGISTRY}  limits: {{maxConcurrentRequests: 7}}\n"));
        until(|| live.current().mode == Mode::ReadWrite).await;
        assert_eq!(live.current().limits.max_concurrent_requests, 7);
        assert_eq!((live.rejected(), live.pending_restart()), (None, vec![]));
        replace(folder.0.path(), &REGISTRY.replace("sqlite: {}", "sqlite: {}, writeHold: 5s"));
        until(|| !live.pending_restart().is_empty()).await;
        assert_eq!(live.pending_restart(), vec!["spec.database".to_owned()]);
        replace(folder.0.path(), &format!("{REGISTRY}{MIRROR}"));
        until(|| live.current().mirrors.len() == 1 && live.pending_restart().is_empty()).await;
        let (login, ca) = (folder.0.path().join("secrets/login"), folder.0.path().join("secrets/ca"));
        assert_eq!(live.current().troubles.len(), 1);
        std::fs::create_dir(&login).unwrap();
        std::fs::create_dir(&ca).unwrap();
        std::fs::write(ca.join("ca.crt"), "pem").unwrap();
        std::fs::write(login.join("token"), "token").unwrap();
        until(|| live.current().troubles.is_empty()).await;
        replace(folder.0.path(), &format!("{REGISTRY}  telemetry: {{otlpEndpoint: \"http://otel:4318\"}}\n"));
        until(|| live.pending_restart() == ["spec.telemetry"]).await;
        stopping.cancel();
    };
    tokio::join!(watching, story);
}

/// As a mounted `ConfigMap` changes: the name is a link that is pointed elsewhere.
fn replace(folder: &Path, text: &str) {
    std::fs::write(folder.join("next"), text).unwrap();
    let link = folder.join("link");
    std::os::unix::fs::symlink(folder.join("next"), &link).unwrap();
    std::fs::rename(&link, folder.join("config/registry.yaml")).unwrap();
}
