// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What people write for Stowage, and everything its two binaries tell each other.
//!
//! The custom resources of `stowage.dev/v1alpha1` are plain types here: specs, statuses, the rules beyond
//! structure, and the reasons a status may give. Beside them stand the document that the operator hands to the
//! replicas, the report a replica gives back, and the summary a Job ends with.
//!
//! Guarantees: nothing in this crate does I/O or asks for the time; the same input gives the same bytes.
//! Never: a Kubernetes client, a runtime, or the value of a secret.

#![expect(
    clippy::doc_markdown,
    reason = "doc comments become descriptions, where names of Kubernetes stand bare"
)]

mod access_policy;
pub mod check;
pub mod conditions;
mod cycles;
mod dependent;
pub mod document;
mod duration;
mod kind;
mod mirror;
mod names;
pub mod paths;
mod promotion;
mod promotion_policy;
mod quantity;
mod registry;
mod replication;
pub mod report;
mod retention_policy;
mod rules;
mod schedule;
mod schema;
mod signatures;
pub mod strict;
mod summary;
mod tags;
mod text;
pub mod usage;
mod virtual_repository;
pub mod yaml;

pub use access_policy::{AccessPolicy, AccessPolicySpec, AccessPolicyStatus, Action, Subject, SubjectKind};
pub use dependent::{Dependent, Dependents};
pub use document::Document;
pub use duration::Duration;
pub use kind::Kind;
pub use mirror::{
    Mirror, MirrorCache, MirrorEviction, MirrorMode, MirrorSecret, MirrorSpec, MirrorStatus, MirrorUpstream,
    TlsVerification, UpstreamNetwork,
};
pub use names::{Empty, Freeform, KeyRef, Labels, Ref, SecretRef};
pub use promotion::{
    Evaluation, GateStatus, Promotion, PromotionApproval, PromotionResult, PromotionSpec, PromotionStatus,
    RequestedArtifact,
};
pub use promotion_policy::{
    AgeGate, AgeSince, ApprovalGate, AttestationGate, LabelGate, LastPromotion, OnTagConflict,
    PromotedByGate, PromotionGate, PromotionPolicy, PromotionPolicySpec, PromotionPolicyStatus,
    PromotionReferrers, PromotionSource, PromotionTarget, PromotionTrigger, SignatureGate,
};
pub use quantity::Quantity;
pub use registry::{
    Anonymous, Auth, Autoscaling, Database, DeletionPolicy, Disruption, Expose, GarbageCollection,
    GarbageCollectionStatus, Htpasswd, HttpRoute, Image, ImmutabilityRule, ImmutableDeletion, Ingress,
    Limits, Managed, MigrationPolicy, Migrations, Mode, Monitoring, OPERATOR_FIELDS, ParentRef, Postgres,
    PullTracking, Redirect, RedirectMode, Registry, RegistrySpec, RegistryStatus, S3, Scrub, SecretUse,
    ServiceAccount, ServiceExposure, ServiceMonitor, ServiceType, SignatureTags, Storage, Telemetry, Tls,
    Tokens, Trash, UsageProtection, UsageRemote, UsageScope, Volume,
};
pub use replication::{Discover, MirrorArtifacts, MirrorLimits, MirrorReferrers, Prune, SyncFailure};
pub use report::Report;
pub use retention_policy::{
    KeepRule, LabelMatch, MostRecent, PromotedTo, RecentBy, RetentionLimits, RetentionMode, RetentionPolicy,
    RetentionPolicySpec, RetentionPolicyStatus, RetentionReferrers, RetentionRepositories, Untagged,
};
pub use schedule::{NotASchedule, Schedule};
pub use schema::{crd, manifests};
pub use signatures::{NotAPublicKey, PublicKey, SignatureProvider, Verification};
pub use summary::{Outcome, Summary, Termination};
pub use tags::{SemverSelector, TagSelector};
pub use text::{
    BaseUrl, Cron, DigestText, Glob, HostName, HttpUrl, ItemName, MountPath, OrganizationName, PlatformName,
    PredicateType, PublicKeyPem, RegexText, Repository, RepositoryTemplateText, TagGlob, TagName,
    TagTemplateText, TimeZone, UserName, VersionRange,
};
pub use virtual_repository::{
    Member, MemberStatus, Pin, RemoteShadowing, TagResolution, VirtualRepository, VirtualRepositorySpec,
    VirtualRepositoryStatus,
};

/// The API group of every kind.
pub const GROUP: &str = "stowage.dev";
/// The version of the API that this crate describes.
pub const VERSION: &str = "v1alpha1";
/// Group and version, as `apiVersion` spells them.
pub const API_VERSION: &str = "stowage.dev/v1alpha1";
